"""Arms that do not vary alike: each arm's own variance, squeezed towards that of all arms.

Trials of a good pool may scatter more than those of the controls, those of a ruined one hardly at
all. Where arms plainly differ, the controls stand on their own, and as in limma (Smyth 2004,
section 6.2) a pool's true variance is taken to be s0^2 d0 / chi2_d0, and its estimate from
d = seeds - 1 degrees of freedom is squeezed towards s0^2 with the weight d0:

    (d0 s0^2 + d s2_pool) / (d0 + d),

d0 and s0^2 from the mean and variance of log s2 over all arms. With few seeds all of that is noisy:
arms count as different only where the variance of log s2, or the ratio of the pools' variance to
that of the controls, is beyond a limit that studies with equal arms rarely pass: 0.1 to 0.2 % of
them with 2 seeds and 0.6 to 1.7 % with 3 or 5, as simulated with 5 to 19 controls (the first limit
takes for normal what is skew). A ruined self-test among the pools makes that more. Otherwise all
arms share one variance, and nothing is lost. Three seeds cannot show that a few pools are twice as
noisy as the rest; the tests say what that costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.moderated import arm_variances, within_variance

Floats = NDArray[np.float64]

_RARE = 0.001
"""How often equal arms are to look unequal, nominally, by each of the two signs."""
_FLOOR = 1e-4
"""Least variance of an arm over the mean of all: scores may be equal by rounding."""


@dataclass(frozen=True)
class Squeezed:
    """The variance within arms, as far as they share one."""

    controls: Floats
    """w of the control arms, shape (...)."""
    pools: Floats
    """w of every pool, shape (..., pools). At least that of the controls: a steady pool is no
    reason for a narrower interval."""
    df: NDArray[np.int64]
    """Degrees of freedom of ``controls``, shape (...): those of all arms, or their own."""


def squeeze(pools: Floats, controls: Floats) -> Squeezed:
    """Estimate the variances within arms.

    Args:
        pools: complete scores of shape (..., pools, seeds); there may be none.
        controls: complete scores of shape (..., controls, seeds), at least 2 arms and 2 seeds.
    """
    count, seeds = controls.shape[-2:]
    arms = np.concatenate([pools, controls], axis=-2)
    variances = arm_variances(arms)
    d, all_df, own_df = seeds - 1, (arms.shape[-2] - 1) * (seeds - 1), (count - 1) * (seeds - 1)
    pooled = variances.mean(axis=-1)
    logs = np.log(np.maximum(variances, _FLOOR * np.where(pooled > 0, pooled, 1.0)[..., None]))
    own = variances[..., : pools.shape[-2]]
    equal = _alike(logs, d) & _same_level(own, variances[..., pools.shape[-2] :], d)
    d0, prior = _prior(logs, d)
    shared = np.where(equal, pooled, within_variance(controls))
    weight = np.where(equal, 0.0, d0)[..., None]
    squeezed = (weight * prior[..., None] + d * own) / (weight + d)
    return Squeezed(
        controls=shared,
        pools=np.where(equal[..., None], 0.0, squeezed).clip(min=shared[..., None]),
        df=np.where(equal, all_df, own_df),
    )


def _alike(logs: Floats, d: int) -> NDArray[np.bool_]:
    """Whether log variances with d degrees of freedom differ no more than chance makes them."""
    n, expected = logs.shape[-1], scipy.special.polygamma(1, d / 2)
    noise = math.sqrt(scipy.special.polygamma(3, d / 2) / n + 2 * expected**2 / (n - 1))
    return np.asarray(logs.var(axis=-1, ddof=1) <= expected + scipy.stats.norm.isf(_RARE) * noise)


def _same_level(pools: Floats, controls: Floats, d: int) -> NDArray[np.bool_]:
    """Whether pools as a whole vary as the controls do: an F test."""
    if not pools.shape[-1]:
        return np.ones(pools.shape[:-1], dtype=bool)
    df = d * pools.shape[-1], d * controls.shape[-1]
    low, high = scipy.stats.f.ppf([_RARE / 2, 1 - _RARE / 2], *df)
    level, reference = pools.mean(axis=-1), controls.mean(axis=-1)
    return np.asarray((low * reference <= level) & (level <= high * reference))


def _prior(logs: Floats, d: int) -> tuple[Floats, Floats]:
    """d0 and s0^2 from the logarithms of variances with d degrees of freedom each."""
    excess = logs.var(axis=-1, ddof=1) - scipy.special.polygamma(1, d / 2)
    half = _inverse_trigamma(np.maximum(excess, 1e-3))
    bias = (
        scipy.special.digamma(d / 2) - math.log(d / 2) - scipy.special.digamma(half) + np.log(half)
    )
    return 2 * half, np.exp(logs.mean(axis=-1) - bias)


def _inverse_trigamma(x: Floats) -> Floats:
    """Newton's method on 1/trigamma, which is nearly linear (Smyth 2004, appendix)."""
    y = 0.5 + 1.0 / x
    for _ in range(10):
        value = scipy.special.polygamma(1, y)
        y = y + value * (1.0 - value / x) / scipy.special.polygamma(2, y)
    return np.asarray(y)
