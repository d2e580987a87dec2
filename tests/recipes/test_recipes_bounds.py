from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.cuts import cut_column
from djsandbox_ray.pools.eligible import inside
from djsandbox_ray.recipes.bounds import bucket_bounds, settle

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
columns = st.lists(st.one_of(numbers, st.just(float("nan"))), min_size=1, max_size=60).filter(
    lambda values: not all(np.isnan(values))
)


@given(columns, numbers, numbers)
def test_settling_moves_no_row(values: list[float], first: float, second: float) -> None:
    column, low, high = np.array(values), min(first, second), max(first, second)
    for wanted in ((low, high), (low, None), (None, high), (None, None)):
        settled = settle(column, *wanted)
        np.testing.assert_array_equal(inside(column, *settled), inside(column, *wanted))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), numbers, numbers)
def test_whole_numbers_keep_whole_bounds(values: list[int], first: float, second: float) -> None:
    column = np.array(values, dtype=np.float64)
    for bound in settle(column, min(first, second), max(first, second)):
        assert bound is None or bound == round(bound)


def test_a_bound_lies_where_noise_does_not_reach_it() -> None:
    column = np.array([0.1, 0.2, 0.3, 0.4, np.nan])
    low, high = settle(column, 0.2, 0.3)
    assert (low, high) == (pytest.approx(0.15), pytest.approx(0.35))
    for noise in (-1e-8, 1e-8):
        assert inside(column + noise, low, high).tolist() == [False, True, True, False, False]
    assert settle(column, 0.1, 0.4) == (None, None)  # nothing to keep out
    assert settle(column, 0.05, 0.45) == (0.05, 0.45)  # where nothing is near, as it was wanted
    close = np.array([1.0, np.nextafter(1.0, 2.0)])
    assert settle(close, close[1], None) == (close[1], None)
    assert settle(np.array([3.0, 9.0, 12.0]), 9.3, 11.0) == (10.0, 11.0)
    with pytest.raises(BadInput, match="without any value"):
        settle(np.array([np.nan]), 0.0, 1.0)


def codes_of(column: np.ndarray, buckets: int) -> np.ndarray:
    rows, count = np.arange(len(column)), int(np.count_nonzero(~np.isnan(column)))
    cut = cut_column(lambda: [(rows, column)], count, buckets, np.uint64(3))
    return cut.codes(rows, column)


@given(
    st.lists(numbers, min_size=6, max_size=80, unique=True),
    st.integers(2, 5),
    st.data(),
)
def test_buckets_without_ties_are_kept_exactly(
    values: list[float], buckets: int, data: st.DataObject
) -> None:
    column = np.array([*values, np.nan])
    codes = codes_of(column, buckets)
    first = data.draw(st.integers(0, buckets - 1))
    last = data.draw(st.integers(first, buckets - 1))
    low, high = bucket_bounds(column, buckets, first, last)
    expected = (codes >= first) & (codes <= last)
    np.testing.assert_array_equal(inside(column, low, high), expected)
    assert (low is None) == (first == 0)
    assert (high is None) == (last == buckets - 1)


@given(st.lists(st.integers(0, 4), min_size=6, max_size=60), st.integers(2, 4), st.data())
def test_tied_buckets_keep_or_drop_a_value_whole(
    values: list[int], buckets: int, data: st.DataObject
) -> None:
    column = np.array(values, dtype=np.float64)
    codes = codes_of(column, buckets)
    first = data.draw(st.integers(0, buckets - 1))
    kept = inside(column, *bucket_bounds(column, buckets, first, first))
    assert kept.any()
    # Values that the cuts do not split are where the pool has them.
    for value in np.unique(column):
        where = codes[column == value] == first
        if where.all():
            assert kept[column == value].all()


def test_ties_go_where_most_of_them_lie() -> None:
    # 0 is split two to one by the first cut of three buckets of three.
    column = np.array([-1.0, -0.5, 0.0, 0.0, 0.0, 1.5, 2.5, 3.5, 4.5])
    assert bucket_bounds(column, 3, 1, 2) == (pytest.approx(-0.25), None)
    assert bucket_bounds(column, 3, 0, 0) == (None, pytest.approx(-0.25))
    mostly = np.array([0.0] * 8 + [1.5])
    assert bucket_bounds(mostly, 3, 1, 1) == (None, pytest.approx(0.75))
