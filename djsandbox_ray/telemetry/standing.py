"""Where a study stands: its trials by state, what they have used, and who leads so far.

Kept up record by record: a new record of a trial takes the place of its last one, at the same cost
however many trials and pools there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
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
        """Of the pools that still race, by samples seen."""
        self._finals = {PoolKind.BUCKET: _Means(), PoolKind.CONTROL: _Means()}
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
        if record.state is TrialState.STOPPED and record.spec.pool not in self._given_up:
            self._given_up.add(record.spec.pool)
            for means in self._rungs.values():
                means.leave_out(record.spec.pool)
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
        most = max((len(means) for means in self._rungs.values()), default=0)
        if not most:
            return None
        samples = max(rung for rung, means in self._rungs.items() if 2 * len(means) >= most)
        return Leader(self._rungs[samples].best, samples)

    @property
    def best_change(self) -> float | None:
        """Mean final score of the best pool against that of the controls; None without both.

        A share of the controls' score; no verdict.
        """
        pools, controls = self._finals[PoolKind.BUCKET], self._finals[PoolKind.CONTROL]
        if not len(pools) or not len(controls) or not (control := fmean(controls.means)):
            return None
        return (pools.mean_of(pools.best) - control) / abs(control)

    def _compare(self, record: TrialRecord, last: TrialRecord | None) -> None:
        """Bring the means of a trial's pool up to date."""
        pool, trial = record.spec.pool, record.spec.id
        kind = self._pools[pool].kind
        if kind is PoolKind.BUCKET:
            for report in last.reports if last else ():
                self._rungs[report.samples].put(pool, trial, None)
            for report in record.reports:
                means = self._rungs.setdefault(report.samples, _Means(self._given_up))
                means.put(pool, trial, self._score.mean(report.metrics))
        if kind in self._finals:
            final = record.final
            score = self._score.mean(final.metrics) if final else None
            self._finals[kind].put(pool, trial, score)


class _Means:
    """Mean scores of pools, at one place of the training.

    Args:
        left_out: pools that do not count; more may come, by :meth:`leave_out`.
    """

    def __init__(self, left_out: AbstractSet[str] = frozenset()) -> None:
        self._left_out = left_out
        self._by_pool: dict[str, float] = {}
        self._scores: dict[str, dict[str, float]] = {}
        """By pool and trial."""
        self._ordered: list[tuple[float, str]] = []
        """A heap of means, the greatest first, with those that have been."""

    def __len__(self) -> int:
        return len(self._by_pool)

    @property
    def means(self) -> Collection[float]:
        """Of all pools."""
        return self._by_pool.values()

    @property
    def best(self) -> str:
        """The pool with the greatest mean; of several the first by name. There must be one."""
        while self._by_pool.get(self._ordered[0][1]) != -self._ordered[0][0]:
            heappop(self._ordered)
        return self._ordered[0][1]

    def mean_of(self, pool: str) -> float:
        """Return the mean of a pool that has one."""
        return self._by_pool[pool]

    def put(self, pool: str, trial: str, score: float | None) -> None:
        """Put a score in the place of the trial's last one; None: it has none."""
        if pool in self._left_out:
            return
        scores = self._scores.setdefault(pool, {})
        scores.pop(trial, None)
        if score is not None:
            scores[trial] = score
        if not scores:
            self._by_pool.pop(pool, None)
        elif (mean := fmean(scores.values())) != self._by_pool.get(pool):
            self._by_pool[pool] = mean
            heappush(self._ordered, (-mean, pool))

    def leave_out(self, pool: str) -> None:
        """Forget a pool, which counts no more."""
        self._by_pool.pop(pool, None)
        self._scores.pop(pool, None)


def samples_of(record: TrialRecord) -> int:
    """Return how many samples a trial has trained on at its last report."""
    return record.reports[-1].samples if record.reports else 0
