"""Where a study stands: its trials by state, what they have used, and who leads so far.

Kept up record by record: a new record of a trial takes the place of its last one, at the same cost
however many trials there are. Who leads is looked for among pools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Pool, PoolKind, TrialRecord, TrialState


class Leader(NamedTuple):
    """The pool in question with the highest mean score so far; no verdict."""

    pool: str
    samples: int
    """Seen in training where pools are compared."""


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
        self._placed: frozenset[str] = frozenset()
        self._reported: set[str] = set()
        """Trials that are not over and have reported."""
        self._given_up: set[str] = set()
        """Pools of which a trial was."""
        self._rungs: dict[int, _Means] = {}
        """By samples seen."""
        self._finals = _Means()
        """At the full budget."""

    def take(self, record: TrialRecord) -> None:
        """Put a record in the place of the trial's last one."""
        last = self._records.get(record.spec.id)
        self._records[record.spec.id] = record
        for entry, sign in ((last, -1), (record, 1)):
            if entry is not None:
                self._states[entry.state] += sign
                self.used += sign * samples_of(entry)
        if record.state is TrialState.RUNNING and record.reports:
            self._reported.add(record.spec.id)
        else:
            self._reported.discard(record.spec.id)
        if record.state is TrialState.STOPPED:
            self._given_up.add(record.spec.pool)
        if last is None or last.reports != record.reports:
            self._compare(record, last)

    def place(self, trials: Collection[str]) -> None:
        """Take the ids of the trials that have a place."""
        self._placed = frozenset(trials)

    def count(self, state: TrialState) -> int:
        """Return how many trials are in a state."""
        return self._states[state]

    @property
    def known(self) -> int:
        """How many trials were begun, or were found settled."""
        return len(self._records)

    @property
    def at_work(self) -> int:
        """How many trials run in a place."""
        found = (self._records.get(trial) for trial in self._placed)
        return sum(entry is not None and entry.state is TrialState.RUNNING for entry in found)

    @property
    def at_a_rung(self) -> int:
        """How many trials have reported and wait without a place, until it goes on."""
        return len(self._reported) - len(self._reported & self._placed)

    @property
    def leader(self) -> Leader | None:
        """Who leads where half of those still in the race can be compared; None while nobody can.

        That is the furthest rung with at least half as many of them as any rung has: one that runs
        ahead of all others leads nobody.
        """
        racing = {
            samples: found
            for samples, means in self._rungs.items()
            if (found := self._of(PoolKind.BUCKET, means, self._given_up))
        }
        if not racing:
            return None
        most = max(map(len, racing.values()))
        samples = max(rung for rung, found in racing.items() if 2 * len(found) >= most)
        return Leader(max(racing[samples], key=racing[samples].__getitem__), samples)

    @property
    def best_change(self) -> float | None:
        """Mean final score of the best pool against that of the controls; None without both.

        A share of the controls' score; no verdict.
        """
        pools = self._of(PoolKind.BUCKET, self._finals)
        controls = self._of(PoolKind.CONTROL, self._finals)
        if not pools or not controls or not (control := fmean(controls.values())):
            return None
        return (max(pools.values()) - control) / abs(control)

    def _compare(self, record: TrialRecord, last: TrialRecord | None) -> None:
        """Bring the means of a trial's pool up to date."""
        pool, trial = record.spec.pool, record.spec.id
        for report in last.reports if last else ():
            self._rungs[report.samples].put(pool, trial, None)
        for report in record.reports:
            score = self._score.mean(report.metrics)
            self._rungs.setdefault(report.samples, _Means()).put(pool, trial, score)
        final = record.final
        self._finals.put(pool, trial, self._score.mean(final.metrics) if final else None)

    def _of(self, kind: PoolKind, means: _Means, but: Collection[str] = ()) -> dict[str, float]:
        found = means.by_pool.items()
        return {
            name: mean for name, mean in found if self._pools[name].kind is kind and name not in but
        }


class _Means:
    """Mean scores of pools, at one place of the training."""

    def __init__(self) -> None:
        self.by_pool: dict[str, float] = {}
        self._scores: dict[str, dict[str, float]] = {}
        """By pool and trial."""

    def put(self, pool: str, trial: str, score: float | None) -> None:
        """Put a score in the place of the trial's last one; None: it has none."""
        scores = self._scores.setdefault(pool, {})
        scores.pop(trial, None)
        if score is not None:
            scores[trial] = score
        if scores:
            self.by_pool[pool] = fmean(scores.values())
        else:
            self.by_pool.pop(pool, None)


def samples_of(record: TrialRecord) -> int:
    """Return how many samples a trial has trained on at its last report."""
    return record.reports[-1].samples if record.reports else 0
