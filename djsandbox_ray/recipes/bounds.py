"""Where a bound may lie so that rounding errors move no row across it.

A statistic that a model computes differs by about 1e-8 between batch sizes or machines. A bound
that equals a row's value would keep that row on one machine and drop it on another, so bounds are
put midway between the outermost value inside and the nearest one outside. Whole numbers have no
such noise: their bounds stay whole, which is also all that some operators accept.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.cuts import cut_ranks
from djsandbox_ray.pools.eligible import inside

Bounds = tuple[float | None, float | None]
Column = NDArray[np.float64]


def finite(values: Column) -> Column:
    """Return the values that are there.

    Raises:
        BadInput: there is none.
    """
    found = values[np.isfinite(values)]
    if not len(found):
        raise BadInput("a statistic without any value has no bounds")
    return found


def settle(values: Column, low: float | None, high: float | None) -> Bounds:
    """Move bounds to safe places without changing which rows are inside.

    A bound at the outermost value of all has nothing to keep out: it is left open.

    Args:
        values: (n,), the statistic; NaN for no value.
        low: keep values from here; None for no bound.
        high: keep values up to here; None for no bound.
    """
    found = finite(values)
    return (
        None if low is None else _settled_low(found, low),
        None if high is None else _negative(_settled_low(-found, -high)),
    )


def bucket_bounds(values: Column, buckets: int, first: int, last: int) -> Bounds:
    """Return the bounds of neighbouring buckets, open where no bucket lies beyond.

    The cuts are those of :func:`djsandbox_ray.pools.cuts.cut_column`, of whole buckets: pools are
    trimmed to one size, their cuts are not. Where a cut lies within rows of one value, a range
    cannot split them as the pools did: it keeps all of them, or none if more of them lie beyond
    the cut (unless nothing else is left).

    Args:
        values: (n,), the statistic of the rows that pools are made of.
        buckets: number of buckets of the statistic.
        first: code of the lowest bucket to keep.
        last: code of the highest bucket to keep.
    """
    found = finite(values)
    ranks = cut_ranks(len(found), buckets)
    for all_ties in (False, True):
        low = None if first == 0 else _above(found, int(ranks[first - 1]), all_ties)
        high = None
        if last < buckets - 1:
            # Seen from above, the last bucket begins where the others end.
            high = _negative(_above(-found, len(found) - int(ranks[last]), all_ties))
        if np.any(inside(found, low, high)):
            break
    return low, high


def _settled_low(values: Column, bound: float) -> float | None:
    if values.min() == bound:
        return None
    if _whole(values):
        return float(math.ceil(bound))
    below, above = values[values < bound], values[values >= bound]
    if not len(below) or not len(above):
        return bound
    return _midway(float(below.max()), float(above.min()))


def _above(values: Column, rank: int, all_ties: bool) -> float | None:
    """Return the lower bound of the values from ``rank`` on, in order."""
    outer, inner = (float(v) for v in np.partition(values, [rank - 1, rank])[rank - 1 : rank + 1])
    if outer == inner:
        less, greater = values[values < inner], values[values > inner]
        beyond = rank - len(less)
        within = len(values) - len(greater) - rank
        if all_ties or within >= beyond or not len(greater):
            if not len(less):
                return None
            outer = float(less.max())
        else:
            inner = float(greater.min())
    return inner if _whole(values) else _midway(outer, inner)


def _midway(outer: float, inner: float) -> float:
    """Return the middle of two values, or the inner one where no number lies between them."""
    middle = outer + (inner - outer) / 2
    return middle if outer < middle < inner else inner


def _negative(bound: float | None) -> float | None:
    return None if bound is None else -bound + 0.0  # 0.0, never -0.0


def _whole(values: Column) -> bool:
    return bool(np.all(values == np.rint(values)))
