"""Exact order statistics of one column: which bucket a row belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.pools.order import (
    Keys,
    hash_bounds,
    hash_rows,
    least_of,
    number_of,
    ordered_keys,
    select,
    slices,
)

NO_VALUE = -1
"""Code of a row without a value."""
LEFT_OUT = -2
"""Code of a row that has a value (or took part in the lot) but is in no pool of this column:
all pools have one size."""
EXCLUDED = -3
"""Code of a row that is kept out of every pool, such as one that is also an evaluation sample."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A column cut into buckets."""

    codes: NDArray[np.int8]
    """(n,): bucket 0 (least values) to buckets - 1, or ``NO_VALUE``."""
    ties: tuple[int, ...]
    """Per bucket: rows whose value is split by a cut of this bucket, so that the hash placed
    them; those that came to lie in the neighbouring bucket are counted too."""


def cut_ranks(count: int, buckets: int) -> NDArray[np.int64]:
    """Return the ranks, shape (buckets - 1,), at which buckets 1.. begin: k n / b, rounded."""
    k = np.arange(1, buckets, dtype=np.int64)
    return (2 * k * count + buckets) // (2 * buckets)


def cut_column(
    values: NDArray[np.float64], row_ids: NDArray[np.int64], buckets: int, key: np.uint64
) -> Cut:
    """Cut a column at its exact quantiles into buckets whose sizes differ by at most one.

    Rows are ranked by (value, hash of row id); only the values at the cuts are searched for,
    nothing is sorted, and beside the column a few bytes per row are held. NaN means that a row has
    no value. Infinities are ordinary values: they have an order, which is all that a cut needs.

    Args:
        values: (n,), at least ``buckets`` of them not NaN.
        row_ids: (n,), all different.
        buckets: number of buckets.
        key: key of the hash that splits ties.
    """
    ranks = cut_ranks(len(values) - int(np.count_nonzero(np.isnan(values))), buckets)
    bounds = _values_at(values, ranks)
    codes = np.empty(len(values), dtype=np.int8)
    for part in slices(len(values)):
        inner = np.searchsorted(bounds, values[part], side="right")
        codes[part] = np.where(np.isnan(values[part]), NO_VALUE, inner)
    ties = np.zeros(buckets, dtype=np.int64)
    for bound in np.unique(bounds):
        below = int(np.count_nonzero(values < bound))
        splits = ranks[bounds == bound] - below
        splits = splits[splits > 0]
        if len(splits) == 0:
            continue  # the cut lies between two values: nothing is tied across it
        tied = values == bound
        first = int(np.searchsorted(ranks, below, side="right"))
        _place(codes, tied, row_ids, first, hash_bounds(row_ids, splits, key, tied), key)
        ties[first : first + len(splits) + 1] += np.count_nonzero(tied)
    return Cut(codes, tuple(ties.tolist()))


def _values_at(values: NDArray[np.float64], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values of the given ranks, 0 being the least, NaN apart."""

    def keys() -> Iterator[Keys]:
        for part in slices(len(values)):
            some = values[part]
            yield ordered_keys(some[~np.isnan(some)])

    return number_of(select(keys, ranks.tolist()))


def _place(
    codes: NDArray[np.int8],
    tied: NDArray[np.bool_],
    row_ids: NDArray[np.int64],
    first: int,
    limits: NDArray[np.uint64],
    key: np.uint64,
) -> None:
    """Spread tied rows over the buckets from ``first`` on: hashes from a limit on go one up."""
    for part in slices(len(codes)):
        here = tied[part]
        hashes = hash_rows(row_ids[part][here], key)
        codes[part][here] = first + np.searchsorted(limits, hashes, side="right")


def trim(
    codes: NDArray[np.int8], row_ids: NDArray[np.int64], size: int, key: np.uint64
) -> NDArray[np.int8]:
    """Cut every bucket to ``size`` rows, those of least hash; the others become ``LEFT_OUT``.

    Args:
        codes: (n,), as in :class:`Cut`, every bucket of at least ``size`` rows.
        row_ids: (n,).
        size: rows that every bucket keeps.
        key: key of the hash that chooses them.
    """
    trimmed = codes.copy()
    for code in range(int(codes.max()) + 1):
        bucket = codes == code
        if np.count_nonzero(bucket) > size:
            bucket &= ~least_of(row_ids, size, key, bucket)
            trimmed[bucket] = LEFT_OUT
    return trimmed
