"""Who comes first: exact order statistics of long columns, and a seeded hash of row ids.

Whole columns are walked in slices, so that a temporary never has the length of a column; what is
kept per row is what the caller keeps. Rows are picked by ``np.compress`` or by positions: an index
that is a mask takes four times as long. The hash is chance that depends on the row and on nothing
else: it is the same on every platform and whatever other rows there are, so that what is decided
by it (ties, random buckets, draws) does not depend on row order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.identity import canonical

_SLICE_ROWS = 1 << 17
"""A column of so many numbers, and what is computed from it, stay in a core's own cache."""
_BITS = 16
_FEW = 1 << 16
"""So many candidates are collected and sorted; of more, the next bits are looked at."""

Keys = NDArray[np.uint64]
_SIGN = np.uint64(1 << 63)
_Sought = dict[tuple[int, int], list[tuple[int, int]]]
"""By leading bits and how many these are: which ranks are sought among the keys that begin with
them, as (index, rank)."""


def slices(rows: int) -> Iterator[slice]:
    """Cut positions 0 to ``rows`` into consecutive slices."""
    for start in range(0, rows, _SLICE_ROWS):
        yield slice(start, min(start + _SLICE_ROWS, rows))


@dataclass(frozen=True, eq=False)
class Selected:
    """Keys of given ranks, each array in the order of the ranks, shape (ranks,)."""

    keys: Keys
    below: NDArray[np.int64]
    """How many keys are less than each."""
    equal: NDArray[np.int64]
    """How many are equal to it, itself included."""


def select(read: Callable[[], Iterable[Keys]], ranks: Iterable[int]) -> Selected:
    """Find the keys of the given ranks, 0 being the least: what sorting all would put there.

    A radix selection: a histogram of the leading 16 bits says which bin holds a rank; if too many
    keys share it, the next 16 bits are looked at, down to all 64, where they are one key. Where
    all that share it are one key, that shows with the next bits.

    Args:
        read: gives all keys, in parts of any size; called up to five times.
        ranks: below the number of keys.
    """
    ranks = list(ranks)
    found = np.zeros(len(ranks), dtype=np.uint64)
    below, equal = np.zeros((2, len(ranks)), dtype=np.int64)
    bases = {(0, 0): 0}  # how many keys come before those that begin with some bits
    few: _Sought = {}
    sought: _Sought = {(0, 0): list(enumerate(ranks))}
    while sought:
        narrower: _Sought = {}
        for bits, group in _histograms(read, sought).items():
            base, ends = bases[bits], np.cumsum(group.counts)
            for index, rank in sought[bits]:
                if group.least == group.most:
                    found[index], below[index], equal[index] = group.least, base, ends[-1]
                    continue
                digit = int(np.searchsorted(ends, rank, side="right"))
                inside = int(group.counts[digit])
                before = int(ends[digit]) - inside
                longer = (bits[0] << _BITS | digit, bits[1] + _BITS)
                if longer[1] == 64:
                    found[index], below[index], equal[index] = longer[0], base + before, inside
                    continue
                bases[longer] = base + before
                into = few if inside <= _FEW else narrower
                into.setdefault(longer, []).append((index, rank - before))
        sought = narrower
    for bits, keys in _collected(read, few).items():
        for index, rank in few[bits]:
            found[index] = key = np.partition(keys, rank)[rank]
            below[index] = bases[bits] + np.count_nonzero(keys < key)
            equal[index] = np.count_nonzero(keys == key)
    return Selected(found, below, equal)


def ordered_keys(values: NDArray[np.float64]) -> Keys:
    """Return integers that have the order of numbers, none of which is NaN; -0.0 equals 0.0."""
    bits = (values + 0.0).view(np.uint64)
    # All bits of a negative number turn over, of others the sign alone.
    bits ^= (bits.view(np.int64) >> 63).view(np.uint64) | _SIGN
    return bits


def number_of(keys: Keys) -> NDArray[np.float64]:
    """Undo :func:`ordered_keys`."""
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)


@dataclass
class _Group:
    """What is known of the keys that begin with some bits."""

    counts: NDArray[np.int64]
    """By their next bits."""
    least: int = (1 << 64) - 1
    most: int = 0


