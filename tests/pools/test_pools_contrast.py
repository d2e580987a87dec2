from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.contrast import Probe, contrast, probe
from djsandbox_ray.pools.cuts import cut_column
from djsandbox_ray.pools.order import hash_key

CONFIG = PoolConfig()
SMALL = st.lists(st.integers(-3, 3).map(float) | st.just(np.inf), min_size=5, max_size=40)


@given(SMALL, st.integers(2, 5))
def test_contrast_is_the_share_of_pairs_where_high_exceeds_low(values, buckets) -> None:  # type: ignore[no-untyped-def]
    column, rows = np.array(values), np.arange(len(values))
    cut = cut_column(lambda: [(rows, column)], len(values), buckets, hash_key(0))
    codes = cut.codes(rows, column)
    pairs = column[codes == buckets - 1] > column[codes == 0][:, None]
    assert contrast(cut) == np.count_nonzero(pairs) / pairs.size


def look_at(values: np.ndarray, config: PoolConfig = CONFIG) -> Probe:
    return probe("x", lambda: [(np.arange(len(values)), values)], config)


def test_a_tie_free_statistic_has_full_contrast() -> None:
    found = look_at(np.random.default_rng(0).normal(size=300))
    assert (found.contrast, found.reason, found.missing) == (1.0, None, 0)


def test_a_mostly_zero_statistic_has_the_contrast_of_its_other_rows() -> None:
    values = np.zeros(3_000)
    values[:300] = 1.0
    assert look_at(values).contrast == pytest.approx(0.3)
    assert look_at(values).reason is None


def test_no_contrast_is_not_testable() -> None:
    values = np.zeros(3_000)
    values[:30] = 1.0
    found = look_at(values)
    assert found.contrast == pytest.approx(0.03)
    assert found.reason is not None
    assert "no contrast" in found.reason
    assert "0.03; min_contrast is 0.05" in found.reason
    assert look_at(values, PoolConfig(min_contrast=0.02)).reason is None


@pytest.mark.parametrize("value", [0.0, 2.5, np.inf])
def test_a_constant_is_not_testable_whatever_min_contrast(value: float) -> None:
    values = np.full(300, value)
    values[0] = np.nan
    found = look_at(values, PoolConfig(min_contrast=0.0))
    assert found.reason == f"constant: every value is {value:g}"
    assert found.contrast == 0.0


def test_too_few_values_are_not_testable() -> None:
    values = np.arange(300.0)
    values[:151] = np.nan
    found = look_at(values)
    assert found.missing == 151
    assert found.contrast is None
    assert found.reason is not None
    assert "only 149 of 300 rows have a value (49.7%); min_coverage is 50.0%" in found.reason
    values[0] = 1.0
    assert look_at(values).reason is None


def test_fewer_values_than_buckets_are_not_testable() -> None:
    found = look_at(np.array([1.0, np.nan, 2.0, np.nan]))
    assert found.reason is not None
    assert "only 2 rows have a value, fewer than the 3 buckets" in found.reason


def test_infinities_are_ordinary_values() -> None:
    found = look_at(np.concatenate([np.full(100, -np.inf), np.zeros(100), np.full(100, np.inf)]))
    assert (found.contrast, found.reason, found.missing) == (1.0, None, 0)
