"""Predictions from control arms, with the uncertainty that a few arms leave.

With V the true variance of an arm's mean, x the true ratio of the variance within arms to V, and b
and w the estimates of V and of that variance, independent and chi-square with nu_b and nu_w degrees
of freedom, the posterior under the prior 1 / (V within) is

    p(x) ~ x^(nu_b/2 - 1) (nu_b b x + nu_w w)^(-(nu_b + nu_w)/2)  for x that the bounds allow,
    V | x ~ (nu_b b + nu_w w / x) / chi2(nu_b + nu_w)

(the one-way random-effects model with its constraint, as in Box & Tiao, Bayesian Inference in
Statistical Analysis, 1973, section 5.2; here with an upper bound too, that of
:attr:`~djsandbox_ray.analysis.verdicts.design.Design.bucket_bound`). What is predicted is a median:
what follows from b and w themselves is too small by a tenth where the bucket's part is large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.planning.power import detectable_effect, half_width_rule, rescale
from djsandbox_ray.analysis.verdicts.design import Design

Floats = NDArray[np.float64]

_NODES = 12


@dataclass(frozen=True)
class CredibleRange:
    """A prediction."""

    value: float
    """The median: the truth is as likely above as below."""
    low: float
    high: float
    """The truth lies from low to high with a probability of 90 %."""


@dataclass(frozen=True)
class Posterior:
    """What is known of the noise: nodes for x, and V given x, of distribution q / chi2(df)."""

    measured: Design
    x: Floats
    """Shape (nodes,), and so the others."""
    weights: Floats
    squares: Floats
    """q."""
    df: int

    @classmethod
    def of(cls, measured: Design, between: float, within: float, bucket: float) -> Posterior:
        """Infer from the variances that control arms showed.

        Args:
            measured: how the control arms were measured.
            between: variance of their means.
            within: variance of the trials of one arm.
            bucket: variance between arms beside that of trials; read where nothing tells the two
                apart, with one seed.
        """
        seeds, df_between = measured.seeds, measured.controls - 1
        df_within = df_between * (seeds - 1)
        if not df_within or not within:  # nothing tells the ratio
            arm = bucket + within / seeds
            x = np.array([within / arm if arm else 0.0])
            return cls(measured, x, np.ones(1), np.array([df_between * between]), df_between)
        low = 1 / (1 / seeds + measured.bucket_bound)
        nodes, weights = scipy.special.roots_legendre(_NODES)
        x = low + (seeds - low) * (nodes + 1) / 2
        df = df_between + df_within
        squares = df_between * between + df_within * within / x
        log_density = -(df_within / 2 + 1) * np.log(x) - df / 2 * np.log(squares)
        weights = weights * np.exp(log_density - log_density.max())
        return cls(measured, x, weights / weights.sum(), squares, df)

    def half_width(self, design: Design, alpha: float) -> CredibleRange:
        """Predict the half-width of a study."""
        rules = [half_width_rule(*noise, design, alpha) for noise in self._noises(design)]
        halves = np.stack([half for half, _ in rules]) * np.sqrt(self.squares)[:, None]
        chances = np.stack([chance for _, chance in rules]) * self.weights[:, None]
        return self._range(halves.ravel(), chances.ravel())

    def detectable(self, design: Design, alpha: float) -> CredibleRange:
        """Predict the effect that a study finds."""
        least = [detectable_effect(*noise, design, alpha) for noise in self._noises(design)]
        return self._range(np.array(least) * np.sqrt(self.squares), self.weights)

    def _noises(self, design: Design) -> list[tuple[float, float]]:
        """The variances at the nodes for V = 1: everything scales with its root."""
        return [rescale(x, 1 - x / self.measured.seeds, self.measured, design) for x in self.x]

    def _range(self, factors: Floats, weights: Floats) -> CredibleRange:
        """Return the median and the central 90 % of the mixture of factor / sqrt(chi2(df))."""
        if not factors.any():  # no noise, nothing to be uncertain about
            return CredibleRange(0.0, 0.0, 0.0)

        def quantile(probability: float) -> float:
            def excess(z: float) -> float:
                return (
                    float(weights @ scipy.stats.chi2.sf((factors / z) ** 2, self.df)) - probability
                )

            # The mixture's quantile lies among those of its parts, which rounding may make alike.
            each = factors / math.sqrt(scipy.stats.chi2.isf(probability, self.df))
            low, high = 0.999 * float(each.min()), 1.001 * float(each.max())
            return float(scipy.optimize.brentq(excess, low, high, xtol=1e-6 * high))

        return CredibleRange(quantile(0.5), quantile(0.05), quantile(0.95))
