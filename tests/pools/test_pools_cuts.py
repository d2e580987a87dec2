from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from djsandbox_ray.pools.cuts import LEFT_OUT, NO_VALUE, Cut, Read, cut_column, cut_ranks, trim
from djsandbox_ray.pools.order import hash_key, hash_rows

KEY = hash_key(0, "ties", "x")

# Few different values, infinities and both zeros, so that cuts run through ties all the time.
VALUES = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1.0, 2.0, 7.25, np.inf, np.nan]) | st.floats(
    -1e6, 1e6
)
COLUMNS = st.integers(1, 80).flatmap(lambda n: arrays(np.float64, n, elements=VALUES))


def by_full_sort(values: np.ndarray, rows: np.ndarray, buckets: int) -> np.ndarray:
    """Rank by (value, hash) with a sort of everything."""
    codes = np.full(len(values), NO_VALUE, dtype=np.int8)
    present = np.flatnonzero(~np.isnan(values))
    order = present[np.lexsort((hash_rows(rows[present], KEY), values[present]))]
    for code, part in enumerate(np.split(order, cut_ranks(len(order), buckets))):
        codes[part] = code
    return codes


def read(values: np.ndarray, rows: np.ndarray, parts: int = 1) -> Read:
    cut = [np.array_split(some, parts) for some in (rows, values)]
    return lambda: zip(*cut, strict=True)


def cut_of(values: np.ndarray, rows: np.ndarray, buckets: int, key: np.uint64 = KEY) -> Cut:
    count = int(np.count_nonzero(~np.isnan(values)))
    return cut_column(read(values, rows), count, buckets, key)


def codes_of(
    values: np.ndarray, rows: np.ndarray, buckets: int, key: np.uint64 = KEY
) -> np.ndarray:
    return cut_of(values, rows, buckets, key).codes(rows, values)


def enough(values: np.ndarray, buckets: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(buckets)])


@settings(deadline=None)
@given(COLUMNS, st.integers(2, 7), st.randoms(use_true_random=False))
def test_a_cut_equals_that_of_a_full_sort(values, buckets, random) -> None:  # type: ignore[no-untyped-def]
    values = enough(values, buckets)
    rows = np.array(random.sample(range(10_000), len(values)), dtype=np.int64)
    codes = codes_of(values, rows, buckets)
    np.testing.assert_array_equal(codes, by_full_sort(values, rows, buckets))


@settings(deadline=None)
@given(COLUMNS, st.integers(2, 7), st.integers(1, 9))
def test_a_cut_does_not_depend_on_the_parts(values, buckets, parts) -> None:  # type: ignore[no-untyped-def]
    values = enough(values, buckets)
    rows, whole = np.arange(len(values)), cut_of(values, np.arange(len(values)), buckets)
    count = int(np.count_nonzero(~np.isnan(values)))
    cut = cut_column(read(values, rows, parts), count, buckets, KEY)
    assert (cut.sizes, cut.ties, cut.level) == (whole.sizes, whole.ties, whole.level)
    codes = np.concatenate([cut.codes(*some) for some in read(values, rows, parts)()])
    np.testing.assert_array_equal(codes, whole.codes(rows, values))
    assert cut.sizes == tuple(np.bincount(codes[codes >= 0], minlength=buckets))
    lowest, highest = values[codes == 0], values[codes == buckets - 1]
    equal = np.count_nonzero(lowest[:, None] == highest)
    assert cut.level[0] * cut.level[1] == equal, "of ascending buckets, one value may be in both"


@settings(deadline=None)
@given(COLUMNS, st.integers(2, 7))
def test_buckets_are_complete_ordered_and_of_one_size(values, buckets) -> None:  # type: ignore[no-untyped-def]
    values = enough(values, buckets)
    codes = codes_of(values, np.arange(len(values)), buckets)
    np.testing.assert_array_equal(codes == NO_VALUE, np.isnan(values))
    parts = [values[codes == code] for code in range(buckets)]
    assert sum(map(len, parts)) == np.count_nonzero(~np.isnan(values))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for lower, upper in pairwise(parts):
        assert lower.max() <= upper.min()


