"""What all laws of scale are fitted with: seeds as replicates, and curves through them.

A study has a handful of seeds. Drawing whole seeds with replacement would give three of them only
ten different samples, with too little variance. In :class:`SeedMeans` every replicate moves the
means by the seeds' own deviations with normal weights (a multiplier bootstrap over seeds) and,
since the variance comes from so few of them, divides by the root of a chi-square over its degrees
of freedom. What is linear in the means then has exactly Student's t interval, also where a seed
moves all cells alike.

:func:`fit_curves` fits ``error = floor + height x``, whose shape x hangs on a few parameters, by
least squares. For given parameters floor and height are linear (variable projection: Golub and
Pereyra 1973), so that only the parameters are searched for: on a grid of their logarithms, then
ever closer around the best. No start value decides the outcome, the bounds hold, and all
replicates are fitted at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.evaluation.metric import ScoreMetrics

Floats = NDArray[np.float64]
CurveShape = Callable[[Floats], Floats]
"""Parameters, shape (..., p), to x at every point, shape (..., n): positive."""

NOISE_SHARE = 0.025
"""More replicates than this without any fall: the fall is not told from noise, at 95 %."""
CONFIDENCE = 0.95
REPLICATES = 400
"""Enough for the ends of a 95 % interval: ten replicates lie beyond each."""

_ZOOMS = 6
_OFFSETS = np.linspace(-1.0, 1.0, 9)
"""Where to look beside the best so far, in steps of the last grid; then they are the next step."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; an end is None where there is none or it is unbounded."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class SeedMeans:
    """Means over seeds of several cells (an arm at a budget), and replicates of them."""

    means: Floats
    """(cells,)."""
    replicates: Floats
    """(replicates, cells); (0, cells) where some cell has fewer than two seeds: one value says
    nothing about others."""
    counts: NDArray[np.int64]
    """(cells,): seeds behind each mean."""

    @classmethod
    def of(cls, cells: Floats, replicates: int = REPLICATES, seed: int = 0) -> SeedMeans:
        """Average over seeds.

        Args:
            cells: (cells, seeds), NaN where a trial has no result; no cell without any.
            replicates: how many to make.
            seed: of the random weights.

        Raises:
            ValueError: another shape, or a cell without a value.
        """
        counts = np.isfinite(cells).sum(axis=1) if cells.ndim == 2 else np.zeros(1, np.int64)
        if cells.ndim != 2 or not len(cells) or counts.min() < 1:
            raise ValueError(f"cells of shape {cells.shape}: each needs the value of some seed")
        means = np.nanmean(cells, axis=1)
        if counts.min() < 2:
            return cls(means, np.empty((0, len(cells))), counts)
        rng = np.random.default_rng([seed, *cells.shape])
        deviations = np.nan_to_num(cells - means[:, None], nan=0.0)
        deviations /= np.sqrt(counts * (counts - 1))[:, None]
        freedom = int(counts.min()) - 1
        weights = rng.standard_normal((replicates, cells.shape[1]))
        weights *= np.sqrt(freedom / rng.chisquare(freedom, (replicates, 1)))
        return cls(means, means + weights @ deviations.T, counts)

    def take(self, cells: Sequence[int]) -> SeedMeans:
        """Return some of the cells; their replicates still belong to those of the others."""
        index = np.asarray(cells, dtype=np.int64)
        return SeedMeans(self.means[index], self.replicates[:, index], self.counts[index])


def seed_interval(values: Floats) -> tuple[float, float, float]:
    """Return mean and Student's t interval over seeds, shape (seeds,).

    NaN values are left out. The ends are NaN with fewer than two values, all three with none.
    """
    from scipy import stats

    found = values[np.isfinite(values)]
    if not len(found):
        return math.nan, math.nan, math.nan
    mean = float(found.mean())
    if len(found) < 2:
        return mean, math.nan, math.nan
    factor = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(found) - 1))
    half = factor * float(found.std(ddof=1)) / math.sqrt(len(found))
    return mean, mean - half, mean + half


def estimate(value: float, replicates: Floats, most: float = math.inf) -> Estimate:
    """Return a value with the percentile interval of its replicates.

    Args:
        value: the estimate itself.
        replicates: (replicates,); none at all gives no interval.
        most: from where on a number counts as unbounded.
    """
    if not len(replicates):
        return Estimate(value, None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(replicates, (tail, 1 - tail)))
    return Estimate(value, low if low < most else None, high if high < most else None)


def error_of(metrics: Mapping[str, float], score: ScoreMetrics | Sequence[str] | None) -> float:
    """Return the mean error of the metrics of the score (None: all): what a scaling law describes.

    The error of a metric is its distance from the best value as a share of its range: of one in
    [0, 1] that is better when greater, 1 - its value. NaN where a metric lies outside its range: a
    law of that would have no floor to fall to.
    """
    of = ScoreMetrics.of(score)
    errors = [of.metric(name).error(metrics[name]) for name in of.chosen(metrics)]
    known = [error for error in errors if error is not None]
    if not known or len(known) < len(errors):
        return math.nan
    return math.fsum(known) / len(known)


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
    values: Floats,
    weights: Floats,
    shape: CurveShape,
    axes: Sequence[Floats],
    *,
    floor: bool = True,
) -> Fits:
    """Fit every row of values with floor >= 0 and height >= 0.

    Args:
        values: (m, n), positive.
        weights: (n,), positive: a point's weight in the sum of squares.
        shape: see :data:`CurveShape`.
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
