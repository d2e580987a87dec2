"""Exact order statistics of more numbers than one would like to copy or sort.

Whole columns are walked in slices, so that a temporary never has the length of a column; what is
kept per row is what the caller keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

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
