"""Simulated studies in which nothing matters, judged as ``verdicts`` does: how often it is wrong.

The tests and ``benchmarks/unequal_noise.py`` share them. A score is

    seed effect (common to all arms) + bucket + draw + training,

with the finite-population variances of ``data``, the share of a draw's variance that comes from its
samples, ``draw_share``, the draw's size over the bucket's, and ``share``, the bucket's over the
dataset's: bucket data * draw_share * (1 - share), draw data * (1 - draw_share), training 1 - data.
The three buckets of a statistic are disjoint: untrimmed they partition the dataset, their parts add
up to 0, and trimmed ones too are negatively correlated; a control is one bucket of a partition of
its own. Whatever an arm varies by is multiplied by its scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.arm_noise import ArmNoise, against_controls

Floats = NDArray[np.float64]
BUCKETS = 3
PLAIN = 1 / BUCKETS
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """How studies are made."""

    pools: int = 18
    controls: int = 10
    seeds: int = 3
    draw_share: float = 0.5
    data: float = 0.5
    share: float = PLAIN
    log_sd: float = 0.0
    """Standard deviation of the logarithm of an arm's scale."""
    vary: Literal["both", "pools"] = "both"
    """Whose scales differ; those of the others are 1."""
    tail: Literal["normal", "t3", "collapse"] = "normal"
    """Of draws and training: normal, Student's t with 3 degrees of freedom, or normal but for one
    trial in twenty, which is 8 standard deviations below."""

    def scores(self, studies: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Return null scores of shape (studies, pools, seeds) and (studies, controls, seeds)."""
        rng = np.random.default_rng([seed, self.pools, self.controls, self.seeds])
        common = 3.0 * rng.standard_normal((studies, 1, self.seeds))
        pools = self._buckets(rng, studies, self.pools // BUCKETS).reshape(studies, self.pools)
        controls = self._buckets(rng, studies, self.controls)[:, :, 0]
        noisy = self.vary == "both"
        return (
            common + self._arms(rng, pools, self.log_sd),
            common + self._arms(rng, controls, self.log_sd if noisy else 0.0),
        )

    def _buckets(self, rng: np.random.Generator, studies: int, partitions: int) -> Floats:
        parts = rng.standard_normal((studies, partitions, BUCKETS))
        # What is left of the dataset has its part in the mean of all.
        total = parts.sum(axis=2, keepdims=True)
        total += math.sqrt(max(1 / self.share - BUCKETS, 0.0)) * rng.standard_normal(total.shape)
        return math.sqrt(self.data * self.draw_share) * (parts - self.share * total)

    def _arms(self, rng: np.random.Generator, buckets: Floats, log_sd: float) -> Floats:
        shape = (*buckets.shape, self.seeds)
        if self.tail == "t3":
            noise = rng.standard_t(3, shape) / math.sqrt(3)
        else:
            noise = rng.standard_normal(shape)
        if self.tail == "collapse":
            noise -= 8.0 * (rng.random(shape) < 0.05)
        scale = np.exp(log_sd * rng.standard_normal(buckets.shape))[..., None]
        within = math.sqrt(self.data * (1 - self.draw_share) + 1 - self.data)
        return scale * (buckets[..., None] + within * noise)

    def judged(self, studies: int, seed: int = 0) -> Intervals:
        """Judge simulated studies."""
        return intervals(*self.scores(studies, seed), self.draw_share, share=self.share)


@dataclass(frozen=True)
class Intervals:
    """Of many studies."""

    effect: Floats
    """Shape (studies, pools), and so is the next."""
    half: Floats

    def missed(self, truth: Floats | float = 0.0) -> int:
        """Return the number of studies in which some interval does not hold the truth."""
        return int((np.abs(self.effect - truth) > self.half).any(axis=-1).sum())

    @property
    def width(self) -> float:
        """The median half-width."""
        return float(np.median(self.half))


def intervals(
    pools: Floats,
    controls: Floats,
    draw_share: float,
    *,
    family: int | None = None,
    share: float = PLAIN,
    alpha: float = ALPHA,
) -> Intervals:
    """Return the intervals of ``verdicts``, study by study, without its checks of the input."""
    halves = []
    for study, control in zip(pools, controls, strict=True):
        noise = ArmNoise.of(study, control, draw_share, share)
        squares = against_controls(np.isfinite(study).sum(axis=1), *control.shape)
        halves.append(noise.half_widths(squares, alpha, family))
    effect = np.nanmean(pools - controls.mean(axis=1, keepdims=True), axis=-1)
    return Intervals(effect, np.array(halves))
