from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from djsandbox_ray.pools import order
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.order import (
    hash_key,
    hash_limits,
    hash_rows,
    least,
    number_of,
    ordered_keys,
    select,
    slices,
)

# Keys that share all but their last bits, all but their first ones, or everything.
KEYS = st.sampled_from([0, 1, 2**16, 2**48, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
NUMBERS = st.sampled_from([-np.inf, -0.0, 0.0, 5e-324, np.inf]) | st.floats(allow_nan=False)


@pytest.mark.parametrize("few", [0, 2, 1 << 16])
@settings(deadline=None, max_examples=25)
@given(keys=arrays(np.uint64, st.integers(1, 60), elements=KEYS), parts=st.integers(1, 4))
def test_ranks_are_those_of_a_sort(few: int, keys: np.ndarray, parts: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "_FEW", few)  # 0: every bit is looked at
        found = select(lambda: np.array_split(keys, parts), range(len(keys)))
    sorted_keys = np.sort(keys)
    np.testing.assert_array_equal(found.keys, sorted_keys)
    below = np.searchsorted(sorted_keys, sorted_keys, side="left")
    np.testing.assert_array_equal(found.below, below)
    above = np.searchsorted(sorted_keys, sorted_keys, side="right")
    np.testing.assert_array_equal(found.equal, above - below)


def test_numbers_of_which_many_are_equal_are_walked_twice(monkeypatch) -> None:
    """As with counts: the leading bits hold one number, which shows with the next ones."""
    monkeypatch.setattr(order, "_FEW", 3)
    keys, walks = ordered_keys(np.repeat([0.0, 3.0, 12.0], 100)), []

    def read() -> list[np.ndarray]:
        walks.append(len(keys))
        return [keys]

    found = select(read, [50, 150, 250])
    assert number_of(found.keys).tolist() == [0, 3, 12]
    assert (found.below.tolist(), found.equal.tolist()) == ([0, 100, 200], [100] * 3)
    assert len(walks) == 2


@given(arrays(np.float64, st.integers(1, 60), elements=NUMBERS))
def test_keys_have_the_order_of_the_numbers(values: np.ndarray) -> None:
    keys = ordered_keys(values)
    np.testing.assert_array_equal(number_of(keys), values)
    np.testing.assert_array_equal(number_of(np.sort(keys)), np.sort(values))
    assert len(np.unique(keys)) == len(np.unique(values)), "-0.0 and 0.0 are one"


def test_slices_cover_every_position_once(monkeypatch) -> None:
    monkeypatch.setattr(order, "_SLICE_ROWS", 7)
    for rows in (0, 6, 7, 8, 21):
        found = [position for part in slices(rows) for position in range(rows)[part]]
        assert found == list(range(rows))


def test_pools_are_the_same_however_columns_are_walked(monkeypatch) -> None:
    rng, rows = np.random.default_rng(0), np.arange(900)
    gappy = np.where(rng.random(900) < 0.2, np.nan, rng.normal(size=900))
    columns = {"gappy": gappy, "sparse": np.where(rng.random(900) < 0.9, 0.0, rng.random(900))}
    whole = construct(rows, columns, PoolConfig(), rows[:50])
    monkeypatch.setattr(order, "_SLICE_ROWS", 64)
    monkeypatch.setattr(order, "_FEW", 3)
    sliced = construct(rows, columns, PoolConfig(), rows[:50])
    assert sliced.pools == whole.pools
    for name, codes in whole.assignments.items():
        np.testing.assert_array_equal(sliced.assignments[name], codes)


def reference_mix(word: int) -> int:
    """SplitMix64's finaliser in plain integers."""
    mask = 2**64 - 1
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    return word ^ (word >> 31)


def test_the_hash_is_the_same_on_every_platform() -> None:
    digest = hashlib.blake2b(b'[0,"draw","a/low"]', digest_size=8).digest()
    assert int(hash_key(0, "draw", "a/low")) == int.from_bytes(digest, "little")
    rows = np.array([0, 1, 2**40, -1], dtype=np.int64)
    expected = [reference_mix(reference_mix(r % 2**64) ^ 12345) for r in rows.tolist()]
    assert hash_rows(rows, np.uint64(12345)).tolist() == expected


def test_the_row_ids_are_not_changed() -> None:
    rows = np.arange(10)
    hash_rows(rows, hash_key(0))
    assert rows.tolist() == list(range(10))


@pytest.mark.parametrize("other", [hash_key(1, "a"), hash_key(0, "b"), hash_key(0, "a", "")])
def test_other_seeds_and_purposes_give_unrelated_hashes(other: np.uint64) -> None:
    rows = np.arange(60_000)
    here, there = hash_rows(rows, hash_key(0, "a")), hash_rows(rows, other)
    assert abs(np.corrcoef(here.astype(float), there.astype(float))[0, 1]) < 0.02


def test_hashes_differ_and_fill_the_range() -> None:
    hashes = hash_rows(np.arange(60_000), hash_key(3))
    assert len(np.unique(hashes)) == 60_000
    counts = np.histogram(hashes.astype(float), bins=20, range=(0, 2.0**64))[0]
    assert np.abs(counts - 3_000).max() < 5 * 3_000**0.5


def test_least_takes_the_rows_of_least_hash() -> None:
    rows, key = np.arange(100, 200), hash_key(0)
    expected = set(np.argsort(hash_rows(rows, key))[:30].tolist())
    assert set(least(rows, 30, key).tolist()) == expected
    assert sorted(least(rows, 100, key).tolist()) == list(range(100))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(1, 5), st.data())
def test_limits_are_hashes_of_their_rank_in_each_group(groups, parts, data) -> None:  # type: ignore[no-untyped-def]
    of, hashes = np.array(groups), hash_rows(np.arange(len(groups)), hash_key(0))
    there = {int(group): int(np.count_nonzero(of == group)) for group in np.unique(of)}
    wanted = {
        group: (count, sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
        for group, count in there.items()
    }
    cut = [np.array_split(some, parts) for some in (of, hashes)]
    found = hash_limits(
        lambda: ({group: h[g == group] for group in there} for g, h in zip(*cut, strict=True)),
        wanted,
    )
    for group, (_, ranks) in wanted.items():
        assert found[group].tolist() == np.sort(hashes[of == group])[ranks].tolist()


def test_limits_are_exact_where_hashes_are_not_uniform() -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    found = hash_limits(lambda: [{7: keys[::2]}, {7: keys[1::2]}], {7: (len(keys), [3, 50_000])})
    assert found[7].tolist() == [3, 50_000]
