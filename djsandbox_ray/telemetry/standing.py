"""Where a study stands: its trials by state, what they have used, and who leads so far.

Kept up record by record: a new record of a trial takes the place of its last one, at the same cost
however many trials there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Pool, PoolKind, TrialRecord, TrialState


class Standing:
    """Counts and means over the newest records of trials.

    Args:
        pools: of the study, by id.
        score: the metrics whose mean is compared; None for all. One that is better when less counts
            with a minus.
    """

    def __init__(
        self, pools: Mapping[str, Pool], score: ScoreMetrics | Sequence[str] | None
    ) -> None:
        self._pools, self._score = pools, ScoreMetrics.of(score)
        self._records: dict[str, TrialRecord] = {}
        self._states: Counter[TrialState] = Counter()
        self.used = 0
        """Samples that all of them have trained on."""
        self._begun = 0
        """Samples of those that run."""
        self._total = 1
        self._scores: dict[str, dict[str, float]] = {}
        """By pool and trial: the mean of the score's metrics at the full budget."""
        self._means: dict[str, float] = {}
        """By pool of a kind that is compared."""
        self.best: str | None = None
        """The pool in question that leads; no verdict."""
        self._control: float | None = None
        """Mean of the means of the controls."""

    def take(self, record: TrialRecord) -> None:
        """Put a record in the place of the trial's last one."""
        last = self._records.get(record.spec.id)
        self._records[record.spec.id] = record
        self._total = record.spec.total
        for entry, sign in ((last, -1), (record, 1)):
            if entry is not None:
                seen = samples_of(entry)
                self._states[entry.state] += sign
                self.used += sign * seen
                self._begun += sign * seen * (entry.state is TrialState.RUNNING)
        if record.final or (last and last.final):
            self._compare(record)

    def count(self, state: TrialState) -> int:
        """Return how many trials are in a state."""
        return self._states[state]

    @property
    def known(self) -> int:
        """How many trials were begun, or were found settled."""
        return len(self._records)

    @property
    def begun(self) -> float:
        """Work in the trials that run, in units of a whole one."""
        return self._begun / self._total

    @property
    def best_change(self) -> float | None:
        """Mean score of the leading pool against that of the controls; None while one is missing.

        A share of the controls' score; no verdict.
        """
        if self.best is None or not self._control:
            return None
        return (self._means[self.best] - self._control) / abs(self._control)

    def _compare(self, record: TrialRecord) -> None:
        """Bring the mean of a trial's pool up to date, and what depends on it."""
        pool, trial = record.spec.pool, record.spec.id
        scores = self._scores.setdefault(pool, {})
        scores.pop(trial, None)
        if record.final and (score := self._score.mean(record.final.metrics)) is not None:
            scores[trial] = score
        kind = self._pools[pool].kind
        if kind is PoolKind.SELF_TEST:
            return
        if scores:
            self._means[pool] = fmean(scores.values())
        else:
            self._means.pop(pool, None)
        if kind is PoolKind.CONTROL:
            controls = self._of(PoolKind.CONTROL)
            self._control = fmean(controls.values()) if controls else None
        elif pool == self.best or not scores:  # it may have fallen behind
            asked = self._of(PoolKind.BUCKET)
            self.best = max(asked, key=asked.__getitem__, default=None)
        elif self.best is None or self._means[pool] > self._means[self.best]:
            self.best = pool

    def _of(self, kind: PoolKind) -> dict[str, float]:
        return {name: mean for name, mean in self._means.items() if self._pools[name].kind is kind}


def samples_of(record: TrialRecord) -> int:
    """Return how many samples a trial has trained on at its last report."""
    return record.reports[-1].samples if record.reports else 0
