"""How much the trials of an arm scatter, and what all arms together say of the scatter of each.

With w the variance of the trials of an arm and d = seeds - 1 degrees of freedom, its estimate s2 is
w chi2_d / d: with three seeds wrong by a factor of two as a rule. Over the arms, w is taken to be
s0^2 d0 / chi2_d0, as in limma (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3). Given s2 an arm's w
then is (d0 s0^2 + d s2) / (d0 + d), with d0 + d degrees of freedom, so that an arm's mean over
the root of that is a t with d0 + d: an arm borrows from all others, the more the less they differ.

limma sets d0 to the value that fits the mean and variance of log s2. Twenty arms of three trials
cannot tell d0 = infinity (all alike) from d0 = 6: a single value is too bold in half of all
studies. So d0 and s0^2 are known here by their likelihood (s2 / s0^2 is F with d and d0 degrees of
freedom; Smyth 2004, section 4) over a grid, under a prior for

    tau^2 = trigamma(d0 / 2),

the variance of log w: half a normal distribution for tau, and beside it a chance that all arms are
alike. What is computed from them is averaged over the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_ALIKE = 0.1
"""Prior chance that all arms are equally noisy."""
_TAU = 1.5
"""Scale of tau where they are not. Published tables have standard deviations between arms whose
logarithms vary by up to 1: tau is twice that."""
_TAUS = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2, 2.7])
_INFINITE = 1e6
"""d0 of arms that are alike, as good as infinite."""
_LEVELS = np.linspace(-2.5, 2.5, 5)
"""Where s0^2 is looked at, in standard errors of its logarithm around the most likely one."""


def between_variance(controls: ArrayLike) -> Floats:
    """Return s2_B, the variance between arm means, of shape (...).

    Args:
        controls: complete scores of shape (..., controls, seeds).
    """
    means = np.asarray(controls, dtype=np.float64).mean(axis=-1)
    return np.asarray(means.var(axis=-1, ddof=1))


def within_variance(arms: ArrayLike) -> Floats:
    """Return s2_W, the pooled variance within arms without what a seed does to all, shape (...).

    It is the mean square of the interaction of arms and seeds, with (arms - 1)(seeds - 1) degrees
    of freedom; NaN where there are none.

    Args:
        arms: complete scores of shape (..., arms, seeds).
    """
    return np.asarray(arm_variances(arms).mean(axis=-1))


def arm_variances(arms: ArrayLike) -> Floats:
    """Return the variance within each arm without what a seed does to all, shape (..., arms).

    Their mean is s2_W. NaN with one arm or one seed.

    Args:
        arms: complete scores of shape (..., arms, seeds).
    """
    scores = np.asarray(arms, dtype=np.float64)
    count, seeds = scores.shape[-2:]
    if count < 2 or seeds < 2:
        return np.full(scores.shape[:-1], math.nan)
    residuals = scores - scores.mean(axis=-1, keepdims=True)
    residuals = residuals - residuals.mean(axis=-2, keepdims=True)
    return np.asarray((residuals**2).sum(axis=-1) / ((seeds - 1) * (1 - 1 / count)))


def inverse_trigamma(x: ArrayLike) -> Floats:
    """Return the y with trigamma(y) = x, for positive x.

    Newton's method on 1/trigamma, which is nearly linear and convex (Smyth 2004, appendix).
    """
    target = np.asarray(x, dtype=np.float64)
    y = 0.5 + 1.0 / target
    for _ in range(20):
        value = scipy.special.polygamma(1, y)
        y = y + value * (1.0 - value / target) / scipy.special.polygamma(2, y)
    return np.asarray(y)


@lru_cache(maxsize=1)
def prior_df() -> tuple[Floats, Floats]:
    """Return the values of d0 that are considered, and the logarithms of their prior chances."""
    half_normal = np.exp(-0.5 * (_TAUS[1:] / _TAU) ** 2) * np.gradient(_TAUS)[1:]
    chance = np.append(_ALIKE, (1 - _ALIKE) * half_normal / half_normal.sum())
    d0 = np.append(_INFINITE, 2.0 * inverse_trigamma(_TAUS[1:] ** 2))
    return d0, np.log(chance)


@dataclass(frozen=True)
class Shrunken:
    """The variances of arms on the grid of d0 (:func:`prior_df`) and s0^2."""

    d0: Floats
    """Shape (d0,): the first of :func:`prior_df`."""
    log_likelihood: Floats
    """With the prior, shape (d0, levels)."""
    variances: Floats
    """(d0 s0^2 + d s2) / (d0 + d), shape (d0, levels, arms)."""


def shrunken(variances: Floats, df: NDArray[np.int64]) -> Shrunken:
    """Shrink the variances of arms towards a common one.

    Args:
        variances: s2, positive, shape (arms,); not read where nothing is known of an arm.
        df: d of every arm, shape (arms,); 0 where nothing is known; not 0 for all.
    """
    known = df > 0
    s2, d = variances[known], df[known]
    d0, log_prior = prior_df()
    d0 = d0[:, None]
    # The most likely s0^2: limma's, from the mean of log s2, and steps of Fisher's scoring.
    bias = (
        scipy.special.digamma(d / 2)
        - np.log(d / 2)
        - scipy.special.digamma(d0 / 2)
        + np.log(d0 / 2)
    )
    center = (np.log(s2) - bias).mean(axis=1, keepdims=True)
    information = (d * d0 / (2 * (d + d0 + 2))).sum(axis=1, keepdims=True)
    for _ in range(4):
        y = d * s2 * np.exp(-center) / d0
        score = ((d + d0) / 2 * y / (1 + y) - d / 2).sum(axis=1, keepdims=True)
        center = center + np.clip(score / information, -1.0, 1.0)
    level = center + _LEVELS / np.sqrt(information)
    y = d * s2 / (d0 * np.exp(level))[..., None]
    shape = scipy.special.gammaln((d + d0) / 2) - scipy.special.gammaln(d0 / 2) - d / 2 * np.log(d0)
    fit = (-d / 2 * level[..., None] - (d + d0[..., None]) / 2 * np.log1p(y)).sum(axis=2)
    fit += shape.sum(axis=1, keepdims=True) - 0.5 * np.log(information) + log_prior[:, None]
    prior = d0 * np.exp(level)
    seen = np.where(known, df * variances, 0.0)
    return Shrunken(d0[:, 0], fit, (prior[..., None] + seen) / (d0[..., None] + df))


def alike(variance: float, arms: int) -> Shrunken:
    """Return one known variance for all arms."""
    d0, _ = prior_df()
    return Shrunken(d0[:1], np.zeros((1, 1)), np.full((1, 1, arms), variance))
