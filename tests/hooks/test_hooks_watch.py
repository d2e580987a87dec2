"""What a study tells, read off the records of its trials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from factories import read_events
from planted_world import context_of

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.hooks.watch import Watch
from djsandbox_ray.records import (
    Pool,
    PoolKind,
    RungReport,
    StudyPlan,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.events import EventLog
from djsandbox_ray.trials.stopping.stopping import Decision

POOLS = {
    name: Pool(name, kind, "s", 0, 100, "hash")
    for name, kind in (
        ("control/0", PoolKind.CONTROL),
        ("control/1", PoolKind.CONTROL),
        ("s/low", PoolKind.BUCKET),
        ("s/high", PoolKind.BUCKET),
        ("self_test/x", PoolKind.SELF_TEST),
    )
}


def _report(samples: int, score: float = 0.5) -> RungReport:
    return RungReport(samples, 1.0, {"a": score, "b": 9.0}, samples / 10, samples / 100, 0)


def _record(pool: str, *reports: RungReport, state: TrialState = TrialState.RUNNING) -> TrialRecord:
    return TrialRecord(TrialSpec(f"t-{pool}", pool, 0, "draw", 100), state, reports, attempts=1)


def watching(storage: Storage, specs: list[TrialSpec], *known: TrialRecord) -> Watch:
    context, _ = context_of(storage)
    context.progress.stage("trials", total=len(specs))
    evaluation = context.config.evaluation.model_copy(update={"score": ["a"]})
    config = context.config.model_copy(update={"measuring": evaluation})
    plan = StudyPlan("trials", (0,), optional=False)
    earlier = {record.spec.id: record for record in known}
    return Watch(replace(context, config=config), plan, POOLS, specs, earlier, (50, 100))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, ...], float]]:
    """The metrics as they would be exported, by name and tags."""
    values: dict[tuple[str, ...], float] = {}

    def record(self: metrics.Instrument, method: str, value: float, tags: dict[str, str]) -> None:
        key = (self.name, *(tags[name] for name in self.tags))
        values[key] = value + (values.get(key, 0) if method == "inc" else 0)

    monkeypatch.setattr(metrics.Instrument, "_record", record)
    metrics.label("")  # what other tests have set
    yield values
    metrics.label("")


def test_the_life_of_a_trial(storage: Storage, counted: dict[tuple[str, ...], float]) -> None:
    done = replace(_record("control/0", _report(100)), state=TrialState.COMPLETED)
    first = _record("s/low")
    specs = [done.spec, first.spec, TrialSpec("t-later", "s/high", 0, "draw", 100)]
    with EventLog(storage, "demo"):
        study = watching(storage, specs, done)
        half, full = _record("s/low", _report(50)), _record("s/low", _report(50), _report(100, 0.6))
        ended = replace(full, state=TrialState.COMPLETED)
        for record in (first, half, half, full, ended):
            study.take(record)
    found = read_events(storage, "demo")[1:-1]
    assert [(one["event"], one["pool"], one["seed"]) for one in found] == [
        ("study_begun", None, None),
        ("trial_started", "s/low", 0),
        ("trial_rung", "s/low", 0),
        ("trial_rung", "s/low", 0),
        ("trial_finished", "s/low", 0),
    ]
    assert found[0]["details"] == {"trials": 3, "known": 1}
    assert found[3]["details"]["metrics"] == {"a": 0.6, "b": 9.0}
    assert counted["djsandbox_trained_samples", "trials"] == 100, "not those known before"
    assert counted["djsandbox_trial_seconds", "trials", "training"] == pytest.approx(10)
    assert counted["djsandbox_trial_seconds", "trials", "evaluation"] == pytest.approx(1)
    states = {key[2]: value for key, value in counted.items() if key[0] == "djsandbox_trials"}
    assert states == {"WAITING": 1, "RUNNING": 0, "COMPLETED": 2, "STOPPED": 0, "FAILED": 0}
    assert counted["djsandbox_budget_used_ratio", "trials"] == pytest.approx(200 / 300)
    assert counted["djsandbox_best_change_ratio", "trials"] == pytest.approx(0.2)


def test_a_retried_trial_counts_what_it_trains_twice(
    storage: Storage, counted: dict[tuple[str, ...], float]
) -> None:
    first = _record("s/low", _report(50))
    with EventLog(storage, "demo"):
        study = watching(storage, [first.spec])
        study.take(first)
        crash = replace(first, error="KeyError: 'x'", traceback="Trace\n" * 9000, place="node n")
        study.retried(crash)
        again = replace(_record("s/low", _report(20)), attempts=2)
        study.take(again)
        failed = replace(crash, reports=again.reports, state=TrialState.FAILED, attempts=2)
        study.take(failed)
    found = read_events(storage, "demo")[1:-1]
    assert [(one["event"], one["level"]) for one in found] == [
        ("study_begun", "info"),
        ("trial_started", "info"),
        ("trial_rung", "info"),
        ("trial_retried", "warning"),
        ("trial_started", "info"),
        ("trial_rung", "info"),
        ("trial_failed", "error"),
    ]
    details = found[-1]["details"]
    assert (details["error"], details["place"]) == ("KeyError: 'x'", "node n")
    assert len(details["traceback"]) == 8000
    assert counted["djsandbox_trained_samples", "trials"] == 50, "a lesser rung adds nothing"


def test_the_best_change_needs_both_sides(
    storage: Storage, counted: dict[tuple[str, ...], float]
) -> None:
    def ended(pool: str, score: float) -> TrialRecord:
        return replace(_record(pool, _report(100, score)), state=TrialState.COMPLETED)

    def change(*records: TrialRecord) -> float | None:
        counted.clear()
        watching(storage, [record.spec for record in records], *records)
        return counted.get(("djsandbox_best_change_ratio", "trials"))

    controls = [ended("control/0", 0.4), ended("control/1", 0.6)]
    best = [ended("s/low", 0.45), ended("s/high", 0.75), ended("self_test/x", 5.0)]
    assert change(*controls, *best) == pytest.approx(0.5)
    assert change(*controls) is None
    assert change(*best) is None
    assert change(_record("s/low", _report(50)), *controls) is None
    assert change(ended("control/0", 0.0), *best) is None


def test_a_study_of_failures_alone_ends_unless_it_is_optional(storage: Storage) -> None:
    first = replace(_record("s/low"), state=TrialState.FAILED, error="KeyError: 'x'")
    failed = [
        replace(first, spec=replace(first.spec, id=f"t-{number}", seed=number))
        for number in range(6)
    ]
    study = watching(storage, [record.spec for record in failed])
    for record in failed[:5]:
        study.take(record)
    with pytest.raises(SandboxError, match="all of the first 6 trials failed; the last: KeyError"):
        study.take(failed[5])


def test_a_log_says_who_works_who_waits_and_who_leads(storage: Storage) -> None:
    context, said = context_of(storage)
    waiting = [_record("s/low", _report(50, 0.9)), _record("s/high", _report(50, 0.1))]
    begun, later = _record("control/0"), TrialSpec("t-later", "control/1", 0, "draw", 100)
    specs = [*(record.spec for record in (*waiting, begun)), later]
    context.progress.stage("trials", total=len(specs))
    plan = StudyPlan("trials", (0,), race=True, optional=False)
    study = Watch(context, plan, POOLS, specs, {}, (50, 100))
    for record in (*waiting, begun):
        study.take(record)
    study.placed([begun.spec.id])
    study.decided(Decision(50, ("s/high",), (), {}, 0.1))
    study.take(replace(waiting[1], state=TrialState.STOPPED))
    context.progress.close()
    *_, last = said.getvalue().splitlines()
    assert last.startswith(
        "trials: 1/4 done, 1 running, 1 waiting at a rung, 1 to come, 1 given up, "
        "best s/low at 50 samples, about "
    )
