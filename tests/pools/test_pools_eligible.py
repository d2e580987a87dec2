from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.pools.eligible import outside
from djsandbox_ray.records import Range

ROWS = np.array([5, 3, 9, 1, 7], dtype=np.int64)
COLUMNS = {
    "length": np.array([1.0, 2.0, 3.0, np.nan, 5.0]),
    "score": np.array([0.1, np.inf, 0.3, 0.4, -np.inf]),
}


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        ([], [5, 3, 9, 1, 7]),
        ([Range("length", 2.0, 3.0)], [3, 9]),  # bounds included
        ([Range("length", 2.0, None)], [3, 9, 7]),
        ([Range("length", None, 1.0)], [5]),
        ([Range("length", None, None)], [5, 3, 9, 7]),  # a value is needed
        ([Range("score", None, None)], [5, 3, 9, 1, 7]),  # an infinity is one
        ([Range("length", 2.0, None), Range("score", 0.0, None)], [3, 9]),
        ([Range("length", 2.0, None), Range("length", None, 4.0)], [3, 9]),
    ],
)
def test_rows_outside_any_range_are_out(ranges: list[Range], kept: list[int]) -> None:
    found = outside(ROWS, COLUMNS, ranges)
    assert found.tolist() == [row for row in ROWS.tolist() if row not in kept]


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), max_size=3), st.integers(0, 99))
def test_every_row_is_in_all_ranges_or_out(bounds: list[tuple[float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(50) < 0.2, np.nan, rng.normal(size=50))
    ranges = [Range("s", min(pair), max(pair)) for pair in bounds]
    out = set(outside(np.arange(50), {"s": values}, ranges).tolist())
    for row, value in enumerate(values):
        inside = all(item.low <= value <= item.high for item in ranges)
        assert (row not in out) == (inside or not ranges)


def test_pools_are_made_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(600)
    columns = {"length": rng.normal(size=600), "score": rng.normal(size=600)}
    config = PoolConfig.model_validate({"within": [{"statistic": "score", "low": 0}]})
    built = construct(rows, columns, config, outside(rows, columns, config.ranges))
    for codes in built.assignments.values():
        np.testing.assert_array_equal(codes == EXCLUDED, columns["score"] < 0)
    assert built.eligible == np.count_nonzero(columns["score"] >= 0)


def test_unknown_statistics_are_named_with_the_nearest() -> None:
    ranges = [Range("lenght", 1.0, None), Range("length", 1.0, None), Range("x", 1.0, None)]
    with pytest.raises(BadInput) as caught:
        outside(ROWS, COLUMNS, ranges)
    assert str(caught.value).splitlines() == [
        "pools.within: unknown statistic 'lenght'; did you mean 'length'? (known: length, score)",
        "pools.within: unknown statistic 'x' (known: length, score)",
    ]


def test_a_column_of_another_length_is_an_error() -> None:
    with pytest.raises(BadInput, match=r"'s' has shape \(1,\), but there are 5 row ids"):
        outside(ROWS, {"s": np.ones(1)}, [Range("s", 0.0, None)])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"statistic": "s", "low": 2, "high": 1}, "low is 2, which is above high, 1"),
        ({"statistic": "s", "min": 2}, "Extra inputs"),
        ({"low": 2}, "Field required"),
        ({"statistic": "s", "low": float("inf")}, "finite"),
    ],
)
def test_the_section_is_checked(item: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PoolConfig.model_validate({"within": [item]})


def test_ranges_are_those_of_a_recipe() -> None:
    given = {"statistic": "s", "low": None, "high": 1.5}  # as a record is written
    assert PoolConfig.model_validate({"within": [given]}).ranges == (Range("s", None, 1.5),)
