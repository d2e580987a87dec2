"""How long a study takes yet: right within a factor of two once a tenth of it is over."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from factories import kind_of, pool, rung_report, trial_spec

from djsandbox_ray.records import PoolKind, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.telemetry.pace import Pace

RUNGS = (25, 50, 100)


@dataclass
class Simulated:
    """A study on some places, event by event: when what was known."""

    pools: Sequence[str]
    seeds: int = 3
    slots: int = 2
    startup: float = 20.0
    """Seconds until the first trials train."""
    each: float = 10.0
    """Seconds of a whole trial."""
    kept: Sequence[float] = ()
    """Of the pools that race, the share that goes on, rung by rung; none: nobody races."""
    specs: list[TrialSpec] = field(init=False)

    def __post_init__(self) -> None:
        self.specs = [
            trial_spec(name, seed, budget=RUNGS[-1])
            for name in self.pools
            for seed in range(self.seeds)
        ]

    def events(self) -> Iterator[tuple[float, set[str], TrialRecord, tuple[int, list[str]]]]:
        """Yield times, who has a place then, a new record, and what was decided last."""
        records = {spec.id: TrialRecord(spec, TrialState.RUNNING) for spec in self.specs}
        racing = [name for name in self.pools if kind_of(name) is PoolKind.BUCKET and self.kept]
        queue, waiting = [spec.id for spec in self.specs], []
        busy: list[tuple[float, str]] = []
        now, decided = self.startup, (0, list[str]())
        free = [self.startup] * self.slots
        while busy or queue:
            while queue and free:
                start, trial = max(heapq.heappop(free), now), queue.pop(0)
                reports = records[trial].reports
                behind = reports[-1].samples if reports else 0
                rung = next(rung for rung in RUNGS if rung > behind)
                seconds = (rung - behind) / RUNGS[-1] * self.each
                heapq.heappush(busy, (start + seconds, trial))
                yield start, {key for _, key in busy}, records[trial], decided
            now, trial = heapq.heappop(busy)
            heapq.heappush(free, now)
            record = records[trial]
            behind = record.reports[-1].samples if record.reports else 0
            rung = next(rung for rung in RUNGS if rung > behind)
            told = rung_report(
                rung, train_seconds=rung / RUNGS[-1] * self.each, evaluation_seconds=0.0
            )
            state = TrialState.COMPLETED if rung == RUNGS[-1] else TrialState.RUNNING
            record = records[trial] = replace(record, reports=(*record.reports, told), state=state)
            yield now, {key for _, key in busy}, record, decided
            if state is TrialState.RUNNING:
                if record.spec.pool in racing:
                    waiting.append(trial)
                else:
                    queue.insert(0, trial)
            if waiting and not busy and not queue:  # the rung is decided
                keep = max(3, round(len(racing) * self.kept[RUNGS.index(rung)]))
                decided, racing = (rung, racing[keep:]), racing[:keep]
                for one in waiting:
                    if records[one].spec.pool in decided[1]:
                        records[one] = replace(records[one], state=TrialState.STOPPED)
                        yield now, set(), records[one], decided
                    else:
                        queue.append(one)
                waiting, free = [], [now] * self.slots


def factors(study: Simulated) -> list[float]:
    """Return by how much the time left is wrong at every event behind the first tenth.

    Before a trial has reported, while processes start, nobody knows.
    """
    made = {name: pool(name) for name in study.pools}
    pace = Pace(study.specs, made, RUNGS, bool(study.kept), {})
    seen = []
    for now, placed, record, decided in study.events():
        pace.decide(*decided)
        pace.take(record, now)
        pace.place(placed, now)
        seen.append((now, pace.seconds_left(now)))
    end = seen[-1][0]
    reported = study.startup + RUNGS[0] / RUNGS[-1] * study.each
    late = [(now, left) for now, left in seen if max(end / 10, reported) <= now < end]
    return [(left or 0.0) / (end - now) for now, left in late]


BUCKETS = [f"s{number}/{bucket}" for number in range(6) for bucket in ("low", "middle", "high")]
CONTROLS = [f"control/{number}" for number in range(10)]
STUDIES = {
    "without a race": Simulated(BUCKETS),
    "a race that gives up few": Simulated([*CONTROLS, *BUCKETS], kept=(0.9, 0.9)),
    "a race that gives up half": Simulated([*CONTROLS, *BUCKETS], kept=(0.6, 0.6)),
    "a race that gives up three of four": Simulated([*CONTROLS, *BUCKETS], kept=(0.5, 0.5)),
    "many places": Simulated([*CONTROLS, *BUCKETS], slots=16, kept=(0.6, 0.6)),
    "a slow start": Simulated(CONTROLS, startup=30, each=4),
    "more places than trials": Simulated(CONTROLS[:5], seeds=1, slots=8, startup=1),
}


@pytest.mark.parametrize("name", STUDIES)
def test_simulated_studies_are_told_within_a_factor_of_two(name: str) -> None:
    found = factors(STUDIES[name])
    assert len(found) > 5
    assert min(found) > 0.5
    assert max(found) < 2.0


def test_nothing_is_told_before_a_trial_has_reported() -> None:
    (spec,) = Simulated(["s/low"], seeds=1).specs
    pace = Pace([spec], {"s/low": pool("s/low")}, RUNGS, False, {})
    pace.take(TrialRecord(spec, TrialState.RUNNING), 0.0)
    pace.place([spec.id], 0.0)
    assert pace.seconds_left(10.0) is None


def test_time_goes_on_between_two_reports_and_stands_still_when_one_is_overdue() -> None:
    (spec,) = Simulated(["s/low"], seeds=1).specs
    pace = Pace([spec], {"s/low": pool("s/low")}, RUNGS, False, {})
    pace.place([spec.id], 0.0)
    told = rung_report(50, train_seconds=5.0, evaluation_seconds=0.0)
    pace.take(TrialRecord(spec, TrialState.RUNNING, (told,)), 5.0)
    assert [pace.seconds_left(now) for now in (5.0, 7.0, 10.0, 60.0)] == [5.0, 3.0, 0.0, 0.0]


def test_what_earlier_work_has_left_is_neither_to_do_nor_a_measure_of_speed() -> None:
    first, second = Simulated(["s/low"], seeds=2).specs
    slow = rung_report(50, train_seconds=500.0, evaluation_seconds=0.0)
    known = {
        first.id: TrialRecord(first, TrialState.COMPLETED, (replace(slow, samples=100),)),
        second.id: TrialRecord(second, TrialState.RUNNING, (slow,)),
    }
    pace = Pace([first, second], {"s/low": pool("s/low")}, (25, 50, 75, 100), False, known)
    pace.place([second.id], 0.0)
    assert pace.seconds_left(0.0) is None
    on = replace(slow, samples=75, train_seconds=505.0)
    pace.take(TrialRecord(second, TrialState.RUNNING, (slow, on)), 5.0)
    assert pace.seconds_left(5.0) == pytest.approx(5.0)
