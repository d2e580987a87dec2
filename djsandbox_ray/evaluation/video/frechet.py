"""How far apart two sets of features are: Frechet's distance of Gaussians, and a kernel distance.

With features of a video model the first is FVD (Unterthiner et al. 2018). It depends on the number
of videos: few make it larger, and less certain than the differences that it is to show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput

Features = NDArray[np.float64]
"""(videos, dimensions)."""

LEAST = 256
"""Videos below which a distance says more about the draw than about the model."""
_DEGREE = 3
_ROUNDING = 1e-6
"""What of a matrix' greatest eigenvalue a negative one may be: more is no covariance."""


def checked(features: NDArray[np.floating], what: str, *, force: bool = False) -> Features:
    """Return features in double precision, if a distance can be computed of them.

    Args:
        features: (videos, dimensions).
        what: whose features they are, for messages.
        force: whether few videos will do: two at least.

    Raises:
        BadInput: they are too few, or not finite, or all alike, or fewer than it takes for a
            covariance of full rank.
    """
    if features.ndim != 2 or not features.shape[1]:
        raise BadInput(f"{what}: features of shape (videos, dimensions), not {features.shape}")
    count, dimensions = features.shape
    least = 2 if force else LEAST
    if count < least:
        raise BadInput(
            f"{what}: {count} videos; at least {least} are needed"
            + ("" if force else " (force: true computes it of fewer, for a try)")
        )
    if not np.isfinite(features).all():
        raise BadInput(f"{what}: features are not finite")
    found: Features = np.asarray(features, dtype=np.float64)
    if not np.ptp(found, axis=0).any():
        raise BadInput(f"{what}: all {count} videos have the same features")
    if count <= dimensions and not force:
        raise BadInput(
            f"{what}: the covariance of {dimensions} features has no full rank with {count} "
            f"videos: more than {dimensions} are needed (force: true computes it of fewer)"
        )
    return found


def frechet_distance(real: Features, made: Features) -> float:
    """Return |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2), 0 at least.

    Covariances are unbiased (divided by n - 1; ``cd-fvd`` divides by n). The roots are taken by
    eigenvalues of symmetric matrices, which keeps them real.

    Args:
        real: (videos, dimensions).
        made: (videos, dimensions); the numbers of videos may differ.

    Raises:
        BadInput: they have different features.
    """
    _refuse_others(real, made)
    between = float(np.square(real.mean(axis=0) - made.mean(axis=0)).sum())
    first, second = _covariance(real), _covariance(made)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(_nonnegative(values))) @ vectors.T
    product = root @ second @ root
    cross = np.sqrt(_nonnegative(np.linalg.eigvalsh((product + product.T) / 2))).sum()
    found = between + float(np.trace(first)) + float(np.trace(second)) - 2 * float(cross)
    return max(found, 0.0)  # of equal sets, rounding may leave less


def kernel_distance(real: Features, made: Features) -> float:
    """Return the unbiased estimate of MMD^2 with the kernel (x.y / d + 1)^3.

    Unlike Frechet's distance it has no bias from few videos; it may be negative (Binkowski et al.
    2018, KID).

    Args:
        real: (videos, dimensions).
        made: (videos, dimensions); the numbers of videos may differ.

    Raises:
        BadInput: they have different features.
    """
    _refuse_others(real, made)
    return _inside(real) + _inside(made) - 2 * float(_kernel(real, made).mean())


def _refuse_others(real: Features, made: Features) -> None:
    if real.shape[1] != made.shape[1]:
        raise BadInput(
            f"features of {real.shape[1]} and of {made.shape[1]} dimensions cannot be compared"
        )


def _covariance(features: Features) -> Features:
    centred = features - features.mean(axis=0)
    found: Features = centred.T @ centred / (len(features) - 1)
    return found


def _nonnegative(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return eigenvalues of a covariance, of which rounding may have made some negative."""
    if values.min() < -_ROUNDING * max(values.max(), np.finfo(np.float64).tiny):
        raise BadInput(f"no covariance: an eigenvalue is {values.min():g}")
    return np.clip(values, 0, None)


def _kernel(some: Features, others: Features) -> Features:
    found: Features = (some @ others.T / some.shape[1] + 1) ** _DEGREE
    return found


def _inside(features: Features) -> float:
    """Return the mean kernel of two different videos of a set."""
    count, kernel = len(features), _kernel(features, features)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
