"""What a few seeds measured, with what other seeds might have measured in their place.

A study has a handful of seeds. Drawing whole seeds with replacement would give three of them only
ten different samples, with too little variance. Here every replicate moves the means by the seeds'
own deviations with normal weights (a multiplier bootstrap over seeds) and, since the variance comes
from so few of them, divides by the root of a chi-square over its degrees of freedom. What is linear
in the means then has exactly Student's t interval, also where a seed moves all cells alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
REPLICATES = 400
"""Enough for the ends of a 95 % interval: ten replicates lie beyond each."""


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


def error_of(metrics: Mapping[str, float], score: Sequence[str] | None) -> float:
    """Return 1 - mean of the metrics of the score (None: all): what a scaling law describes.

    NaN where a metric lies outside [0, 1]: its distance from 1 is no error, and a law of one would
    have no floor to fall to.
    """
    values = [metrics[name] for name in (metrics if score is None else score)]
    if not values or not all(0 <= value <= 1 for value in values):
        return math.nan
    return 1 - math.fsum(values) / len(values)
