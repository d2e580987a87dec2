"""Spearman's rank correlation with an interval, for as few points as a run has pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

MIN_POINTS = 5
"""With fewer, the interval covers nearly everything."""


@dataclass(frozen=True)
class Association:
    """How two quantities go together."""

    rho: float
    low: float
    high: float
    """95 % interval."""


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Association | None:
    """Return Spearman's rho, or None for fewer than 5 points or a quantity that does not vary.

    The interval is Fisher's z with the variance (1 + rho^2 / 2) / (n - 3) (Bonett and Wright 2000,
    Psychometrika 65:23).

    Args:
        x: n finite numbers.
        y: n finite numbers.

    Raises:
        ValueError: lengths that differ.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} numbers; they must be pairs")
    if len(x) < MIN_POINTS or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    rho = float(stats.spearmanr(x, y).statistic)
    error = math.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    # A perfect order has no finite z: it is taken to be one exchange of neighbours away from it.
    nearest = 1 - 12 / (len(x) * (len(x) ** 2 - 1))
    z = math.atanh(math.copysign(min(abs(rho), nearest), rho))
    half = float(stats.norm.ppf(0.975)) * error
    return Association(rho, min(math.tanh(z - half), rho), max(math.tanh(z + half), rho))
