"""A seeded, stateless hash of row ids: chance that depends on the row and on nothing else.

A row's hash is the same on every platform and whatever other rows there are, so that what is
decided by it (ties, random buckets, draws) does not depend on row order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.identity import canonical
from djsandbox_ray.pools.selection import Keys, select, slices


def hash_key(seed: int, *purpose: str) -> np.uint64:
    """Return the key of one use of chance: another seed or purpose gives an unrelated hash."""
    digest = hashlib.blake2b(canonical([seed, *purpose]), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def hash_rows(row_ids: NDArray[np.int64], key: np.uint64) -> NDArray[np.uint64]:
    """Hash row ids, shape (n,), to uint64, shape (n,).

    The key is put between two rounds of the mixer: the first spreads consecutive row ids over 64
    bits. Both rounds are bijections, so that different rows never share a hash.
    """
    words = np.array(row_ids, dtype=np.int64).view(np.uint64)
    _mix(words)
    words ^= key
    _mix(words)
    return words


def least(row_ids: NDArray[np.int64], count: int, key: np.uint64) -> NDArray[np.intp]:
    """Return the positions of the ``count`` rows of least hash, ascending."""
    return np.flatnonzero(least_of(row_ids, count, key))


def least_of(
    row_ids: NDArray[np.int64],
    count: int,
    key: np.uint64,
    among: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Return which rows are the ``count`` of least hash; the hashes are never held all at once.

    Args:
        row_ids: (n,), all different.
        count: rows to choose; all of them, if there are not more.
        key: key of the hash.
        among: (n,), the rows to choose from; None for all.

    Returns:
        (n,).
    """
    chosen = np.ones(len(row_ids), dtype=np.bool_) if among is None else among.copy()
    if count >= np.count_nonzero(chosen):
        return chosen
    (bound,) = hash_bounds(row_ids, np.array([count]), key, chosen)
    for part in slices(len(row_ids)):
        chosen[part] &= hash_rows(row_ids[part], key) < bound
    return chosen


def hash_bounds(
    row_ids: NDArray[np.int64],
    ranks: NDArray[np.int64],
    key: np.uint64,
    among: NDArray[np.bool_],
) -> NDArray[np.uint64]:
    """Return the hashes of the given ranks, 0 being the least, of the rows ``among`` marks."""

    def hashes() -> Iterator[Keys]:
        for part in slices(len(row_ids)):
            yield hash_rows(row_ids[part][among[part]], key)

    return select(hashes, ranks.tolist())


def _mix(words: NDArray[np.uint64]) -> None:
    """Mix uint64 words in place: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
