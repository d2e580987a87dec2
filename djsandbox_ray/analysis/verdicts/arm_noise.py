"""The noise of arm means, arm by arm, and simultaneous intervals that allow for it.

The mean of arm i over S seeds has variance V_i = g w_i: w_i of its trials, whose estimates are
shrunk towards each other (:mod:`.variances`), and g = 1/S and what its bucket adds. How a draw is
taken bounds that by rho (:attr:`Design.bucket_bound`), so that g lies in [1/S, 1/S + rho]; for
whole buckets there is no bound. Where in there, the C control arms tell: given d0 and s0^2 their
means m_j scatter around a common one, mu, as

    m_j = mu + sqrt(g w~_j) t,    w~_j the shrunken variance, t a Student t with d0 + d degrees,

which is a likelihood for g, mu taken out (Student's t by iterated weights; Lange, Little & Taylor
1989, JASA 84:881). The prior is flat in log g up to the bound and falls off beyond it: should the
bound be wrong, the controls decide. Over the grid of d0, s0^2 and g, weighted by all of that, a
change d_i against the mean of the controls has the distribution of

    sqrt(g (w~_i + sum_j w~_j / C^2)) t,

again with d0 + d degrees of freedom. Half-widths are c times the root of the mean of those
variances, with c such that

    mean over the grid of 1 - prod_i P(|d_i| <= half-width_i) = alpha :

the family-wise error, changes being independent given the noise. They are positively correlated,
as all share the controls, which makes the error less (Sidak 1967, JASA 62:626). With one seed
nothing is known of single arms, all are taken to be alike, and t = d_i / sqrt(s2_B (1 + 1/C)) has
C - 1 degrees of freedom, s2_B the variance between the means of the controls.

That is an error on average over the prior. The tests simulate what it is where the noise is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.variances import (
    alike,
    arm_variances,
    prior_df,
    shrunken,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_BEYOND = 3.0
"""How fast the prior falls off beyond the bound, per unit of log g."""
_RATIOS = 24
"""Values of g."""
_NEGLIGIBLE = 1e-4
"""Weights below this share of the greatest are dropped."""
_FLOOR = 1e-4
"""Least variance of an arm over the mean of all: scores may be equal by rounding."""
_LOG_T = np.linspace(math.log(1e-3), math.log(1e8), 640)
"""Where the tails of t are tabulated."""


@dataclass(frozen=True, eq=False)
class ArmNoise:
    """What is known of the noise of arm means: possible variances, with their weights.

    Arms are pools, then controls.
    """

    weights: Floats
    """Sum 1, shape (nodes,)."""
    prior: Integers
    """Place of d0 in :func:`.variances.prior_df`, shape (nodes,)."""
    variances: Floats
    """V_i of an arm with all its scores, shape (nodes, arms)."""
    df: Integers
    """d of every arm, shape (arms,)."""

    @classmethod
    def of(
        cls, pools: Floats, controls: Floats, draw_share: float, bucket_share: float
    ) -> ArmNoise:
        """Infer the noise from the scores of a study.

        Args:
            pools: shape (pools, seeds); NaN where a score is missing, but one at least is there.
            controls: shape (controls, seeds), complete.
            draw_share: see :class:`.design.Design`.
            bucket_share: see there.
        """
        count, seeds = controls.shape
        rounding = rounding_of(controls)
        variances, df = _within(pools, controls)
        variances = np.where(np.sqrt(variances) <= rounding, 0.0, variances)
        means = controls.mean(axis=1)
        if means.std(ddof=1) <= rounding:
            means = np.full(count, means.mean())
        design = Design(max(len(pools), 1), count, seeds, draw_share, bucket_share)
        return cls.infer(variances, df, means, design)

    @classmethod
    def infer(
        cls, variances: Floats, df: Integers, control_means: Floats, design: Design
    ) -> ArmNoise:
        """Infer the noise from variances within arms and the means of controls.

        Args:
            variances: shape (arms,), controls last; not read where nothing is known.
            df: degrees of freedom of each, 0 where nothing is known.
            control_means: of the complete control arms, shape (controls,).
            design: how many seeds, and how draws are taken.
        """
        within = np.where(df > 0, variances, 0.0)
        if within.any():
            within = np.maximum(within, _FLOOR * within[df > 0].mean())
            found, least = shrunken(within, df), 1.0 / design.seeds
            most = least + design.bucket_bound
        else:
            # The variance of equal numbers may be a rounding error.
            spread = float(control_means.var(ddof=1)) if np.ptp(control_means) else 0.0
            df, least, most = np.zeros_like(df), 0.0, math.inf
            if not spread:
                return cls(np.ones(1), df[:1], np.zeros((1, len(df))), df)
            found = alike(spread, len(df))
        controls = found.variances[..., -len(control_means) :]
        log_g, log_prior = _ratios(controls, control_means, least, most)
        fit = _likelihood(controls, control_means, np.exp(log_g), found.d0 + df[-1])
        log_weight = found.log_likelihood[..., None] + fit + log_prior
        kept = np.nonzero(log_weight > log_weight.max() + math.log(_NEGLIGIBLE))
        weights = np.exp(log_weight[kept] - log_weight.max())
        variances = found.variances[kept[:2]] * np.exp(log_g[kept[2]])[:, None]
        return cls(weights / weights.sum(), kept[0], variances, df)

    @cached_property
    def mean(self) -> Floats:
        """The mean of V_i, shape (arms,)."""
        return np.asarray(self.weights @ self.variances)

    def half_widths(self, squares: Floats, alpha: float, family: int | None = None) -> Floats:
        """Return half-widths of simultaneous intervals, shape (contrasts,).

        Args:
            squares: of every contrast the square of each arm's weight, shape (contrasts, arms);
                more where an arm lacks scores.
            alpha: family-wise error rate, in (0, 1).
            family: contrasts over which the error is controlled, by default those given. More are
                taken to be as these are on average.

        Raises:
            ValueError: alpha out of range.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")
        variances = self.variances @ squares.T
        scale = np.asarray(np.sqrt(self.weights @ variances))
        noisy = scale > 0
        if not noisy.any():
            return scale
        ratio = np.log(scale[noisy]) - 0.5 * np.log(variances[:, noisy])
        df = self._df(squares[noisy])
        repeated = 1.0 if family is None else family / len(squares)

        def excess(log_c: float) -> float:
            outside = np.minimum(self._tails(ratio + log_c, df), 1.0 - np.finfo(float).epsneg)
            inside = repeated * np.log1p(-outside).sum(axis=1)
            return math.log(float(self.weights @ -np.expm1(inside)) / alpha)

        low, high = -2.0, 2.0
        while excess(high) > 0:
            low, high = high, high + 2.0
        return np.asarray(scale * math.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-6)))

    def p_values(self, effects: ArrayLike, squares: Floats) -> Floats:
        """Return the two-sided p-values of single contrasts, shape (contrasts,).

        An effect without any error gives 0, no effect 1.

        Args:
            effects: shape (contrasts,).
            squares: see :meth:`half_widths`.
        """
        size = np.abs(np.asarray(effects, dtype=np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(size == 0, 0.0, size / np.sqrt(self.variances @ squares.T))
            tails = self._tails(np.log(t), self._df(squares))
        return np.asarray(self.weights @ np.where(t == 0, 1.0, np.where(np.isinf(t), 0.0, tails)))

    def _df(self, squares: Floats) -> Integers:
        """D of contrasts: the least of the arms in it, shape (contrasts,)."""
        return np.asarray(np.where(squares > 0, self.df, self.df.max()).min(axis=1))

    def _tails(self, log_t: Floats, df: Integers) -> Floats:
        """P(|t| > exp(log_t)), shape (nodes, contrasts)."""
        step = _LOG_T[1] - _LOG_T[0]
        place = (np.clip(log_t, _LOG_T[0], _LOG_T[-1]) - _LOG_T[0]) / step
        left = np.minimum(place.astype(np.int64), len(_LOG_T) - 2)
        different, which = np.unique(df, return_inverse=True)
        table = np.stack([_log_tails(int(d)) for d in different])
        low = table[which, self.prior[:, None], left]
        high = table[which, self.prior[:, None], left + 1]
        return np.asarray(np.exp(low + (place - left) * (high - low)))


def rounding_of(scores: Floats) -> float:
    """Return the differences that rounding alone makes of equal scores, (arms, seeds)."""
    return float(sum(scores.shape) * np.finfo(np.float64).eps * np.abs(scores).max())


def against_controls(present: Integers, controls: int, seeds: int) -> Floats:
    """Return the squared weights of changes against the mean of controls, (pools, all arms).

    The mean of a pool over k of S seeds, and that of the controls over the same, have S/k times the
    variance at most: with b from the bucket and w per seed it is b + w/k, and b + w/S was inferred.

    Args:
        present: how many scores every pool has, at least one, shape (pools,).
        controls: complete control arms.
        seeds: S.
    """
    weights = np.hstack([np.eye(len(present)), np.full((len(present), controls), controls**-2.0)])
    return weights * (seeds / present)[:, None]


def _within(pools: Floats, controls: Floats) -> tuple[Floats, Integers]:
    """Variances within arms, and their degrees of freedom, (arms,)."""
    arms = np.concatenate([pools, controls])
    present = np.isfinite(arms).sum(axis=1)
    complete = present == arms.shape[1]
    variances = np.zeros(len(arms))
    if arms.shape[1] > 1:
        variances[complete] = arm_variances(arms[complete])
    # What a seed does to all is known from the complete arms, up to their noise.
    common, count = arms[complete].mean(axis=0), int(complete.sum())
    for arm in np.flatnonzero(~complete & (present > 1)):
        variances[arm] = np.nanvar(arms[arm] - common, ddof=1) / (1 + 1 / count)
    return variances, present - 1


def _ratios(controls: Floats, means: Floats, least: float, most: float) -> tuple[Floats, Floats]:
    """Values of log g, equally spaced, and the logarithm of their prior density, (ratios,)."""
    freedom = len(means) - 1
    error = math.sqrt(2.0 / freedom)
    seen = ((means - means.mean()) ** 2 / controls).sum(axis=-1) / freedom
    low = math.log(max(seen.min() * math.exp(-4.0 * error), least))
    high = math.log(max(seen.max() * math.exp(8.0 * error), least * 2.0))
    if math.isinf(most):
        log_g = np.linspace(low, high, _RATIOS)
        return log_g, np.zeros(_RATIOS)
    bound = math.log(most)
    log_g = np.linspace(math.log(least), max(bound + 2.0, high - 5.0 * error), _RATIOS)
    return log_g, -_BEYOND * np.maximum(log_g - bound, 0.0)


def _likelihood(controls: Floats, means: Floats, g: Floats, df: Floats) -> Floats:
    """Logarithm of the likelihood of g, mu taken out, shape (d0, levels, ratios)."""
    nu = df[:, None, None, None]
    scale = controls[:, :, None, :] * g[:, None]
    mu = np.full((*scale.shape[:-1], 1), np.median(means))
    for _ in range(5):
        weight = (nu + 1) / (nu + (means - mu) ** 2 / scale) / scale
        mu = (weight * means).sum(axis=-1, keepdims=True) / weight.sum(axis=-1, keepdims=True)
    density = -0.5 * np.log(scale) - (nu + 1) / 2 * np.log1p((means - mu) ** 2 / scale / nu)
    density += (
        scipy.special.gammaln((nu + 1) / 2) - scipy.special.gammaln(nu / 2) - 0.5 * np.log(nu)
    )
    information = ((nu + 1) / (nu + 3) / scale).sum(axis=-1)
    return np.asarray(density.sum(axis=-1) - 0.5 * np.log(information))


@lru_cache(maxsize=64)
def _log_tails(df: int) -> Floats:
    """Logarithm of P(|t| > u) with d0 + df degrees of freedom, shape (d0, u)."""
    d0, _ = prior_df()
    tails = 2.0 * scipy.special.stdtr(d0[:, None] + df, -np.exp(_LOG_T))
    return np.asarray(np.log(np.maximum(tails, np.finfo(float).tiny)))
