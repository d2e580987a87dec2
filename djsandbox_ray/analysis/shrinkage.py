"""Shrinkage: what the spread of all changes says about each of them, the best ones above all."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from djsandbox_ray.analysis.design import Design
from djsandbox_ray.analysis.moderated import between_variance, within_variance

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
    return top * float(optimize.brentq(excess, 0.0, 1.0)) if excess(0.0) > 0 else 0.0


def standard_error(controls: ArrayLike, draw_share: float = 1.0, buckets: int = 3) -> float:
    """Return the standard error of a complete pool's change, sqrt(V (1 + 1/C)).

    V, the variance of an arm's mean over S seeds, is that between the C control means, moved into
    the range that the variance w of trials within an arm allows: w/S to w/S + bound * w, see
    :attr:`djsandbox_ray.analysis.design.Design.bucket_bound`. It includes which samples are in a
    bucket: what is left of a change is what the operator does beyond a random bucket.

    Args:
        controls: scores of complete control arms, shape (controls, seeds).
        draw_share: as in :class:`djsandbox_ray.analysis.design.Design`.
        buckets: as there.
    """
    scores = np.asarray(controls, dtype=np.float64)
    arms, seeds = scores.shape
    design = Design(pools=1, controls=arms, seeds=seeds, draw_share=draw_share, buckets=buckets)
    variance = float(between_variance(scores))
    if seeds > 1 and (within := float(within_variance(scores))):
        least = within / seeds
        variance = min(max(variance, least), least + design.bucket_bound * within)
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
