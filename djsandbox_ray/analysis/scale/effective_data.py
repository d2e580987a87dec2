"""What repeated rows are worth: the law of Muennighoff et al. 2023 (arXiv 2305.16264, section 3).

U different rows, seen D times in all, count for as much as

    D' = U + U R* (1 - exp(-R / R*)),   R = D / U - 1,

new rows: R* repetitions are where their worth has mostly decayed. The error of a training is
``E + B / D'^beta``; the model's size, constant here, is part of E.

Both strategies are fitted together: "repeat" (U fixed, D growing) and "expand" (U growing with D;
where rows ran out, repeated in part, which the formula covers). So a repetition is priced in rows
that would really be added in its place, the next layers of the pyramid. If these are poor, R* is
large or unbounded: that is the answer, not an accident of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.scale.fitting import (
    NOISE_SHARE,
    Estimate,
    Fits,
    NoLaw,
    SeedMeans,
    estimate,
    fit_curves,
)

Floats = NDArray[np.float64]

PARAMETERS = 4
"""E, B, beta and R*: there must be more points than these."""
_BETAS = np.geomspace(0.02, 4.0, 30)
_HALF_LIVES = np.geomspace(0.05, 200.0, 40)
"""R*; the paper finds about 15 for language models."""
_UNBOUNDED = float(_HALF_LIVES[-1]) * 0.98
_NONE = float(_HALF_LIVES[0]) * 1.02


def effective_rows(rows: Floats, samples: Floats, half_life: Floats | float) -> Floats:
    """Return D' for U ``rows`` seen ``samples`` times in all; arrays that broadcast.

    Fewer samples than rows are that many new rows.
    """
    used = np.minimum(rows, samples)
    repeats = samples / used - 1
    found: Floats = used * (1 - half_life * np.expm1(-repeats / half_life))
    return found


@dataclass(frozen=True)
class Worth:
    """What a training on the repeated rows is worth."""

    factor: int
    """How often each row was seen."""
    share: Estimate
    """D' over D: what one of the samples seen was worth, in new rows."""


@dataclass(frozen=True)
class DataLaw:
    """A fitted law."""

    floor: Estimate
    """E."""
    height: Estimate
    """B, as the error at U rows, each seen once, beyond E."""
    exponent: Estimate
    """beta."""
    half_life: Estimate
    """R*; its upper end is None where it is unbounded."""
    worth: tuple[Worth, ...]
    misfit: float | None
    """p-value of the lack of fit against the scatter of the seeds (F-test, cells taken as
    independent); None with one seed. Small: the law is not the shape of these errors."""


def fit_data_law(
    cells: Mapping[str, Sequence[tuple[int, int]]], errors: Mapping[str, Floats]
) -> DataLaw | NoLaw:
    """Fit the law to the strategies "repeat" and "expand".

    Args:
        cells: per strategy, different rows and samples seen of every training.
        errors: per strategy, (trainings, seeds), NaN where a trial has no result.
    """
    names = ("repeat", "expand")
    every = [cell for name in names for cell in cells[name]]
    values = np.concatenate([errors[name] for name in names])
    there = np.isfinite(values).any(axis=1)
    points = np.array(every, dtype=np.float64)[there]
    distinct = len({tuple(point) for point in points.tolist()})
    if distinct <= PARAMETERS:
        return NoLaw(
            f"too few points: {distinct} different trainings; a law of {PARAMETERS} parameters "
            f"needs {PARAMETERS + 1}"
        )
    rows, samples = points.T
    if not (samples > rows).any():
        return NoLaw("no training repeats its rows")
    if len(np.unique(samples[samples <= rows])) < 3:
        return NoLaw("too few points without repetition: 3 budgets of new rows are needed")
    means = SeedMeans.of(values[there])
    central = _fit(rows, samples, means.means[None], means.counts)
    replicates = _fit(rows, samples, means.replicates, means.counts)
    if reason := _degenerate(central, replicates):
        return NoLaw(reason)
    unit = float(min(rows))
    factors = sorted({round(seen / unit) for own, seen in cells["repeat"] if own == unit})
    return DataLaw(
        floor=estimate(float(central.floor[0]), replicates.floor),
        height=estimate(float(central.height[0]), replicates.height),
        exponent=estimate(float(central.parameters[0, 0]), replicates.parameters[:, 0]),
        half_life=estimate(
            float(central.parameters[0, 1]), replicates.parameters[:, 1], most=_UNBOUNDED
        ),
        worth=tuple(_worth(factor, central, replicates) for factor in factors),
        misfit=_misfit(values[there], float(central.squares[0])),
    )


def _fit(rows: Floats, samples: Floats, values: Floats, counts: NDArray[np.int64]) -> Fits:
    unit = rows.min()

    def shape(parameters: Floats) -> Floats:
        beta, half_life = parameters[..., :1], parameters[..., 1:]
        found: Floats = (effective_rows(rows, samples, half_life) / unit) ** -beta
        return found

    return fit_curves(values, counts.astype(float), shape, [_BETAS, _HALF_LIVES])


def _degenerate(central: Fits, replicates: Fits) -> str | None:
    """Say why a fit is none, if so."""
    beta, half_life = (float(value) for value in central.parameters[0])
    if central.height[0] <= 0:
        return "the error does not fall with more rows"
    if len(replicates.height) and (replicates.height <= 0).mean() > NOISE_SHARE:
        return "the fall of the error with more rows is not told from the noise of the seeds"
    if beta >= _BETAS[-1] * 0.98:
        return "the error falls at once to where it stays: no exponent can be told"
    if half_life >= _UNBOUNDED:
        return (
            "R* is unbounded: repeated rows did no worse than the new rows that could be added in "
            "their place"
        )
    if half_life <= _NONE:
        return "R* is next to 0: repeated rows were worth nothing from the first repetition on"
    return None


def _worth(factor: int, central: Fits, replicates: Fits) -> Worth:
    def share(fits: Fits) -> Floats:
        return effective_rows(np.ones(1), np.array([float(factor)]), fits.parameters[:, 1]) / factor

    return Worth(factor, estimate(float(share(central)[0]), share(replicates)))


def _misfit(values: Floats, squares: float) -> float | None:
    """Test the residuals of the means against the scatter within cells."""
    from scipy import stats

    counts = np.isfinite(values).sum(axis=1)
    freedom, spare = int((counts - 1).sum()), len(values) - PARAMETERS
    within = float(np.nansum((values - np.nanmean(values, axis=1, keepdims=True)) ** 2))
    if freedom < 1 or within <= 0:
        return None
    return float(stats.f.sf(squares / spare / (within / freedom), spare, freedom))
