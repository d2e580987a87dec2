from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput
from djsandbox_ray.ledger.cost import (
    fixed_share,
    from_json,
    to_json,
    together,
    total,
    trial_cost,
)
from djsandbox_ray.records import Cost, RungReport, TrialRecord, TrialSpec, TrialState

amounts = st.floats(0, 1e15, allow_nan=False)
costs_of_any_kind = st.lists(
    st.builds(
        Cost,
        stage=st.text(min_size=1),
        samples=st.integers(0, 10**12),
        flops=st.none() | amounts,
        cpu_seconds=amounts,
        gpu_seconds=amounts,
        wall_seconds=amounts,
    )
)
INGEST = Cost("ingest", 100, 0.0, 4.0, 0.0, 5.0)
STATISTICS = Cost("statistics", 100, None, 8.0, 1.0, 6.0)
TRIALS = Cost("trials", 900, 3e9, 20.0, 2.0, 11.0)


def test_the_total_names_what_was_not_counted() -> None:
    whole = total([INGEST, STATISTICS, TRIALS])
    assert asdict(whole) == {
        "samples": 1100,
        "flops": 3e9,
        "uncounted": ("statistics",),
        "cpu_seconds": 32.0,
        "gpu_seconds": 3.0,
        "wall_seconds": 22.0,
    }
    assert total([STATISTICS]).flops is None
    assert total([]).flops == 0
    assert total([INGEST, TRIALS]).uncounted == ()


@given(costs_of_any_kind)
def test_a_ledger_comes_back_from_its_json(costs: list[Cost]) -> None:
    text = json.dumps(to_json(costs), allow_nan=False)
    assert from_json(json.loads(text)) == tuple(costs)


@given(costs_of_any_kind)
def test_the_order_of_stages_does_not_change_the_sums(costs: list[Cost]) -> None:
    first, second = total(costs), total(costs[::-1])
    assert first.uncounted == second.uncounted[::-1]
    assert {**asdict(first), "uncounted": ()} == {**asdict(second), "uncounted": ()}


def changed(**changes: Any) -> dict[str, Any]:
    ledger = to_json([INGEST, TRIALS])
    return {**ledger, "stages": [{**ledger["stages"][0], **changes}, ledger["stages"][1]]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "ledger.json: not a ledger"),
        ({"stages": []}, "not a ledger"),
        (changed(samples="many"), r"stages\.0\.samples: Input should be a valid integer"),
        (changed(cpu_seconds=None), r"stages\.0\.cpu_seconds"),
        (changed(samples=7), "the total is not that of the stages"),
    ],
)
def test_what_is_no_ledger_is_refused(value: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_json(value)


# Several studies as one stage


def cost(stage: str, flops: float | None) -> Cost:
    return Cost(stage, 10, flops, 1.5, 0.5, 2.0)


def test_studies_are_added_up():
    assert together([cost("a", 1e3), cost("b", 2e3)]) == Cost("a", 20, 3e3, 3.0, 1.0, 4.0)
    assert together([cost("a", 1e3)]) == cost("a", 1e3)


@pytest.mark.parametrize("flops", [(1e3, None), (None, 1e3), (None, None)])
def test_a_part_is_never_the_whole(flops):
    assert together([cost("a", flops[0]), cost("b", flops[1])]).flops is None


# What trials cost, whatever became of them

BUDGET = 1000
HELD: dict[str, Any] = {"workers": 2, "cpus_per_worker": 1.5, "gpus_per_worker": 0.25}
FLOPS: dict[str, Any] = {"train_flops": lambda seen: 10.0 * seen, "evaluation_flops": 300.0}


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
    assert cost.wall_seconds == 0


@pytest.mark.parametrize("missing", ["train_flops", "evaluation_flops"])
def test_what_was_not_counted_is_not_zero(missing: str) -> None:
    flops = {**FLOPS, missing: None}
    assert trial_cost(RECORDS, stage="trials", **HELD, **flops).flops is None


def _staged(name: str, samples: list[int], **more: Any) -> TrialRecord:
    spec = TrialSpec(name, "pool", 0, "draw", BUDGET, total=3 * BUDGET)
    plain = record(name, TrialState.COMPLETED, samples, 1.0, **more)
    return replace(plain, spec=spec)


def test_what_stages_on_fixed_data_cost_is_told() -> None:
    def flops(seen: int) -> float:  # 10 each in the first stage, 40 behind it
        return 10.0 * min(seen, BUDGET) + 40.0 * max(0, seen - BUDGET)

    found = [_staged("a", [2000, 3000]), _staged("b", [500])]
    cost = trial_cost(found, stage="trials", **HELD, train_flops=flops, evaluation_flops=0.0)
    assert (cost.samples, cost.fixed_samples) == (3500, 2000)
    assert (cost.flops, cost.fixed_flops) == (95_000, 80_000)
    assert fixed_share(cost) == pytest.approx(80 / 95)
    # Of what an earlier owner has paid for, nothing.
    later = [_staged("a", [2000, 3000], billed_reports=1)]
    rest = trial_cost(later, stage="trials", **HELD, train_flops=flops, evaluation_flops=0.0)
    assert (rest.samples, rest.fixed_samples, rest.fixed_flops) == (1000, 1000, 40_000)
    uncounted = trial_cost(found, stage="trials", **HELD, train_flops=None, evaluation_flops=0.0)
    assert fixed_share(uncounted) == pytest.approx(2000 / 3500)
    both = together([cost, rest])
    assert (both.fixed_samples, both.fixed_flops) == (3000, 120_000)
    assert together([cost, uncounted]).fixed_flops is None
    assert fixed_share(trial_cost(RECORDS, stage="trials", **HELD, **FLOPS)) == 0


def test_no_trials_cost_nothing() -> None:
    cost = trial_cost([], stage="trials", **HELD, **FLOPS)
    assert (cost.samples, cost.flops, cost.cpu_seconds, cost.gpu_seconds) == (0, 0, 0, 0)
