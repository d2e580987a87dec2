"""Exact order statistics of one column: which bucket a row belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.pools.order import (
    Keys,
    hash_limits,
    hash_rows,
    number_of,
    ordered_keys,
    select,
)

NO_VALUE = -1
"""Code of a row without a value."""
LEFT_OUT = -2
"""Code of a row that has a value (or took part in the lot) but is in no pool of this column:
all pools have one size."""
EXCLUDED = -3
"""Code of a row that is kept out of every pool, such as one that is also an evaluation sample."""
_FEW = 8
"""So many limits are sooner compared with every number than searched."""

Part = tuple[NDArray[np.int64], NDArray[np.float64]]
"""A part of a column: row ids and values, both of shape (n,), NaN for no value."""
Read = Callable[[], Iterable[Part]]
"""Gives a column in parts of any size, the same ones every time."""


@dataclass(frozen=True, eq=False)
class TieSplit:
    """Rows of one value that a cut goes through: the hash places them."""

    value: float
    first: int
    """The bucket of those of least hash."""
    limits: NDArray[np.uint64]
    """(k,): from the first of these hashes on a row lies one bucket up, and so on."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Where a column is cut into buckets: small, and all that is needed to place any row."""

    bounds: NDArray[np.float64]
    """(buckets - 1,): the values at which buckets 1.. begin, ascending."""
    splits: tuple[TieSplit, ...]
    key: np.uint64
    """Of the hash that splits ties."""
    sizes: tuple[int, ...]
    """Per bucket: its rows."""
    ties: tuple[int, ...]
    """Per bucket: rows whose value is split by a cut of this bucket, so that the hash placed
    them; those that came to lie in the neighbouring bucket are counted too."""
    level: tuple[int, int]
    """Rows of the lowest and of the highest bucket that have one value, which both of them hold."""

    def codes(self, row_ids: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the buckets of some rows, 0 (least values) to buckets - 1, or ``NO_VALUE``.

        Args:
            row_ids: (n,).
            values: (n,), of the column that was cut.
        """
        codes = _at_or_above(self.bounds, values)
        codes[np.flatnonzero(np.isnan(values))] = NO_VALUE
        for split in self.splits:
            tied = np.flatnonzero(values == split.value)
            hashes = hash_rows(row_ids[tied], self.key)
            codes[tied] = np.int8(split.first) + _at_or_above(split.limits, hashes)
        return codes


def _at_or_above(limits: NDArray[Any], numbers: NDArray[Any]) -> NDArray[np.int8]:
    """Count for each number the ascending limits that it is not below."""
    if len(limits) > _FEW:
        return np.searchsorted(limits, numbers, side="right").astype(np.int8)
    counts = np.zeros(len(numbers), dtype=np.int8)
    for limit in limits:
        counts += numbers >= limit
    return counts


def there(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values that are not NaN, in their order; without a copy where none is."""
    lacking = np.isnan(values)
    return np.compress(~lacking, values) if lacking.any() else values


def cut_ranks(count: int, buckets: int) -> NDArray[np.int64]:
    """Return the ranks, shape (buckets - 1,), at which buckets 1.. begin: k n / b, rounded."""
    k = np.arange(1, buckets, dtype=np.int64)
    return (2 * k * count + buckets) // (2 * buckets)


def cut_column(read: Read, count: int, buckets: int, key: np.uint64) -> Cut:
    """Cut a column at its exact quantiles into buckets whose sizes differ by at most one.

    Rows are ranked by (value, hash of row id); only the values at the cuts are searched for,
    nothing is sorted, and no more than a part and some candidates are held. NaN means that a row
    has no value. Infinities are ordinary values: they have an order, which is all that a cut needs.

    Args:
        read: the column; row ids are all different.
        count: how many values are not NaN, at least ``buckets``.
        buckets: number of buckets.
        key: key of the hash that splits ties.
    """
    ranks = cut_ranks(count, buckets)

    def keys() -> Iterator[Keys]:
        for _, values in read():
            yield ordered_keys(there(values))

    selected = select(keys, ranks.tolist())
    bounds = number_of(selected.keys)
    different, first_of = np.unique(bounds, return_index=True)
    below, tied = selected.below[first_of], selected.equal[first_of]
    ties = np.zeros(buckets, dtype=np.int64)
    wanted, firsts = {}, {}
    for index, bound in enumerate(different):
        splits = ranks[bounds == bound] - below[index]
        splits = splits[splits > 0]
        if len(splits) == 0:
            continue  # the cut lies between two values: nothing is tied across it
        firsts[index] = first = int(np.searchsorted(ranks, below[index], side="right"))
        wanted[index] = (int(tied[index]), splits.tolist())
        ties[first : first + len(splits) + 1] += tied[index]

    def hashes() -> Iterator[Mapping[int, Keys]]:
        for row_ids, values in read():
            yield {n: hash_rows(np.compress(values == different[n], row_ids), key) for n in wanted}

    limits = hash_limits(hashes, wanted) if wanted else {}
    ends = [0, *ranks.tolist(), count]
    level = (0, 0)
    if len(different) == 1:  # all cuts go through one value, or begin at it
        level = (int(ranks[0] - below[0]), int(below[0] + tied[0] - ranks[-1]))
    return Cut(
        bounds=bounds,
        splits=tuple(TieSplit(float(different[n]), firsts[n], limits[n]) for n in wanted),
        key=key,
        sizes=tuple(stop - start for start, stop in pairwise(ends)),
        ties=tuple(ties.tolist()),
        level=level,
    )


@dataclass(frozen=True, eq=False)
class Trim:
    """Which rows of every bucket are kept so that all have one size: those of least hash."""

    cut: Cut
    key: np.uint64
    limits: dict[int, np.uint64]
    """By bucket that has more rows: the hash from which on they become ``LEFT_OUT``."""

    def codes(self, row_ids: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the codes of some rows, those of the cut or ``LEFT_OUT``; see :class:`Cut`."""
        codes = self.cut.codes(row_ids, values)
        if self.limits:
            for code, limit in self.limits.items():
                inside = np.flatnonzero(codes == code)
                beyond = hash_rows(row_ids[inside], self.key) >= limit
                codes[np.compress(beyond, inside)] = LEFT_OUT
        return codes


def trim(read: Read, cut: Cut, size: int, key: np.uint64) -> Trim:
    """Trim every bucket to ``size`` rows.

    Args:
        read: the column that was cut.
        cut: where; every bucket has at least ``size`` rows.
        size: rows that every bucket keeps.
        key: key of the hash that chooses them.
    """
    wanted = {code: (rows, [size]) for code, rows in enumerate(cut.sizes) if rows > size}

    def hashes() -> Iterator[Mapping[int, Keys]]:
        for row_ids, values in read():
            codes = cut.codes(row_ids, values)
            yield {code: hash_rows(np.compress(codes == code, row_ids), key) for code in wanted}

    limits = hash_limits(hashes, wanted) if wanted else {}
    return Trim(cut, key, {code: limits[code][0] for code in wanted})
