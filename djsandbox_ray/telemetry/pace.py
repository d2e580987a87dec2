"""How long a study takes yet, by the seconds that its trials say they have worked.

Time over trials done would mislead: processes take long to start, trials that wait at a rung for
others look begun, and those of pools that race are often given up there. So what is left is counted
in samples, trial by trial, what the race may save with a chance; and a sample takes as long as
those have taken that were trained on and evaluated, on as many places as trials have had at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from djsandbox_ray.records import Pool, PoolKind, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.telemetry.standing import samples_of

GOES_ON = 0.7
"""Chance that a pool that races is kept at a rung. Nobody knows it beforehand: with two rungs,
studies that end with a quarter of their pools and such that keep all of them are both told to
within a factor of two."""


class Pace:
    """Learns from the newest records of trials how fast they are.

    Args:
        specs: all trials of the study.
        pools: of the study, by id.
        rungs: samples at which trials report, rising; all of them last.
        races: whether pools may be given up at rungs.
        known: what earlier work has left of trials: its seconds were another time's.
    """

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        pools: Mapping[str, Pool],
        rungs: Sequence[int],
        races: bool,
        known: Mapping[str, TrialRecord],
    ) -> None:
        self._specs, self._rungs = specs, tuple(rungs)
        self._may_stop = {
            name for name, pool in pools.items() if races and pool.kind is PoolKind.BUCKET
        }
        self._records = dict(known)
        self._samples = 0
        """Trained since the study began."""
        self._seconds = 0.0
        """Of trials, for these."""
        self._placed: dict[str, float] = {}
        """Since when trials are at what they have not reported yet, of those that have a place."""
        self._slots = 0
        self._decided = 0
        """The rung that was decided last."""
        self._given_up: set[str] = set()
        """Pools."""

    def take(self, record: TrialRecord, now: float) -> None:
        """Take the newest record of a trial, at a time in seconds."""
        key = record.spec.id
        before = self._records.get(key)
        self._records[key] = record
        if before is not None and record.reports == before.reports:
            return
        more = samples_of(record) - (samples_of(before) if before else 0)
        if more > 0:  # one that is tried again may begin with less
            self._samples += more
            self._seconds += max(_seconds_of(record) - (_seconds_of(before) if before else 0), 0)
        if key in self._placed:
            self._placed[key] = now

    def place(self, trials: Collection[str], now: float) -> None:
        """Take the ids of the trials that have a place, at a time in seconds."""
        self._placed = {key: self._placed.get(key, now) for key in trials}
        self._slots = max(self._slots, len(trials))

    def decide(self, rung: int, stopped: Collection[str]) -> None:
        """Note which pools are given up at a rung: who waits there else, goes on."""
        self._decided = rung
        self._given_up.update(stopped)

    def seconds_left(self, now: float) -> float | None:
        """Return how long all that is left takes; None before a trial has reported."""
        if not self._samples or not self._slots:
            return None
        each = self._seconds / self._samples
        left = [
            self._left(spec, now, each)
            for spec in self._specs
            if spec.pool not in self._given_up
            and (
                (record := self._records.get(spec.id)) is None or record.state is TrialState.RUNNING
            )
        ]
        # The last trials leave places empty.
        return each * max(sum(left) / self._slots, max(left, default=0.0))

    def _left(self, spec: TrialSpec, now: float, each: float) -> float:
        """Return the samples that a trial has before it, what is in question with its chance."""
        record = self._records.get(spec.id)
        behind = samples_of(record) if record else 0
        since = self._placed.get(spec.id)
        may_stop = spec.pool in self._may_stop
        undecided = [rung for rung in self._rungs if self._decided < rung <= behind]
        chance = GOES_ON if may_stop and since is None and undecided else 1.0
        left, place = 0.0, behind
        for rung in (*(rung for rung in self._rungs if behind < rung < spec.total), spec.total):
            left += chance * (rung - place)
            if place == behind and since is not None and each > 0:  # at work on these
                left -= min((now - since) / each, rung - place)
            chance *= GOES_ON if may_stop else 1.0
            place = rung
        return left


def _seconds_of(record: TrialRecord) -> float:
    """Return how long a trial has trained and was evaluated."""
    if not record.reports:
        return 0.0
    return record.reports[-1].train_seconds + record.reports[-1].evaluation_seconds
