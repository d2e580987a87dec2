"""Many-to-one comparisons: the distribution of the greatest |t| when many pools share controls.

With P pools and C control arms, all arm means independent normal with one variance,

    t_i = (x_i - mean of the C controls) / (S * sqrt(1 + 1/C)),    i = 1..P,

S^2 an independent estimate of the variance of an arm mean with ``df`` degrees of freedom. All t_i
share the control mean (equal correlation rho = 1 / (1 + C)) and S. Conditional on both they are
independent, so that P(max |t_i| <= c) is a double integral (Dunnett 1955, JASA 50:1096, two-sided)

    E_s E_z [Phi((c s + sqrt(rho) z) / sqrt(1 - rho)) - Phi((-c s + sqrt(rho) z) / sqrt(1 - rho))]^P

with z standard normal and s = S / sigma, a chi variable over sqrt(df). It is computed by a fixed
quadrature in about a millisecond, without random numbers. ``controls=math.inf`` (rho = 0) gives
the studentized maximum modulus, an upper bound for max |t_i| under *any* correlation.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

_NORMAL_NODES = 64
_CHI_NODES = 400
_CUT = 45.0
"""The chi density is cut where it is exp(-45) of its peak."""


@lru_cache(maxsize=1024)
def critical_value(alpha: float, pools: int, controls: float, df: float) -> float:
    """Return the c that max |t_i| exceeds with probability ``alpha`` under the null hypothesis.

    Args:
        alpha: family-wise error rate, in (0, 1).
        pools: number of pools compared, at least 1. One pool gives Student's t.
        controls: number of control arms whose mean is shared, at least 1; ``math.inf`` for
            uncorrelated t_i.
        df: degrees of freedom of the variance estimate, at least 1.

    Raises:
        ValueError: an argument outside its range.
    """
    for name, value in (("pools", pools), ("controls", controls), ("df", df)):
        if not value >= 1:
            raise ValueError(f"{name} is {value}; at least 1 is needed")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")
    # One pool alone bounds the quantile from below, Bonferroni's inequality from above.
    low = 0.999 * scipy.stats.t.isf(alpha / 2, df)
    high = 1.001 * scipy.stats.t.isf(alpha / (2 * pools), df)

    def excess(c: float) -> float:
        return math.log(_exceedance(c, pools, controls, df) / alpha)

    return float(scipy.optimize.brentq(excess, low, high, xtol=1e-12, rtol=1e-12))


def _exceedance(c: float, pools: int, controls: float, df: float) -> float:
    """P(max |t_i| > c) for c > 0, with a small relative error also far out in the tail."""
    rho = 1.0 / (1.0 + controls)
    s, s_weights = _chi_rule(df)
    z, z_weights = _normal_rule()
    shift = math.sqrt(rho) * z[None, :]
    bound = c * s[:, None]
    scale = math.sqrt(1.0 - rho)
    outside = scipy.special.ndtr((-bound + shift) / scale) + scipy.special.ndtr(
        (-bound - shift) / scale
    )
    outside = np.minimum(outside, 1.0 - np.finfo(float).epsneg)
    any_outside = -np.expm1(pools * np.log1p(-outside))
    return float(s_weights @ any_outside @ z_weights)


@lru_cache(maxsize=1)
def _normal_rule() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Hermite nodes and weights for the expectation over a standard normal."""
    nodes, weights = scipy.special.roots_hermitenorm(_NORMAL_NODES)
    return nodes, weights / weights.sum()


@lru_cache(maxsize=64)
def _chi_rule(df: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights for the expectation over s = chi_df / sqrt(df).

    The trapezoidal rule in x = log s: the density exp(df (x - exp(2x)/2)) is analytic and vanishes
    at both ends, where that rule converges exponentially; s itself would have a root at 0.
    """
    reach = _CUT / df
    low = -(math.sqrt(reach) + reach)
    high = min(math.sqrt(reach), 0.5 * math.log(4.0 * reach + 2.0))
    x = np.linspace(low, high, _CHI_NODES)
    weights = np.exp(df * (x - 0.5 * np.exp(2.0 * x) + 0.5))
    return np.exp(x), weights / weights.sum()
