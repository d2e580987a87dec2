"""The half-width as a function of two variances: narrow, with a bounded family-wise error.

:mod:`.moderated` says what s2_B, s2_W, g, R and H are. log H is piecewise
linear in log R. It is chosen by a small constrained optimisation: the mean half-width, over that of
the better of s2_B alone and s2_W alone, is least at the worst of a few shares of training noise,
while at every g

    P(max |t_i| > H(R)) = E F(sqrt(s2_W / g) H(R)) <= alpha,    F(u) = P(max over pools |N_i| > u),

an integral over two chi variables, done by quadrature. At the least favourable g it is alpha. Far
above the interval of g, H grows like sqrt(R): should the bound on the bucket's variance be wrong,
s2_B decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.dunnett import critical_value

Floats = NDArray[np.float64]

_DATA_SHARES = (0.2, 0.5, 0.8)
"""Shares of a draw's variance due to its samples, not training, at which widths are judged."""
_RATIOS, _KNOTS = 13, 9
"""Values of g at which the error is bounded; corners of log H."""
_STEEPEST = 1.6
"""Greatest slope of log H in log R: a small R must not make intervals vanish."""
_NORMALS = np.linspace(0.0, 12.0, 2401)
"""Where F is tabulated; beyond, it is nothing."""


@dataclass(frozen=True)
class Shape:
    """H: log H is piecewise linear in log R, level below the knots, of slope 1/2 above them."""

    knots: Floats
    """In log R, increasing."""
    theta: Floats
    """log H at the first knot, and the slopes between the knots."""

    def basis(self, log_ratio: Floats) -> Floats:
        """Return the derivatives of log H by theta, shape (..., knots)."""
        rises = np.clip(log_ratio[..., None] - self.knots[:-1], 0.0, np.diff(self.knots))
        return np.concatenate([np.ones_like(rises[..., :1]), rises], axis=-1)

    def __call__(self, log_ratio: Floats) -> Floats:
        """Return H."""
        above = np.maximum(log_ratio - self.knots[-1], 0.0)
        return np.asarray(np.exp(self.basis(log_ratio) @ self.theta + 0.5 * above))


@dataclass(frozen=True)
class Quadrature:
    """Nodes and weights for expectations over s2_B and s2_W at several g, in units of w."""

    g: Floats
    """First the interval of g, ends included; then g at each of the data shares."""
    log_ratio: Floats
    """log R, shape (ratios,)."""
    weight: Floats
    """Probabilities, shape (ratios, g, chi)."""
    bound: Floats
    """sqrt(s2_W / g), same shape: an error is made when |N| exceeds that times H(R)."""

    def mean_width(self, h: Floats) -> Floats:
        """Return E sqrt(s2_W / g) H(R) at every g, for ``h`` = H at the ratios."""
        return np.asarray(np.einsum("rgt,rgt,r->g", self.weight, self.bound, h))


@lru_cache(maxsize=64)
def quadrature(design: Design, within_df: int) -> Quadrature:
    """Return the rule for a design with a finite bound and at least one degree of freedom for s2_W.

    log R is summed by the trapezoidal rule. Given R, the sum of squares of both estimates, s2_B in
    units of V and s2_W in units of w, is chi-squared and independent of R; its root is summed as in
    :mod:`.dunnett`.
    """
    m, least = design.draw_share, 1.0 / design.seeds
    data = np.asarray(_DATA_SHARES)
    shares = least + data * m * (1 - design.bucket_share) / (1 - data * m)
    g = np.append(np.geomspace(least, least + design.bucket_bound, _RATIOS), shares)
    df = np.array([design.controls - 1.0, within_df])
    low = math.log(least) - 1.0 - 32.0 / df[0]
    high = math.log(g.max()) + 2.0 + 32.0 / df[1]
    x = np.linspace(low, high, math.ceil((high - low) / 0.12))
    r = np.exp(x)[:, None] / g
    log_density = 0.5 * df[0] * np.log(r) - 0.5 * df.sum() * np.log1p(df[0] * r / df[1])
    density = np.exp(log_density - log_density.max(axis=0))
    density /= density.sum(axis=0)
    reach = 30.0 / df.sum()
    y = np.linspace(-math.sqrt(reach) - reach, math.sqrt(reach), 16)
    chi = np.exp(df.sum() * (y - 0.5 * np.exp(2.0 * y) + 0.5))
    bound = np.sqrt(df.sum() / (df[0] * r + df[1]) / g)[..., None] * np.exp(y)
    return Quadrature(g, x, density[..., None] * chi / chi.sum(), bound)


@lru_cache(maxsize=256)
def narrowest(design: Design, alpha: float, within_df: int, shared: bool) -> Shape:
    """Choose H.

    Args:
        design: with a finite bound.
        alpha: family-wise error rate, in (0, 1).
        within_df: degrees of freedom of s2_W, at least 1.
        shared: whether all pools are compared with the same mean of the controls; else the error
            holds under any correlation of the pools.
    """
    controls = design.controls if shared else math.inf
    rule = quadrature(design, within_df)
    alone = _better_alone(design, alpha, within_df, controls, rule)
    search = _Search(rule, _any_beyond(design.pools, controls), alpha, alone)
    starts = [search.calibrated(np.repeat([1.0, b], [1, _KNOTS - 1])) for b in (0.0, 0.25, 0.5)]
    start = min(starts, key=search.worst)
    found = search.optimised(start)
    # The optimiser is trusted with the width only; the error is made right here.
    best = search.calibrated(found) if np.isfinite(found).all() else start
    return search.shape(min(best, start, key=search.worst))


