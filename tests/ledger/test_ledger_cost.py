from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput
from djsandbox_ray.ledger.cost import from_json, to_json, total
from djsandbox_ray.records import Cost

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
        ([], "runs/a/ledger.json: not a ledger"),
        ({"stages": []}, "not a ledger"),
        (changed(samples="many"), r"stages\.0\.samples: Input should be a valid integer"),
        (changed(cpu_seconds=None), r"stages\.0\.cpu_seconds"),
        (changed(samples=7), "the total is not that of the stages"),
    ],
)
def test_what_is_no_ledger_is_refused(value: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_json(value, where="runs/a/ledger.json")