def _histograms(
    read: Callable[[], Iterable[Keys]], sought: _Sought
) -> dict[tuple[int, int], _Group]:
    """Count the next bits of the keys that begin with some bits."""
    groups = {bits: _Group(np.zeros(1 << _BITS, dtype=np.int64)) for bits in sought}
    for keys in read():
        for (prefix, known), group in groups.items():
            some = _with_prefix(keys, prefix, known)
            if len(some):
                group.least = min(group.least, int(some.min()))
                group.most = max(group.most, int(some.max()))
            digits = some << np.uint64(known) >> np.uint64(64 - _BITS)
            group.counts += np.bincount(digits.view(np.int64), minlength=1 << _BITS)
    return groups


def _collected(read: Callable[[], Iterable[Keys]], sought: _Sought) -> dict[tuple[int, int], Keys]:
    """Return the keys that begin with some bits."""
    kept: dict[tuple[int, int], list[Keys]] = {bits: [] for bits in sought}
    for keys in read() if sought else ():
        for prefix, known in sought:
            kept[prefix, known].append(_with_prefix(keys, prefix, known))
    return {bits: np.concatenate(some) for bits, some in kept.items()}


def _with_prefix(keys: Keys, prefix: int, known: int) -> Keys:
    if known == 0:
        return keys
    return np.compress(keys >> np.uint64(64 - known) == np.uint64(prefix), keys)


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
    there = int(np.count_nonzero(chosen))
    if count >= there:
        return chosen

    def hashes() -> Iterator[Mapping[int, Keys]]:
        for part in slices(len(row_ids)):
            yield {0: hash_rows(np.compress(chosen[part], row_ids[part]), key)}

    (limit,) = hash_limits(hashes, {0: (there, [count])})[0]
    for part in slices(len(row_ids)):
        chosen[part] &= hash_rows(row_ids[part], key) < limit
    return chosen


def hash_limits(
    read: Callable[[], Iterable[Mapping[int, Keys]]],
    wanted: Mapping[int, tuple[int, Sequence[int]]],
) -> dict[int, Keys]:
    """Return the hashes of given ranks in some groups of rows, 0 being the least.

    Hashes are uniform, so that all but a few cannot have a rank: one walk counts those below and
    keeps the few. Where chance has it otherwise, the rank is selected like that of any key.

    Args:
        read: gives the hashes of the rows by group, in parts of any size.
        wanted: by group: how many rows it has, and ranks below that number, ascending.
    """
    spans = {
        group: [_span(rank, count) for rank in ranks] for group, (count, ranks) in wanted.items()
    }
    below = {group: [0] * len(ranks) for group, (_, ranks) in wanted.items()}
    near: dict[int, list[list[Keys]]] = {group: [[] for _ in few] for group, few in spans.items()}
    for part in read():
        for group, hashes in part.items():
            for index, (low, high) in enumerate(spans.get(group, ())):
                under = hashes < low
                below[group][index] += int(np.count_nonzero(under))
                near[group][index].append(np.compress(~under & (hashes <= high), hashes))
    found: dict[int, Keys] = {}
    for group, (_, ranks) in wanted.items():
        limits = []
        for index, rank in enumerate(ranks):
            few = np.concatenate([np.empty(0, np.uint64), *near[group][index]])
            place = rank - below[group][index]
            if 0 <= place < len(few):
                limits.append(np.partition(few, place)[place])
            else:
                limits += list(select(partial(_of_group, read, group), [rank]).keys)
        found[group] = np.array(limits, dtype=np.uint64)
    return found


def _of_group(read: Callable[[], Iterable[Mapping[int, Keys]]], group: int) -> Iterator[Keys]:
    return (part[group] for part in read() if group in part)


def _span(rank: int, count: int) -> tuple[np.uint64, np.uint64]:
    """Return between which hashes that of a rank is found, but for once in 10^15 times.

    The hash of rank k of n is a Beta(k + 1, n - k): 8 standard deviations to either side, and what
    64 rows take where the distribution is not normal, at the ends.
    """
    share = rank / count
    aside = 8 * math.sqrt(share * (1 - share) / count) + 64 / count
    low, high = max(0.0, share - aside), min(1.0, share + aside)
    return np.uint64(int(low * 2**64)), np.uint64(min(int(high * 2**64), 2**64 - 1))


def _mix(words: NDArray[np.uint64]) -> None:
    """Mix uint64 words in place: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
