"""Which statistics are worth a trial: enough values, and buckets that differ in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.cuts import Cut, cut_column
from djsandbox_ray.pools.order import hash_key, slices


@dataclass(frozen=True, eq=False)
class Probe:
    """One statistic, cut and judged, before any other statistic is known."""

    missing: int
    """Rows without a value."""
    cut: Cut | None
    """None where the values do not suffice for a cut."""
    contrast: float | None
    reason: str | None
    """Why the statistic is not testable; None where it is."""


def contrast(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Return the probability that a value of ``high`` exceeds a value of ``low``.

    The probability of superiority P(H > L) over all pairs, exact; ties count 0, so that two
    equal constants have contrast 0 (the Mann-Whitney statistic would give 1/2).

    Args:
        low: (m,), m >= 1.
        high: (k,), k >= 1.
    """
    return _superiority(np.sort(low), [high])


def _superiority(ordered: NDArray[np.float64], high: Iterable[NDArray[np.float64]]) -> float:
    exceeded, count = 0, 0
    for some in high:
        exceeded += int(np.searchsorted(ordered, some, side="left").sum(dtype=np.int64))
        count += len(some)
    return float(exceeded) / (len(ordered) * count)


def probe(
    name: str, values: NDArray[np.float64], row_ids: NDArray[np.int64], config: PoolConfig
) -> Probe:
    """Cut the column ``name``, shape (n,), and say whether it is testable."""
    missing = int(np.count_nonzero(np.isnan(values)))
    present = len(values) - missing
    if present < config.min_coverage * len(values):
        reason = (
            f"only {present} of {len(values)} rows have a value ({present / len(values):.1%}); "
            f"min_coverage is {config.min_coverage:.1%}"
        )
        return Probe(missing, None, None, reason)
    if present < config.buckets:
        reason = f"only {present} rows have a value, fewer than the {config.buckets} buckets"
        return Probe(missing, None, None, reason)
    if np.nanmin(values) == np.nanmax(values):
        reason = f"constant: every value is {float(np.nanmin(values)):g}"
        return Probe(missing, None, 0.0, reason)
    cut = cut_column(values, row_ids, config.buckets, hash_key(config.seed, "ties", name))
    low = values[cut.codes == 0]
    low.sort()
    last = config.buckets - 1
    found = _superiority(
        low, (values[part][cut.codes[part] == last] for part in slices(len(values)))
    )
    if found < config.min_contrast:
        lowest, highest = config.bucket_names[0], config.bucket_names[-1]
        reason = (
            f"no contrast: a row of the {highest} bucket exceeds one of the {lowest} bucket with "
            f"probability {found:.3g}; min_contrast is {config.min_contrast:g}"
        )
        return Probe(missing, cut, found, reason)
    return Probe(missing, cut, found, None)
