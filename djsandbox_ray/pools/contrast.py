"""Which statistics are worth a trial: enough values, and buckets that differ in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.cuts import Cut, Read, cut_column, there
from djsandbox_ray.pools.order import hash_key


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


def contrast(cut: Cut) -> float:
    """Return the probability that a value of the highest bucket exceeds one of the lowest.

    The probability of superiority P(H > L) over all pairs, exact; ties count 0, so that two
    equal constants have contrast 0 (the Mann-Whitney statistic would give 1/2). Buckets are cut by
    rank: a pair that does not differ has the one value that both buckets may share.
    """
    pairs = cut.sizes[0] * cut.sizes[-1]
    return float(pairs - cut.level[0] * cut.level[1]) / pairs


def probe(name: str, read: Read, config: PoolConfig) -> Probe:
    """Cut the column ``name`` and say whether it is testable."""
    rows = missing = 0
    least, most = np.inf, -np.inf
    for _, values in read():
        numbers = there(values)
        rows, missing = rows + len(values), missing + len(values) - len(numbers)
        least = min(least, float(numbers.min(initial=np.inf)))
        most = max(most, float(numbers.max(initial=-np.inf)))
    present = rows - missing
    if present < config.min_coverage * rows:
        reason = (
            f"only {present} of {rows} rows have a value ({present / rows:.1%}); "
            f"min_coverage is {config.min_coverage:.1%}"
        )
        return Probe(missing, None, None, reason)
    if present < config.buckets:
        reason = f"only {present} rows have a value, fewer than the {config.buckets} buckets"
        return Probe(missing, None, None, reason)
    if least == most:
        reason = f"constant: every value is {least + 0.0:g}"  # 0 for -0, which equals it
        return Probe(missing, None, 0.0, reason)
    cut = cut_column(read, present, config.buckets, hash_key(config.seed, "ties", name))
    found = contrast(cut)
    if found < config.min_contrast:
        lowest, highest = config.bucket_names[0], config.bucket_names[-1]
        reason = (
            f"no contrast: a row of the {highest} bucket exceeds one of the {lowest} bucket with "
            f"probability {found:.3g}; min_contrast is {config.min_contrast:g}"
        )
        return Probe(missing, cut, found, reason)
    return Probe(missing, cut, found, None)
