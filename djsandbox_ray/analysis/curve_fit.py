"""Least squares for curves ``error = floor + height x``, whose shape x hangs on a few parameters.

For given parameters floor and height are linear (variable projection: Golub and Pereyra 1973), so
that only the parameters are searched for: on a grid of their logarithms, then ever closer around
the best. No start value decides the outcome, the bounds hold, and all replicates of a bootstrap are
fitted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Shape = Callable[[Floats], Floats]
"""Parameters, shape (..., p), to x at every point, shape (..., n): positive."""

NOISE_SHARE = 0.025
"""More replicates than this without any fall: the fall is not told from noise, at 95 %."""

_ZOOMS = 6
_OFFSETS = np.linspace(-1.0, 1.0, 9)
"""Where to look beside the best so far, in steps of the last grid; then they are the next step."""


@dataclass(frozen=True)
class NoLaw:
    """Why there are no numbers."""

    reason: str


@dataclass(frozen=True, eq=False)
class Fits:
    """One fit per row of values."""

    floor: Floats
    """(m,), at least 0."""
    height: Floats
    """(m,), at least 0; 0 where the values do not rise with x, so that the parameters mean
    nothing."""
    parameters: Floats
    """(m, p)."""
    squares: Floats
    """(m,): weighted sum of squared residuals."""


def fit_curves(
    values: Floats, weights: Floats, shape: Shape, axes: Sequence[Floats], *, floor: bool = True
) -> Fits:
    """Fit every row of values with floor >= 0 and height >= 0.

    Args:
        values: (m, n), positive.
        weights: (n,), positive: a point's weight in the sum of squares.
        shape: see :data:`Shape`.
        axes: one per parameter: positive, rising, evenly spaced in the logarithm; the ends bound
            the parameter.
        floor: whether there is one; else it is 0.
    """
    logs = [np.log(axis) for axis in axes]
    bounds = np.array([[log[0], log[-1]] for log in logs])
    grid = np.stack(np.meshgrid(*logs, indexing="ij"), axis=-1).reshape(-1, len(axes))
    wide = np.broadcast_to(grid, (len(values), *grid.shape))
    best, fits = _best(values, weights, shape(np.exp(grid))[None], wide, floor)
    step = np.array([log[1] - log[0] for log in logs])
    offsets = np.stack(np.meshgrid(*[_OFFSETS] * len(axes), indexing="ij"), axis=-1)
    around = offsets.reshape(-1, len(axes))
    for _ in range(_ZOOMS):
        near = np.clip(best[:, None] + around * step, *bounds.T)
        best, fits = _best(values, weights, shape(np.exp(near)), near, floor)
        step = step * (_OFFSETS[1] - _OFFSETS[0])
    return fits


def _best(
    values: Floats, weights: Floats, x: Floats, logs: Floats, floor: bool
) -> tuple[Floats, Fits]:
    """Choose the best candidate of every row.

    Args:
        values: (m, n).
        weights: (n,).
        x: (m or 1, candidates, n).
        logs: (m, candidates, p), the logarithms of their parameters.
        floor: see :func:`fit_curves`.

    Returns:
        The chosen logarithms, shape (m, p), and the fits.
    """
    w = weights / weights.sum()
    mean_x, mean_y = x @ w, (values @ w)[:, None]
    centred = values - mean_y
    spread = (x**2 @ w) - mean_x**2
    # Where all x are nearly one, a height cannot be told from a floor.
    steep = spread > 1e-12 * mean_x**2
    # One product of matrices where all rows share the candidates.
    joint = centred @ (x * w)[0].T if len(x) == 1 else np.einsum("mgn,mn->mg", x * w, centred)
    height = np.where(steep & floor, joint / np.where(steep, spread, 1.0), 0.0)
    ground = mean_y - height * mean_x
    alone = (joint + mean_x * mean_y) / (x**2 @ w)
    bare = (ground < 0) | (not floor)
    height, ground = np.where(bare, alone, height), np.where(bare, 0.0, ground)
    flat = height < 0
    height, ground = np.where(flat, 0.0, height), np.where(flat, mean_y, ground)
    # Around the mean of the values: the squares of what is left are small differences.
    gap = ground - mean_y
    squares = (centred**2 @ w)[:, None] + gap**2 + height**2 * (x**2 @ w)
    squares += 2 * gap * height * mean_x - 2 * height * joint
    pick = squares.argmin(axis=1)
    rows = np.arange(len(values))
    chosen = logs[rows, pick]
    found = np.maximum(squares[rows, pick], 0.0) * weights.sum()
    return chosen, Fits(ground[rows, pick], height[rows, pick], np.exp(chosen), found)
