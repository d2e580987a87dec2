from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from djsandbox_ray.pools import order as selection
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.order import number_of, ordered_keys, select, slices

# Keys that share all but their last bits, all but their first ones, or everything.
KEYS = st.sampled_from([0, 1, 2**16, 2**48, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
NUMBERS = st.sampled_from([-np.inf, -0.0, 0.0, 5e-324, np.inf]) | st.floats(allow_nan=False)


@pytest.mark.parametrize("few", [0, 2, 1 << 16])
@settings(deadline=None, max_examples=25)
@given(keys=arrays(np.uint64, st.integers(1, 60), elements=KEYS), parts=st.integers(1, 4))
def test_ranks_are_those_of_a_sort(few: int, keys: np.ndarray, parts: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_FEW", few)  # 0: every bit is looked at
        found = select(lambda: np.array_split(keys, parts), range(len(keys)))
    np.testing.assert_array_equal(found, np.sort(keys))


@given(arrays(np.float64, st.integers(1, 60), elements=NUMBERS))
def test_keys_have_the_order_of_the_numbers(values: np.ndarray) -> None:
    keys = ordered_keys(values)
    np.testing.assert_array_equal(number_of(keys), values)
    np.testing.assert_array_equal(number_of(np.sort(keys)), np.sort(values))
    assert len(np.unique(keys)) == len(np.unique(values)), "-0.0 and 0.0 are one"


def test_slices_cover_every_position_once(monkeypatch) -> None:
    monkeypatch.setattr(selection, "_SLICE_ROWS", 7)
    for rows in (0, 6, 7, 8, 21):
        found = [position for part in slices(rows) for position in range(rows)[part]]
        assert found == list(range(rows))


def test_pools_are_the_same_however_columns_are_walked(monkeypatch) -> None:
    rng, rows = np.random.default_rng(0), np.arange(900)
    gappy = np.where(rng.random(900) < 0.2, np.nan, rng.normal(size=900))
    columns = {"gappy": gappy, "sparse": np.where(rng.random(900) < 0.9, 0.0, rng.random(900))}
    whole = construct(rows, columns, PoolConfig(), rows[:50])
    monkeypatch.setattr(selection, "_SLICE_ROWS", 64)
    monkeypatch.setattr(selection, "_FEW", 3)
    sliced = construct(rows, columns, PoolConfig(), rows[:50])
    assert sliced.pools == whole.pools
    for name, codes in whole.assignments.items():
        np.testing.assert_array_equal(sliced.assignments[name], codes)
