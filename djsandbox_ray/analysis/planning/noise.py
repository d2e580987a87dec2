"""The noise floor: what control arms alone, an A/A step, say about the effects a study can find.

The controls' scores give two variances: ``within``, of the trials of one arm, and ``between``, of
the means of arms. What ``between`` has beyond within / seeds comes from the buckets, ``bucket``;
by :attr:`Design.bucket_bound` it lies between 0 and a known multiple of ``within``. A few control
arms estimate it roughly, so every prediction is a median with a range, from
:mod:`.posterior`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from djsandbox_ray.analysis.planning.posterior import CredibleRange, Posterior
from djsandbox_ray.analysis.planning.power import MAX_SEEDS
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.variances import between_variance, within_variance
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import RankingRow

Floats = NDArray[np.float64]
Variance = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class NoiseFloor:
    """How much control arms scatter, and what a study with that noise can find."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    measured: Design
    """The A/A step; ``pools`` are those of the study."""
    design: Design
    """The study that the predictions are for."""
    alpha: Annotated[float, Field(gt=0, lt=1)]
    """Family-wise error rate of the study's verdicts."""
    between: Variance
    """Variance of the means of the measured control arms."""
    within: Variance
    """Variance of the measured trials within an arm, seed effects removed. With one seed nothing
    tells it from ``bucket``, and the least that it can be is assumed: seeds help least then."""
    bucket: Variance
    """The part of ``between`` that more seeds do not remove, within its bounds."""
    half_width: CredibleRange
    """Of the simultaneous intervals of the study: the median expected, and where a new study will
    have it. A study with the measured controls themselves stays closer to the median."""
    detectable: CredibleRange
    """The effect that a pool must have to be called better with a power of 80 %."""

    @classmethod
    def from_controls(cls, scores: ArrayLike, design: Design, alpha: float = 0.05) -> NoiseFloor:
        """Estimate the noise from the scores of control arms.

        Args:
            scores: shape (controls, seeds), complete; arms and seeds may be more or fewer than the
                study plans, draws and buckets are the study's.
            design: the study that predictions are wanted for.
            alpha: family-wise error rate of its verdicts, in (0, 1).

        Raises:
            BadInput: scores of another shape or not finite; fewer than 3 control arms; alpha
                outside (0, 1).
        """
        table = _checked(scores)
        controls, seeds = table.shape
        measured = replace(design, controls=controls, seeds=seeds)
        between = float(between_variance(table))
        if seeds == 1:
            within = between / (1 + measured.bucket_bound)
        else:
            within = float(within_variance(table))
        return cls._predict(measured, design, alpha, between, within)

    @classmethod
    def _predict(
        cls, measured: Design, design: Design, alpha: float, between: float, within: float
    ) -> NoiseFloor:
        bucket = max(between - within / measured.seeds, 0.0)
        if measured.draw_share < 1:
            bucket = min(bucket, measured.bucket_bound * within)
        posterior = Posterior.of(measured, between, within, bucket)
        detectable = posterior.detectable(design, alpha)
        half_width = posterior.half_width(design, alpha)
        return cls(measured, design, alpha, between, within, bucket, half_width, detectable)

    def under(self, design: Design, alpha: float | None = None) -> NoiseFloor:
        """Return the same noise with the predictions for another study on the same dataset.

        Draws of another size change the noise: see :func:`.power.rescale`.

        Args:
            design: the other study.
            alpha: family-wise error rate of its verdicts, in (0, 1); None for the same.

        Raises:
            BadInput: fewer than 3 control arms; alpha outside (0, 1).
        """
        rate = self.alpha if alpha is None else alpha
        return self._predict(self.measured, design, rate, self.between, self.within)

    def seeds_for(self, effect: float) -> int | None:
        """Return the least number of seeds that find an effect with a power of 80 %.

        The study is ``design`` with other seeds, at least 2 where draws are smaller than buckets:
        the least whose ``detectable.value`` is not above the effect. None where 50 seeds do not do:
        the bucket's part of the noise does not shrink with seeds, only more control arms or larger
        pools help.

        Raises:
            BadInput: an effect that is not positive.
        """
        if not 0 < effect < math.inf:
            raise BadInput(f"the effect is {effect}; a positive number is needed")
        posterior = Posterior.of(self.measured, self.between, self.within, self.bucket)

        def found(seeds: int) -> bool:
            design = replace(self.design, seeds=seeds)
            return posterior.detectable(design, self.alpha).value <= effect

        tried = range(1 if self.design.draw_share == 1 else 2, MAX_SEEDS + 1)
        place = bisect_left(tried, True, key=found)
        return tried[place] if place < len(tried) else None

    def to_json(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_json` reads back to an equal object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> NoiseFloor:
        """Read what :meth:`to_json` returned.

        Raises:
            BadInput: a key is missing or unknown, or a value cannot be used; says which.
        """
        try:
            return _ADAPTER.validate_python(value)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}"
                for item in error.errors()
            )
            raise BadInput(f"noise floor: {wrong}") from error


_ADAPTER = TypeAdapter(NoiseFloor)


@dataclass(frozen=True)
class Realised:
    """The half-widths of a finished ranking beside those that the noise floor predicted."""

    half_width: float
    """Median over the pools that have all their scores."""
    ratio: float
    """To the predicted median."""
    warning: str | None
    """One sentence where the half-width lies outside the range predicted, else None."""


def realised(noise: NoiseFloor, rows: Iterable[RankingRow]) -> Realised | None:
    """Compare the intervals of a finished ranking with the prediction.

    Only pools that completed a trial for every seed of ``noise.design`` are compared: the others'
    intervals are wider because of that. None where there is no such pool, or no noise at all.
    """
    complete = [
        (row.high - row.low) / 2
        for row in rows
        if row.seeds == noise.design.seeds and math.isfinite(row.high - row.low)
    ]
    expected = noise.half_width
    if not complete or not expected.value:
        return None
    half = float(np.median(complete))
    ratio = half / expected.value
    warning = None
    if not expected.low <= half <= expected.high:
        wider = "wider" if half > expected.high else "narrower"
        warning = (
            f"the intervals are {wider} than the noise floor foretold: half-width {half:.3g}, "
            f"{ratio:.2f} times the {expected.value:.3g} expected, outside the 90 % range of "
            f"{expected.low:.3g} to {expected.high:.3g}; the study's noise is not that measured"
        )
    return Realised(half, ratio, warning)


def _checked(scores: ArrayLike) -> Floats:
    try:
        table = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"control scores: one number per arm and seed is needed: {error}") from error
    if table.ndim != 2 or not table.size:
        raise BadInput(f"control scores have the shape {table.shape}; (controls, seeds) is needed")
    if len(table) < MIN_CONTROL_ARMS:
        raise BadInput(f"{len(table)} control arms; at least {MIN_CONTROL_ARMS} are needed")
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        arm, seed = bad[0]
        raise BadInput(
            f"the score of control arm {arm}, seed {seed} is {table[arm, seed]}; finite numbers "
            "are needed: leave out arms with a missing score"
        )
    return table
