from __future__ import annotations

from typing import Any

import pytest

from djsandbox_ray.ledger.cost import trial_cost, trial_costs_by_state
from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState

BUDGET = 1000
HELD: dict[str, Any] = {"workers": 2, "cpus_per_worker": 1.5, "gpus_per_worker": 0.25}
FLOPS: dict[str, Any] = {"train_flops": 10.0, "evaluation_flops": 300.0}


def record(
    name: str, state: TrialState, samples: list[int], held_seconds: float, **more: Any
) -> TrialRecord:
    reports = tuple(RungReport(seen, 0.5, {"acc": 0.1}, 1.0, 0.5, 0) for seen in samples)
    spec = TrialSpec(name, "pool", 0, "draw", BUDGET)
    return TrialRecord(spec, state, reports, held_seconds=held_seconds, **more)


RECORDS = [
    record("a", TrialState.COMPLETED, [250, 1000], 8.0),
    record("b", TrialState.COMPLETED, [250, 1000], 9.0),
    record("c", TrialState.STOPPED, [250], 2.0),
    record("d", TrialState.FAILED, [250], 5.0, error="killed"),
    record("e", TrialState.FAILED, [], 1.0, error="killed before its first report"),
]


def test_failed_and_stopped_trials_are_included() -> None:
    cost = trial_cost(iter(RECORDS), stage="trials", **HELD, **FLOPS)
    assert cost.stage == "trials"
    assert cost.samples == 1000 + 1000 + 250 + 250
    assert cost.flops == 2500 * 10.0 + 6 * 300.0
    assert cost.cpu_seconds == 25.0 * 2 * 1.5
    assert cost.gpu_seconds == 25.0 * 2 * 0.25
    assert trial_cost(RECORDS, stage="t", wall_seconds=7.0, **HELD, **FLOPS).wall_seconds == 7


def test_states_add_up_to_the_whole() -> None:
    whole = trial_cost(RECORDS, stage="trials", **HELD, **FLOPS)
    groups = trial_costs_by_state(iter(RECORDS), **HELD, **FLOPS)
    assert [(group.state, group.trials, group.samples) for group in groups] == [
        (TrialState.COMPLETED, 2, 2000),
        (TrialState.STOPPED, 1, 250),
        (TrialState.FAILED, 2, 250),
    ]
    for name in ("samples", "flops", "cpu_seconds", "gpu_seconds"):
        assert sum(getattr(group, name) for group in groups) == pytest.approx(getattr(whole, name))


@pytest.mark.parametrize("missing", ["train_flops", "evaluation_flops"])
def test_what_was_not_counted_is_not_zero(missing: str) -> None:
    flops = {**FLOPS, missing: None}
    assert trial_cost(RECORDS, stage="trials", **HELD, **flops).flops is None
    assert {group.flops for group in trial_costs_by_state(RECORDS, **HELD, **flops)} == {None}


def test_no_trials_cost_nothing() -> None:
    cost = trial_cost([], stage="trials", **HELD, **FLOPS)
    assert (cost.samples, cost.flops, cost.cpu_seconds, cost.gpu_seconds) == (0, 0, 0, 0)
    assert trial_costs_by_state([], **HELD, **FLOPS) == ()
