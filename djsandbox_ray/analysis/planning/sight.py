"""Whether a study can see what is of interest, why it may not, and the cheapest one that could."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median, stdev

from pydantic import Field

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.analysis.planning.power import PlannedDesign, cheapest_designs
from djsandbox_ray.settings.sections import Section

_OF_INTEREST, _OF_INTEREST_SD = 0.5, 5.0
"""A study that sees nothing smaller than half of the controls' score, or than five of their
standard deviations, is blind for whatever users ask."""
_NOISIER = 2.0
"""A metric is named that scatters so many times as much as the middle one."""
_ABOVE_CHANCE = 2.0
"""Standard deviations over trials: models closer to chance than that have learnt nothing."""


class NoiseConfig(Section):
    """What a study must be able to see: the controls, trained first, tell what it will."""

    interest: float | None = Field(default=None, gt=0)
    """The change that is of interest, 0.05 for +5 % (with ``aggregate: standardized`` in standard
    deviations of the controls). Where the study is not likely to find it, the run says why, and
    what would. By default ``stop_above``, or else 0.5, and 5 standard deviations."""
    stop_above: float | None = Field(default=None, gt=0)
    """The run ends behind the controls, with exit code 3, where what the study finds with 80 %
    probability is greater than this; by default it goes on."""

    def of_interest(self, standardized: bool) -> float:
        """Return the least change that the study should find."""
        default = _OF_INTEREST_SD if standardized else _OF_INTEREST
        return self.interest or self.stop_above or default


class Cause(StrEnum):
    """Why a study may see little."""

    BUDGET = "budget"
    """Its models have hardly learnt anything."""
    POOL_SIZE = "pool size"
    """Most of the noise comes from which samples are in a bucket."""
    METRIC = "metric"
    """One metric scatters far more than the others."""
    TRAINING = "training"
    """None of these: what differs from trial to trial is most of the noise."""


@dataclass(frozen=True)
class Reason:
    """A likely one."""

    cause: Cause
    share: float = math.nan
    """Of the noise of an arm's mean, what comes from the make-up of buckets."""
    metrics: tuple[str, ...] = ()
    """That it shows in."""


@dataclass(frozen=True)
class Blind:
    """A study that is not likely to find what is of interest."""

    interest: float
    reasons: tuple[Reason, ...]
    design: PlannedDesign | None
    """The cheapest that would find it; None where none does."""


def blind(
    floor: NoiseFloor,
    interest: float,
    scores: Sequence[Mapping[str, float]],
    chance: Mapping[str, float],
) -> Blind | None:
    """Return why a study is not likely to find a change, or None: it is.

    Args:
        floor: what it finds.
        interest: the change, positive.
        scores: the metrics of the score, of every completed control trial.
        chance: what a model that knows nothing gets, of metrics where that is known.
    """
    if floor.detectable.value <= interest:
        return None
    designs = cheapest_designs(
        interest, floor.within, floor.bucket, floor.design, alpha=floor.alpha
    )
    return Blind(interest, _reasons(floor, scores, chance), designs[0] if designs else None)


def _reasons(
    floor: NoiseFloor, scores: Sequence[Mapping[str, float]], chance: Mapping[str, float]
) -> tuple[Reason, ...]:
    names = scores[0] if len(scores) > 1 else {}
    means = {name: fmean(one[name] for one in scores) for name in names}
    sizes = {name: stdev(one[name] for one in scores) for name in names}
    found = []
    unlearnt = tuple(
        name
        for name, level in chance.items()
        if name in means and abs(means[name] - level) < _ABOVE_CHANCE * sizes[name]
    )
    if unlearnt:
        found.append(Reason(Cause.BUDGET, metrics=unlearnt))
    noise = floor.bucket + floor.within / floor.design.seeds
    share = floor.bucket / noise if noise else 0.0
    if share > 1 / 2:
        found.append(Reason(Cause.POOL_SIZE, share))
    scatter = {name: sizes[name] / abs(means[name]) for name in names if means[name]}
    if len(scatter) > 1:
        middle = median(scatter.values())
        noisy = tuple(name for name, size in scatter.items() if size > _NOISIER * middle)
        if noisy:
            found.append(Reason(Cause.METRIC, metrics=noisy))
    return tuple(found) or (Reason(Cause.TRAINING, share),)
