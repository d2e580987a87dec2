"""Who comes first: exact order statistics of long columns, and a seeded hash of row ids.

Whole columns are walked in slices, so that a temporary never has the length of a column; what is
kept per row is what the caller keeps. The hash is chance that depends on the row and on nothing
else: it is the same on every platform and whatever other rows there are, so that what is decided
by it (ties, random buckets, draws) does not depend on row order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.identity import canonical

_SLICE_ROWS = 1 << 18
_BITS = 16
_FEW = 1 << 16
"""So many candidates are collected and sorted; of more, the next bits are looked at."""

Keys = NDArray[np.uint64]
_SIGN = np.uint64(1 << 63)


def slices(rows: int) -> Iterator[slice]:
    """Cut positions 0 to ``rows`` into consecutive slices."""
    for start in range(0, rows, _SLICE_ROWS):
        yield slice(start, min(start + _SLICE_ROWS, rows))


def select(read: Callable[[], Iterable[Keys]], ranks: Iterable[int]) -> Keys:
    """Return the keys of the given ranks, 0 being the least: what sorting all would put there.

    A radix selection: a histogram of the leading 16 bits says which bin holds a rank; if too many
    keys share it, the next 16 bits are looked at, down to all 64, where they are one key.

    Args:
        read: gives all keys, in parts of any size; called up to five times per rank.
        ranks: below the number of keys.

    Returns:
        In the order of ``ranks``.
    """
    first = _histogram(read, 0, 0)
    return np.array([_ranked(read, rank, first) for rank in ranks], dtype=np.uint64)


def ordered_keys(values: NDArray[np.float64]) -> Keys:
    """Return integers that have the order of numbers, none of which is NaN; -0.0 equals 0.0."""
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def number_of(keys: Keys) -> NDArray[np.float64]:
    """Undo :func:`ordered_keys`."""
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)


def _ranked(read: Callable[[], Iterable[Keys]], rank: int, counts: NDArray[np.int64]) -> np.uint64:
    prefix, known = 0, 0
    while True:
        ends = np.cumsum(counts)
        digit = int(np.searchsorted(ends, rank, side="right"))
        rank -= int(ends[digit]) - int(counts[digit])
        prefix, known = prefix << _BITS | digit, known + _BITS
        if known == 64:
            return np.uint64(prefix)
        if counts[digit] <= _FEW:
            found = np.concatenate([_with_prefix(keys, prefix, known) for keys in read()])
            return np.uint64(np.partition(found, rank)[rank])
        counts = _histogram(read, prefix, known)


def _histogram(read: Callable[[], Iterable[Keys]], prefix: int, known: int) -> NDArray[np.int64]:
    """Count the next bits of the keys whose first ``known`` bits are ``prefix``."""
    counts = np.zeros(1 << _BITS, dtype=np.int64)
    for keys in read():
        digits = _with_prefix(keys, prefix, known) << np.uint64(known) >> np.uint64(64 - _BITS)
        counts += np.bincount(digits.astype(np.intp), minlength=1 << _BITS)
    return counts


def _with_prefix(keys: Keys, prefix: int, known: int) -> Keys:
    return keys if known == 0 else keys[keys >> np.uint64(64 - known) == np.uint64(prefix)]


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
