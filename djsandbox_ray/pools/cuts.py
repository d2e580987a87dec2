"""Exact order statistics of one column: which bucket a row belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.pools.hashing import hash_rows, least

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
    nothing is sorted. NaN means that a row has no value. Infinities are ordinary values: they
    have an order, which is all that a cut needs.

    Args:
        values: (n,), at least ``buckets`` of them not NaN.
        row_ids: (n,), all different.
        buckets: number of buckets.
        key: key of the hash that splits ties.
    """
    present = np.flatnonzero(~np.isnan(values))
    found = values[present]
    ranks = cut_ranks(len(found), buckets)
    bounds = np.partition(found, ranks)[ranks]
    inner = np.searchsorted(bounds, found, side="right").astype(np.int8)
    ties = np.zeros(buckets, dtype=np.int64)
    for bound in np.unique(bounds):
        tied = np.flatnonzero(found == bound)
        below = int(np.count_nonzero(found < bound))
        splits = ranks[bounds == bound] - below
        splits = splits[splits > 0]
        if len(splits) == 0:
            continue  # the cut lies between two values: nothing is tied across it
        order = np.argpartition(hash_rows(row_ids[present[tied]], key), splits)
        places = below + np.arange(len(tied))
        placed = np.searchsorted(ranks, places, side="right").astype(np.int8)
        inner[tied[order]] = placed
        ties[placed[0] : placed[-1] + 1] += len(tied)
    codes = np.full(len(values), NO_VALUE, dtype=np.int8)
    codes[present] = inner
    return Cut(codes, tuple(ties.tolist()))


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
        rows = np.flatnonzero(codes == code)
        if len(rows) > size:
            trimmed[rows] = LEFT_OUT
            trimmed[rows[least(row_ids[rows], size, key)]] = code
    return trimmed