class _Search:
    """What is minimised, and under which constraints, as functions of theta."""

    def __init__(
        self, rule: Quadrature, beyond: tuple[Floats, Floats], alpha: float, alone: Floats
    ) -> None:
        self._rule, self._alpha, self._alone = rule, alpha, alone
        self._beyond, self._beyond_slope = beyond
        least, greatest = rule.g[0], rule.g[_RATIOS - 1]
        self._knots = np.linspace(math.log(least) - 1.2, math.log(greatest) + 1.0, _KNOTS)
        self._basis = self.shape(np.zeros(_KNOTS)).basis(rule.log_ratio)

    def shape(self, theta: Floats) -> Shape:
        return Shape(self._knots, theta)

    def error(self, theta: Floats) -> Floats:
        """Family-wise error over alpha at every g of the interval."""
        return np.asarray(self._mean(theta, self._beyond).sum(axis=0) / self._alpha)

    def error_slope(self, theta: Floats) -> Floats:
        slope = self._mean(theta, _NORMALS * self._beyond_slope)
        return np.asarray(slope.T @ self._basis / self._alpha)

    def _mean(self, theta: Floats, table: Floats) -> Floats:
        """The part of every ratio in the mean of a tabulated function of the bound."""
        rule, h = self._rule, self.shape(theta)(self._rule.log_ratio)
        values = np.interp(rule.bound[:, :_RATIOS] * h[:, None, None], _NORMALS, table)
        return np.asarray((rule.weight[:, :_RATIOS] * values).sum(axis=2))

    def regret(self, theta: Floats) -> Floats:
        """Mean half-width over that of the better of both variances alone, by data share."""
        h = self.shape(theta)(self._rule.log_ratio)
        return self._rule.mean_width(h)[_RATIOS:] / self._alone

    def regret_slope(self, theta: Floats) -> Floats:
        h = self.shape(theta)(self._rule.log_ratio)
        slope = [self._rule.mean_width(h * b)[_RATIOS:] / self._alone for b in self._basis.T]
        return np.stack(slope, axis=-1)

    def worst(self, theta: Floats) -> float:
        return float(self.regret(theta).max())

    def calibrated(self, theta: Floats) -> Floats:
        """Shift log H so that the greatest error is alpha."""

        def excess(shift: float) -> float:
            return math.log(self.error(theta + shift * np.eye(_KNOTS)[0]).max())

        shift = scipy.optimize.brentq(excess, -6.0, 6.0, xtol=1e-6)
        return np.asarray(theta + shift * np.eye(_KNOTS)[0])

    def optimised(self, start: Floats) -> Floats:
        """Minimise the greatest regret, the last variable, by sequential quadratic programming."""
        last = np.append(np.zeros(_KNOTS), 1.0)
        worst = np.ones((len(self._alone), 1))
        found = scipy.optimize.minimize(
            lambda x: x[-1],
            np.append(start, self.worst(start)),
            jac=lambda x: last,
            bounds=[(None, None), *[(0.0, _STEEPEST)] * (_KNOTS - 1), (None, None)],
            constraints={
                "type": "ineq",
                "fun": lambda x: np.append(1 - self.error(x[:-1]), x[-1] - self.regret(x[:-1])),
                "jac": lambda x: np.block(
                    [
                        [-self.error_slope(x[:-1]), np.zeros((_RATIOS, 1))],
                        [-self.regret_slope(x[:-1]), worst],
                    ]
                ),
            },
            method="SLSQP",
            options={"maxiter": 100, "ftol": 1e-6},
        )
        return np.asarray(found.x[:-1])


def _better_alone(
    design: Design, alpha: float, within_df: int, controls: float, rule: Quadrature
) -> Floats:
    """Mean half-widths at the data shares of the better of s2_B alone and s2_W alone."""
    between = critical_value(alpha, design.pools, controls, design.controls - 1)
    within = critical_value(alpha, design.pools, controls, within_df)
    widths = [
        between * rule.mean_width(np.exp(0.5 * rule.log_ratio)),
        within * rule.mean_width(np.full_like(rule.log_ratio, math.sqrt(rule.g[_RATIOS - 1]))),
    ]
    return np.asarray(np.minimum(*widths)[_RATIOS:])


@lru_cache(maxsize=64)
def _any_beyond(pools: int, controls: float) -> tuple[Floats, Floats]:
    """F(u) = P(max over pools of |N_i| > u) at the tabulated u, and its derivative."""
    rho = 1.0 / (1.0 + controls)
    z, weights = scipy.special.roots_hermitenorm(64)
    u, shift = _NORMALS[:, None], math.sqrt(rho) * z
    scale = math.sqrt(1.0 - rho)
    outside = scipy.special.ndtr((shift - u) / scale) + scipy.special.ndtr((-shift - u) / scale)
    outside = np.minimum(outside, 1.0 - np.finfo(float).epsneg)
    table = -np.expm1(pools * np.log1p(-outside)) @ weights / weights.sum()
    return table, np.gradient(table, _NORMALS)
