"""Shrinkage: what the spread of all changes says about each of them, the best ones above all."""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.variances import between_variance, within_variance

Floats = NDArray[np.float64]


def shrink(changes: ArrayLike, errors: ArrayLike) -> Floats:
    """Pull the changes of many pools towards zero, the noisy ones more.

    With P changes d_i ~ N(theta_i, V_i), V_i known, and theta_i ~ N(0, A), the empirical Bayes
    estimate of Morris (1983, JASA 78:47; the mean is known) is

        (1 - B_i) d_i,    B_i = (P - 2)/P * V_i / (V_i + A),

    with A from :func:`spread`. Where all V_i are equal and A is not cut off at 0, this is the
    estimator of James and Stein (1961), 1 - (P - 2) V / sum(d_i^2). Fewer than three changes say
    nothing about their spread and stay as they are.

    Args:
        changes: shape (pools,), finite.
        errors: shape (pools,): their standard errors, all positive; or all 0: no noise, no
            shrinkage.

    Returns:
        Shape (pools,): no further from zero than the changes and of the same sign; in the same
        order where the errors are equal.

    Raises:
        ValueError: shapes that differ; a number that is not finite or an error out of range.
    """
    d, variances = _checked(changes, errors)
    count = len(d)
    if count < 3 or not variances.any():
        return d
    weight = (count - 2) / count
    return np.asarray(d * (1.0 - weight * variances / (variances + spread(d, errors))))


def spread(changes: ArrayLike, errors: ArrayLike) -> float:
    """Return the variance A of the true changes around zero that fits the measured ones.

    It solves sum(d_i^2 / (V_i + A)) = P (Paule and Mandel 1982, J. Res. NBS 87:377, with the mean
    known to be zero), and is 0 where noise alone spreads them as far. The equation holds on average
    also when the errors are correlated, as those of pools that share controls are.

    Args:
        changes: as in :func:`shrink`.
        errors: as in :func:`shrink`.

    Raises:
        ValueError: as in :func:`shrink`, or no changes at all.
    """
    d, variances = _checked(changes, errors)
    if not len(d):
        raise ValueError("no changes are given; their spread is not known")
    squares = d**2
    top = float(squares.max())
    if not variances.any() or not top:
        return float(squares.mean())

    def excess(ratio: float) -> float:
        return float((squares / (variances + ratio * top)).mean()) - 1.0

    # At A = max(d_i^2) no term exceeds 1.
    return top * float(scipy.optimize.brentq(excess, 0.0, 1.0)) if excess(0.0) > 0 else 0.0


_BIAS = 0.1
"""Greatest relative bias of the variance of an arm's mean."""


def standard_error(
    controls: ArrayLike, draw_share: float = 1.0, bucket_share: float = 1 / 3
) -> float:
    """Return the standard error of a complete pool's change, sqrt(V (1 + 1/C)).

    V, the variance of an arm's mean over S seeds, includes which samples are in a bucket: what is
    left of a change is what the operator does beyond a random bucket. s2_B, the variance between
    the C control means, estimates it without bias but roughly; s2_W, that of trials within arms,
    says that V/w lies between g0 = 1/S and g1 = g0 + bound, see
    :attr:`~djsandbox_ray.analysis.verdicts.design.Design.bucket_bound`. The estimate is

        (1 - k) s2_B + k c s2_W,    c = 2 g0 g1 / (g0 + g1),    k = 0.1 (g1 + g0) / (g1 - g0),

    k at most 1: its bias, k (c w / V - 1), is +10 % of V at g0 and -10 % at g1, the ends. To cut
    s2_B off at the ends, or to take the posterior mean between them, would be wrong by 30 % or
    more there, and what is pulled towards zero by the factor 1 - V / (V + A) along with it.

    Args:
        controls: scores of complete control arms, shape (controls, seeds).
        draw_share: as in :class:`~djsandbox_ray.analysis.verdicts.design.Design`.
        bucket_share: as there.
    """
    scores = np.asarray(controls, dtype=np.float64)
    arms, seeds = scores.shape
    design = Design(1, arms, seeds, draw_share, bucket_share)
    variance = float(between_variance(scores))
    if seeds > 1 and draw_share < 1:
        least, most = 1 / seeds, 1 / seeds + design.bucket_bound
        weight = min(_BIAS * (most + least) / (most - least), 1.0)
        center = 2 * least * most / (least + most)
        variance += weight * (center * float(within_variance(scores)) - variance)
    return math.sqrt(variance * (1 + 1 / arms))


def _checked(changes: ArrayLike, errors: ArrayLike) -> tuple[Floats, Floats]:
    """Return the changes and their variances."""
    d = np.asarray(changes, dtype=np.float64)
    e = np.asarray(errors, dtype=np.float64)
    if d.ndim != 1 or d.shape != e.shape:
        raise ValueError(f"changes and errors have shapes {d.shape} and {e.shape}; (pools,) each")
    if not (np.isfinite(d).all() and np.isfinite(e).all()):
        raise ValueError("changes and errors must be finite numbers")
    if e.any() and not (e > 0).all():
        raise ValueError(f"an error is {e.min()}; all must be positive, or all 0")
    return d, e**2
