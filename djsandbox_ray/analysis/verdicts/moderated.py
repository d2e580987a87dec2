"""A moderated variance: what control arms differ by, steadied by what trials within arms differ by.

An arm mean has variance V = a + w/S: a from the bucket, w between the trials of an arm, S seeds.
Two estimates bear on it: s2_B, the variance of the C control arms' means (C - 1 degrees of freedom,
E = V), and s2_W, the variance within arms (many more, E = w). How a draw is taken bounds a by
rho w (:attr:`Design.bucket_bound`), so that only g = V/w in [1/S, 1/S + rho] is unknown. As in
limma (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3) the noisy estimate borrows from the steady
one. Every half-width that scales with the scores is

    sqrt(s2_W (1 + 1/C)) H(R),    R = s2_B / s2_W.

H = constant sqrt(R) uses s2_B alone; a constant H uses s2_W alone, at its worst case. The H between
them that is narrowest while the family-wise error is at most alpha at every g is chosen by
:mod:`.shape`. With whole buckets (no bound) or one seed (no s2_W) only s2_B
is left: t = effect / sqrt(s2_B (1 + 1/C)) with the critical value of
:mod:`.dunnett`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.dunnett import critical_value
from djsandbox_ray.analysis.verdicts.shape import Shape, narrowest, quadrature

Floats = NDArray[np.float64]


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


@dataclass(frozen=True)
class Moderation:
    """Simultaneous intervals and p-values with the moderated variance.

    The first use with a design takes some tenths of a second; the result is kept.

    Raises:
        ValueError: alpha outside (0, 1); negative degrees of freedom.
    """

    design: Design
    alpha: float
    """Family-wise error rate over the pools of the design."""
    within_df: int | None = None
    """Degrees of freedom of s2_W; by default those of all arms of the design, complete."""
    shared: bool = True
    """Whether all pools are compared with the same mean of the controls. Not so where scores are
    missing: intervals are then a little wider, to hold under any correlation."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; a rate strictly between 0 and 1 is needed")
        if self.within_df is not None and self.within_df < 0:
            raise ValueError(f"within_df is {self.within_df}; at least 0 is needed")

    def half_width(self, between: ArrayLike, within: ArrayLike) -> Floats:
        """Return half-widths of the simultaneous intervals of complete pools.

        Args:
            between: s2_B, of any shape; see :func:`between_variance`.
            within: s2_W, of a shape that goes with it; see :func:`within_variance`. Not read where
                only s2_B counts.
        """
        error = self._error(between, within)
        if self._shape is not None:
            return error
        controls = self.design.controls
        shared = controls if self.shared else math.inf
        return error * critical_value(self.alpha, self.design.pools, shared, controls - 1)

    def p_values(self, effect: ArrayLike, between: ArrayLike, within: ArrayLike) -> Floats:
        """Return two-sided p-values of single pools, at the least favourable g.

        They use the same estimate of the variance as the intervals. An effect without any error
        gives 0, no effect 1.

        Args:
            effect: difference to the mean of the controls, of any shape.
            between: see :meth:`half_width`.
            within: see :meth:`half_width`.
        """
        size, error = np.broadcast_arrays(np.abs(effect), self._error(between, within))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(size == 0, 0.0, size / error)
        if self._shape is None:
            return np.asarray(2.0 * scipy.stats.t.sf(t, self.design.controls - 1))
        rule = quadrature(self.design, self._df)
        u = rule.bound * self._shape(rule.log_ratio)[:, None, None]
        worst = [(rule.weight * scipy.special.ndtr(-x * u)).sum(axis=(0, 2)).max() for x in t.flat]
        return np.minimum(2.0 * np.reshape(worst, t.shape), 1.0)

    @property
    def _df(self) -> int:
        arms, seeds = self.design.pools + self.design.controls, self.design.seeds
        return (arms - 1) * (seeds - 1) if self.within_df is None else self.within_df

    @cached_property
    def _shape(self) -> Shape | None:
        """H; None where only s2_B counts."""
        if self._df == 0 or math.isinf(self.design.bucket_bound):
            return None
        return narrowest(self.design, self.alpha, self._df, self.shared)

    def _error(self, between: ArrayLike, within: ArrayLike) -> Floats:
        """The half-width, or what it is proportional to where only s2_B counts."""
        scale = math.sqrt(1.0 + 1.0 / self.design.controls)
        s2_b = np.asarray(between, dtype=np.float64)
        if self._shape is None:
            return np.asarray(scale * np.sqrt(s2_b))
        # Above its last knot H grows like sqrt(R): the same as there, with s2_W from s2_B.
        last = self._shape.knots[-1]
        s2_w = np.maximum(within, s2_b * math.exp(-last))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.log(np.where(s2_w > 0, s2_b / s2_w, 1.0))
        return np.asarray(scale * np.sqrt(s2_w) * self._shape(np.minimum(log_ratio, last)))