@settings(deadline=None)
@given(COLUMNS, st.integers(2, 5), st.randoms(use_true_random=False))
def test_a_cut_does_not_depend_on_row_order(values, buckets, random) -> None:  # type: ignore[no-untyped-def]
    values = enough(values, buckets)
    rows = np.arange(len(values))
    order = np.array(random.sample(range(len(values)), len(values)))
    plain, permuted = cut_of(values, rows, buckets), cut_of(values[order], rows[order], buckets)
    codes = permuted.codes(rows[order], values[order])
    np.testing.assert_array_equal(codes, plain.codes(rows, values)[order])
    assert permuted.ties == plain.ties


def ties(values: list[float], buckets: int = 3) -> tuple[int, ...]:
    return cut_of(np.array(values, dtype=float), np.arange(len(values)), buckets).ties


def test_ties_count_the_rows_that_the_hash_placed() -> None:
    assert ties([1, 2, 3, 4, 5, 6]) == (0, 0, 0)
    assert ties([1, 1, 2, 2, 3, 3]) == (0, 0, 0), "tied, but not across a cut"
    assert ties([1, 2, 2, 3, 4, 5]) == (2, 2, 0)
    assert ties([1, 2, 2, 3, 3, 4]) == (2, 4, 2)
    assert ties([0, 0, 0, 0, 0, 1]) == (5, 5, 5), "one value over both cuts counts once"


def test_ties_are_split_evenly_over_the_row_ids() -> None:
    values = np.zeros(30_000)
    codes = codes_of(values, np.arange(30_000), 3)
    first_half = [np.count_nonzero(codes[:15_000] == code) for code in range(3)]
    assert np.abs(np.array(first_half) - 5_000).max() < 5 * 50


def test_another_key_splits_ties_in_another_way() -> None:
    rows = np.arange(3_000)
    one = codes_of(np.zeros(3_000), rows, 3, hash_key(0, "ties", "x"))
    two = codes_of(np.zeros(3_000), rows, 3, hash_key(0, "ties", "y"))
    assert abs(np.mean(one == two) - 1 / 3) < 0.05


def test_a_tie_free_column_does_not_need_the_hash() -> None:
    values = np.random.default_rng(0).permutation(1_000).astype(float)
    for key in (KEY, hash_key(1)):
        codes = codes_of(values, np.arange(1_000), 4, key)
        np.testing.assert_array_equal(codes, values.astype(int) // 250)


@pytest.mark.parametrize(("count", "expected"), [(9, [3, 6]), (10, [3, 7]), (11, [4, 7])])
def test_ranks_are_rounded_to_the_nearest(count: int, expected: list[int]) -> None:
    assert cut_ranks(count, 3).tolist() == expected


@settings(deadline=None)
@given(COLUMNS, st.integers(2, 5), st.data())
def test_trim_leaves_out_only_what_exceeds_the_size(values, buckets, data) -> None:  # type: ignore[no-untyped-def]
    values = enough(values, buckets)
    rows = np.arange(len(values))
    cut = cut_of(values, rows, buckets)
    codes = cut.codes(rows, values)
    size = data.draw(st.integers(1, min(cut.sizes)))
    trimmed = trim(read(values, rows, 3), cut, size, KEY).codes(rows, values)
    assert [np.count_nonzero(trimmed == code) for code in range(buckets)] == [size] * buckets
    changed = trimmed != codes
    assert np.all(trimmed[changed] == LEFT_OUT)
    assert np.all(codes[changed] >= 0)
    hashes = hash_rows(rows, KEY)
    for code in np.unique(codes[changed]):
        assert hashes[trimmed == code].max() < hashes[changed & (codes == code)].min()
