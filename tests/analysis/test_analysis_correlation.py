from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from djsandbox_ray.analysis.together.correlation import MIN_ROWS, CoMoments, correlate
from djsandbox_ray.errors import BadInput


def gappy(seed: int, rows: int, columns: int, gaps: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, columns))
    values += rng.normal(size=values.shape)
    values[rng.random(values.shape) < gaps] = np.nan
    return values


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    rows=st.integers(0, 60),
    columns=st.integers(1, 6),
    gaps=st.sampled_from([0.0, 0.2, 0.6]),
    chunk=st.integers(1, 25),
)
def test_chunks_of_any_size_give_what_pandas_gives(
    seed: int, rows: int, columns: int, gaps: float, chunk: int
) -> None:
    values = gappy(seed, rows, columns, gaps)
    names = [f"c{i}" for i in range(columns)]
    found = correlate(names, (values[i : i + chunk] for i in range(0, rows, chunk)))
    expected = pd.DataFrame(values, columns=names).corr(min_periods=MIN_ROWS).to_numpy()
    np.testing.assert_allclose(found.matrix, expected, atol=1e-9)
    has = ~np.isnan(values)
    np.testing.assert_array_equal(found.rows, has.T.astype(int) @ has.astype(int))


def test_digits_survive_far_from_zero() -> None:
    values = gappy(1, 4_000, 4, 0.1)
    near = correlate("abcd", [values])
    far = correlate("abcd", np.array_split(values * [1, 1e-6, 1e6, 1] + [1e6, -1, 1e12, 3e5], 37))
    # 1e6 / 1: six of sixteen digits go to the offset, no more.
    np.testing.assert_allclose(far.matrix, near.matrix, atol=1e-7)
    tiny = correlate("abcd", [values * 1e-150])
    np.testing.assert_allclose(tiny.matrix, near.matrix, atol=1e-9)


def test_columns_without_spread_are_named() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 5))
    values[:, 1] = 0.1  # whose mean is not exactly 0.1
    values[2:, 2] = np.nan
    values[:, 3] = np.nan
    found = correlate(["good", "constant", "two", "empty", "fine"], np.array_split(values, 4))
    assert found.constant == ("constant", "two", "empty")
    assert found.undefined == ()
    assert np.isnan(found.matrix[1]).all()
    assert found.matrix[0, 0] == found.matrix[4, 4] == 1
    kept = found.of(["fine", "good"])
    assert kept.names == ("fine", "good")
    assert kept.matrix[0, 1] == found.matrix[0, 4]
    assert kept.constant == ()


def test_pairs_without_a_correlation_are_named() -> None:
    a = np.array([1.0, 2, 3, 4, 1000.1, 1000.1, 1000.1])
    b = np.array([np.nan, np.nan, np.nan, np.nan, 1, 2, 3])  # where a does not change
    c = np.array([1.0, 3, 2, 5, np.nan, np.nan, np.nan])  # never beside b
    found = correlate("abc", [np.stack([a, b, c], axis=1)])
    assert found.constant == ()
    assert found.undefined == (("a", "b"), ("b", "c"))
    assert found.rows[1, 2] == 0


def test_bad_chunks_are_refused() -> None:
    moments = CoMoments(["a", "b"])
    with pytest.raises(BadInput, match=r"shape \(3, 1\); needed is \(rows, 2\)"):
        moments.add(np.zeros((3, 1)))
    with pytest.raises(BadInput, match="column 'b' holds an infinite value"):
        moments.add([[1, 2], [np.nan, np.inf]])
    with pytest.raises(BadInput, match="each once"):
        CoMoments(["a", "a"])
    with pytest.raises(BadInput, match="at least one"):
        correlate([], [])
    assert np.isnan(moments.correlation().matrix).all()
