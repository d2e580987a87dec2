"""The race as a pure object, and all ways of stopping under Ray Tune."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trial_world import Arena, Counter, starts

from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import (
    Aggregate,
    PoolKind,
    RungReport,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.config import TrialsConfig
from djsandbox_ray.trials.reporter import merged
from djsandbox_ray.trials.stopping.asha import AshaConfig
from djsandbox_ray.trials.stopping.race import Action, Race, RaceConfig
from djsandbox_ray.trials.stopping.stopping import STOPPING, Decision

RUNGS = (10, 20, 40)
CONFIG = RaceConfig(type="race", rungs=[0.25, 0.5], keep=1, audit=0)
Event = tuple[TrialSpec, RungReport | None]


def _study(buckets: int = 5, controls: int = 4) -> Arena:
    return Arena(Storage("memory://unused"), buckets, controls, seeds=(0, 1), rungs=RUNGS)


def _report(spec: TrialSpec, samples: int) -> RungReport:
    """Pools are as good as their number; one that is best at the end is not so at first."""
    kind, _, number = spec.pool.partition("/")
    quality = 2.5 if kind == "control" else float(number)
    noise = np.random.default_rng([int(number), spec.seed, len(kind), samples]).normal(0, 0.05)
    return RungReport(samples, 1.0, {"m": 10 + quality + float(noise)}, 1.0, 0.0, samples)


def _race(arena: Arena, config: RaceConfig = CONFIG, known: Iterable[TrialRecord] = ()) -> Race:
    return Race(arena.competition({record.spec.id: record for record in known}), config)


def _feed(race: Race, events: Iterable[Event]) -> None:
    for spec, report in events:
        if report is None:
            race.failed(spec.id)
        else:
            race.report(spec.id, report.samples, report.metrics)
        while race.decide():
            pass


def _to(arena: Arena, rung: int, but: Sequence[str] = ()) -> list[Event]:
    return [(spec, _report(spec, rung)) for spec in arena.specs if spec.pool not in but]


def test_nobody_is_judged_before_everybody_is_there() -> None:
    arena = _study()
    race = _race(arena)
    *most, last = _to(arena, 10)
    _feed(race, most)
    assert not arena.decisions
    best = next(spec for spec in arena.specs if spec.pool == "s/4")
    assert race.action(best.id) is Action.WAIT
    assert race.action(arena.specs[0].id) is Action.GO, "controls never wait"
    _feed(race, [last])
    (decision,) = arena.decisions
    assert decision.samples == 10
    assert decision.margin is not None
    assert decision.stopped == ("s/0", "s/1", "s/2", "s/3")
    assert decision.effects["s/4"] > decision.effects["s/0"]
    assert race.action(best.id) is Action.GO
    stopped = {spec.pool for spec in arena.specs if race.action(spec.id) is Action.STOP}
    assert stopped == {"s/0", "s/1", "s/2", "s/3"}


def test_a_decision_is_handed_on_before_it_counts() -> None:
    arena = _study()
    race = _race(arena)
    actions: list[Action] = []
    loser = next(spec for spec in arena.specs if spec.pool == "s/0")
    hand_on = arena.decisions.append
    race._competition = replace(
        race._competition,
        on_decision=lambda decision: (actions.append(race.action(loser.id)), hand_on(decision)),
    )
    _feed(race, _to(arena, 10))
    assert actions == [Action.WAIT]
    assert race.action(loser.id) is Action.STOP


def test_a_pool_that_lacks_one_trial_is_judged_by_the_other() -> None:
    arena = _study()
    race = _race(arena)
    first, *others = [event for event in _to(arena, 10) if event[0].pool == "s/0"]
    _feed(race, _to(arena, 10, but=["s/0"]) + others)
    assert not arena.decisions
    _feed(race, [(first[0], None)])
    assert "s/0" in arena.decisions[0].stopped


def test_self_tests_say_by_which_metrics_pools_are_compared() -> None:
    """By the other metric pools are the better, the worse they are by this one."""
    arena = _study()
    name = "control/3"
    arena.pools[name] = replace(arena.pools[name], kind=PoolKind.SELF_TEST, spoil="captions")

    def both(spec: TrialSpec) -> RungReport:
        seen, again = (_report(spec, rung).metrics["m"] for rung in (10, 20))
        worse = 9 * (spec.pool == name)
        return replace(_report(spec, 10), metrics={"seen": seen - worse, "turned": -again})

    def competing(*, informative: bool) -> Race:
        metrics = ScoreMetrics(informative=informative)
        kind = Aggregate.STANDARDIZED
        return Race(replace(arena.competition(), metrics=metrics, aggregate=kind), CONFIG)

    asked, plain = competing(informative=True), competing(informative=False)
    events = [(spec, both(spec)) for spec in arena.specs]
    most = [event for event in events if event[0].pool != name]
    _feed(asked, most)
    assert not arena.decisions, "self-tests are awaited"
    _feed(asked, [event for event in events if event[0].pool == name])
    _feed(plain, most)
    by_one, by_both = arena.decisions
    assert by_one.stopped == ("s/0", "s/1", "s/2", "s/3")
    assert by_both.stopped != by_one.stopped
    assert set(by_one.effects) == {f"s/{number}" for number in range(5)}
    assert {asked.action(spec.id) for spec in arena.specs if spec.pool == name} == {Action.GO}


def test_audited_pools_run_on_and_leave_the_race() -> None:
    arena = _study()
    race = _race(arena, CONFIG.model_copy(update={"audit": 1.0}))
    _feed(race, _to(arena, 10))
    (decision,) = arena.decisions
    assert decision.stopped == ()
    assert decision.audited == ("s/0", "s/1", "s/2", "s/3")
    _feed(race, _to(arena, 20))
    assert {race.action(spec.id) for spec in arena.specs} == {Action.GO}
    assert len(arena.decisions) == 1, "one pool is left: nothing more to decide"


def test_nothing_waits_where_nothing_can_be_given_up() -> None:
    arena = _study()
    race = _race(arena, CONFIG.model_copy(update={"keep": 5}))
    _feed(race, _to(arena, 10))
    assert {race.action(spec.id) for spec in arena.specs} == {Action.GO}
    assert not arena.decisions


@pytest.mark.parametrize(("controls", "reason"), [(2, "2 control arms"), (0, "0 control arms")])
def test_without_controls_nobody_is_given_up_and_the_decision_says_why(
    controls: int, reason: str
) -> None:
    arena = _study(controls=controls)
    _feed(_race(arena), _to(arena, 10))
    (decision,) = arena.decisions
    assert (decision.stopped, decision.margin) == ((), None)
    assert reason in (decision.reason or "")


def test_finished_pools_are_compared_with_but_never_given_up() -> None:
    arena = _study()
    known = [
        TrialRecord(spec, TrialState.COMPLETED, tuple(_report(spec, rung) for rung in RUNGS))
        for spec in arena.specs
        if spec.pool in {"s/0", "s/4"}
    ]
    race = _race(arena, known=known)
    _feed(race, _to(arena, 10, but=["s/0", "s/4"]))
    (decision,) = arena.decisions
    assert decision.stopped == ("s/1", "s/2", "s/3")
    assert "s/0" in decision.effects


@pytest.mark.parametrize("audit", [0.5, 1.0])
def test_a_decision_that_is_taken_again_audits_the_same_pools(audit: float) -> None:
    """Those ran to their end, as was meant: the report counts on them."""
    arena, config = _study(buckets=8), CONFIG.model_copy(update={"audit": audit})
    _feed(_race(arena, config), _to(arena, 10))
    (first,) = arena.decisions
    assert first.audited
    known = [
        TrialRecord(spec, TrialState.STOPPED, (_report(spec, 10),))
        if spec.pool in first.stopped
        else TrialRecord(spec, TrialState.COMPLETED, tuple(_report(spec, r) for r in RUNGS))
        for spec in arena.specs
    ]
    again = _study(buckets=8)
    assert _race(again, config, known).decide() == first


def test_what_was_not_measured_at_the_rung_is_not_compared() -> None:
    """A trial may go on from the checkpoint of a run that had other rungs."""
    arena = _study()
    race = _race(arena)
    foreign = [(spec, _report(spec, 13)) for spec in arena.specs if spec.pool == "s/0"]
    _feed(race, foreign + _to(arena, 10, but=["s/0"]))
    (decision,) = arena.decisions
    assert "s/0" not in decision.effects
    assert "s/0" not in decision.stopped
    assert "s/1" in decision.stopped


def test_batches_may_end_behind_the_rung() -> None:
    arena = _study()
    _feed(_race(arena), [(spec, _report(spec, 12)) for spec in arena.specs])
    assert len(arena.decisions[0].stopped) == 4


def _simulate(
    arena: Arena,
    order: int,
    *,
    diverging: Sequence[str] = (),
    known: Iterable[TrialRecord] = (),
    steps: int | None = None,
) -> list[TrialRecord]:
    """Run the trials that may run in some order, at most so many steps; return what is left."""
    rng = np.random.default_rng(order)
    records = {spec.id: TrialRecord(spec, TrialState.RUNNING) for spec in arena.specs}
    records |= {record.spec.id: record for record in known}
    race = _race(arena, known=known)
    # What a checkpoint or a record still holds of a trial comes again.
    at = dict.fromkeys(records, 0)
    for _ in range(10_000 if steps is None else steps):
        while race.decide():
            pass
        running = [name for name, record in records.items() if record.state is TrialState.RUNNING]
        ready = [name for name in running if race.action(name) is not Action.WAIT]
        if not ready:
            return list(records.values())
        name = str(rng.choice(sorted(ready)))
        record, spec = records[name], records[name].spec
        if race.action(name) is Action.STOP:
            records[name] = replace(record, state=TrialState.STOPPED)
        elif at[name] == 1 and name in diverging:
            race.failed(name)
            records[name] = replace(record, state=TrialState.FAILED, diverged=True)
        else:
            report = _report(spec, RUNGS[at[name]])
            at[name] += 1
            race.report(name, report.samples, report.metrics)
            state = TrialState.COMPLETED if at[name] == len(RUNGS) else TrialState.RUNNING
            reports = merged(record.reports, report)
            records[name] = replace(record, state=state, reports=reports)
    return list(records.values())


@settings(max_examples=25, deadline=None)
@given(
    orders=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 2**32)),
    steps=st.integers(0, 50),
    lost=st.integers(0, 3),
    diverging=st.sets(st.sampled_from([f"s-{n}-{seed}" for n in range(5) for seed in (0, 1)])),
)
def test_neither_order_nor_a_kill_changes_a_decision(
    orders: tuple[int, int, int], steps: int, lost: int, diverging: set[str]
) -> None:
    whole, killed = _study(), _study()
    ends = _simulate(whole, orders[0], diverging=sorted(diverging))
    assert whole.decisions, "a race without a decision proves nothing"
    assert not [end for end in ends if end.state is TrialState.RUNNING], "nobody waits for ever"
    left = _simulate(killed, orders[1], diverging=sorted(diverging), steps=steps)
    # The last reports of some trials may not have been recorded.
    for index in range(lost):
        if left[index].state is TrialState.RUNNING:
            left[index] = replace(left[index], reports=left[index].reports[:-1])
    resumed = _study()
    resumed.decisions = list(killed.decisions)
    again = _simulate(resumed, orders[2], diverging=sorted(diverging), known=left)
    assert resumed.decisions == whole.decisions
    assert {end.spec.id: end.state for end in again} == {end.spec.id: end.state for end in ends}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    events=st.lists(
        st.tuples(st.integers(0, 17), st.sampled_from([10, 13, 20, 40, -1]), st.integers(0, 1)),
        max_size=45,
    ),
    audit=st.sampled_from([0.0, 0.5]),
)
def test_counting_decides_what_all_records_decide(
    seed: int, events: list[tuple[int, int, int]], audit: float
) -> None:
    """Reports in any order, again, with other numbers, and failures: bookkeeping loses nothing."""
    arena, config = _study(), CONFIG.model_copy(update={"audit": audit})
    race = _race(arena, config)
    rng = np.random.default_rng(seed)
    last = [(int(index), rung, 0) for rung in (10, 20) for index in rng.permutation(18)]
    reports: dict[str, dict[int, dict[str, float]]] = {spec.id: {} for spec in arena.specs}
    failed: set[str] = set()
    for place, (index, samples, other) in enumerate((*events, *last), start=1):
        spec = arena.specs[index]
        if samples < 0:
            failed.add(spec.id)
            race.failed(spec.id)
        else:
            metrics = {"m": _report(spec, samples).metrics["m"] + other}
            race.report(spec.id, samples, metrics)
            if reports[spec.id].get(samples) != metrics:
                kept = {at: value for at, value in reports[spec.id].items() if at < samples}
                reports[spec.id] = {**kept, samples: metrics}
        while race.decide():
            pass
        if place % 20 and place < len(events) + len(last):
            continue
        known = [
            TrialRecord(
                one,
                TrialState.RUNNING,
                tuple(RungReport(at, 1.0, found, 1.0, 0.0, 0) for at, found in its.items()),
            )
            for one, its in ((one, reports[one.id]) for one in arena.specs)
        ]
        direct = replace(arena, decisions=list(arena.decisions))
        beside = _race(direct, config, known)
        for trial in failed:
            beside.failed(trial)
        while beside.decide():
            pass
        assert direct.decisions == arena.decisions
        actions = [[each.action(one.id) for one in arena.specs] for each in (race, beside)]
        assert actions[0] == actions[1]


def test_settings_are_checked() -> None:
    assert set(STOPPING) == {"asha", "none", "race"}
    model = {"type": "clip"}
    for stopping, message in [
        ({"type": "race", "rungs": [0.5, 0.25]}, "in increasing order"),
        ({"type": "race", "rungs": [1.0]}, "fractions between 0 and 1"),
        ({"type": "race", "alpha": 0}, "alpha"),
        ({"type": "none", "alpha": 0.1}, "alpha"),
        ({"type": "sprint"}, "race"),
    ]:
        with pytest.raises(ValidationError) as error:
            TrialsConfig.model_validate({"model": model, "budget": 10, "early_stopping": stopping})
        assert message in str(error.value.errors())
    with pytest.raises(ValidationError, match=r"must grow by the reduction_factor 2: \[0.2, 0.4\]"):
        AshaConfig(type="asha", rungs=[0.2, 0.5])


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_race_under_tune(
    ray_cluster: None, storage: Storage, notes: Path, checkpoints: bool
) -> None:
    arena = Arena(storage, buckets=6, controls=4, seeds=(0, 1), rungs=(10, 20, 40))
    config = {"type": "race", "rungs": [0.25, 0.5], "keep": 2, "audit": 0}
    seen, last = arena.run(Counter(checkpoints=checkpoints), notes, config)
    states = {name: record.state for name, record in last.items()}
    stopped = {name[:3] for name in states if states[name] is TrialState.STOPPED}
    assert stopped == {pool.replace("/", "-") for made in arena.decisions for pool in made.stopped}
    assert {"s-0", "s-1"} <= stopped
    assert set(states.values()) == {TrialState.STOPPED, TrialState.COMPLETED}
    finished = {record.spec.pool for record in last.values() if record.final}
    assert {"s/4", "s/5", *(f"control/{n}" for n in range(4))} <= finished
    assert all(record.attempts == 1 for record in last.values()), "a pause is no attempt"
    trained = [start["from"] for start in starts(notes)]
    if checkpoints:
        assert trained.count(0) == len(arena.specs), "nobody begins twice"
        assert not storage.names("trials"), "nobody needs the state of those given up"
    # One record per start, report and end: what came again was not recorded as new.
    for name in last:
        changes = [record for record in seen if record.spec.id == name]
        assert len({tuple(r.samples for r in record.reports) for record in changes}) <= 4


def test_a_race_that_is_resumed_decides_alike(
    ray_cluster: None, storage: Storage, notes: Path
) -> None:
    arena = Arena(storage, buckets=5, controls=4, seeds=(0, 1), rungs=(10, 20, 40))
    config = {"type": "race", "rungs": [0.25, 0.5], "keep": 1, "audit": 0}
    first = arena.run(Counter(), notes, config)[1]
    decided = list(arena.decisions)
    # The first half of the trials was known, the others had got to the first rung.
    half = set(sorted(first)[: len(first) // 2])
    known = {
        name: record
        if name in half and record.settled
        else replace(record, state=TrialState.RUNNING, reports=record.reports[:1])
        for name, record in first.items()
    }
    arena.decisions = decided[:0]
    again = arena.run(Counter(), notes, config, known)[1]
    assert arena.decisions == decided
    assert {name: record.state for name, record in again.items()} == {
        name: record.state for name, record in first.items()
    }
    metrics = [
        {name: [report.metrics for report in record.reports] for name, record in records.items()}
        for records in (first, again)
    ]
    assert metrics[0] == metrics[1]


def test_asha_stops_buckets_only(ray_cluster: None, storage: Storage, notes: Path) -> None:
    arena = Arena(storage, buckets=6, controls=4, seeds=(0, 1), rungs=(10, 20, 40))
    last = arena.run(Counter(), notes, {"type": "asha", "rungs": [0.25, 0.5]})[1]
    states = {name: record.state for name, record in last.items()}
    assert {states[name] for name in states if name.startswith("control")} == {TrialState.COMPLETED}
    assert TrialState.COMPLETED in {states["s-5-0"], states["s-5-1"]}
    assert TrialState.STOPPED in states.values()
    assert not arena.decisions


def test_asha_remembers_what_was_finished(storage: Storage) -> None:
    from types import SimpleNamespace

    arena = Arena(storage, buckets=2, controls=0, rungs=(10, 20, 40))
    good = arena.specs[1]
    reports = tuple(RungReport(n, 1.0, {"m": 100.0}, 1.0, 0.0, 1) for n in arena.rungs)
    known = {good.id: TrialRecord(good, TrialState.COMPLETED, reports)}
    choice = STOPPING.get("asha")
    scheduler = choice(AshaConfig(type="asha")).scheduler(arena.competition(known))
    trial = SimpleNamespace(trial_id="new", config={"trial": {"pool": "s/0"}})
    scheduler.on_trial_add(None, trial)
    result = {"report/samples": 10, "report/metrics/m": 1.0}
    assert scheduler.on_trial_result(None, trial, result) == "STOP"


def test_decisions_survive_json() -> None:
    from dataclasses import asdict

    from pydantic import TypeAdapter

    for decision in (
        Decision(10, ("a",), ("b",), {"a": 0.1}, 0.2),
        Decision(10, (), (), {}, None, "no"),
    ):
        assert TypeAdapter(Decision).validate_python(asdict(decision)) == decision
