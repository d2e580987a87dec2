from __future__ import annotations

import hashlib

import numpy as np
import pytest

from djsandbox_ray.pools.order import hash_key, hash_rows, least


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
