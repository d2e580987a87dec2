"""One number from several metrics: the change of a trial against the control.

Higher must be better in every metric. All three aggregates are linear in the scores, so that the
mean of per-seed changes equals the change of the mean scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Aggregate(StrEnum):
    """How the changes of several metrics become one number."""

    POOLED = "pooled"
    """sum(s - s') / sum(s'): Eq. 1 of "Data-Juicer Sandbox" (arXiv 2407.11784). Metrics with large
    values dominate."""
    MEAN_RELATIVE = "mean_relative"
    """mean((s - s') / s'): what the published Table 9 of that paper holds."""
    STANDARDIZED = "standardized"
    """mean((s - s') / noise), in standard deviations of the control trials: metrics count by how
    well they are measured, not by their unit."""


def relative_change(
    scores: Sequence[float],
    baseline: Sequence[float],
    aggregate: Aggregate | str,
    *,
    noise: Sequence[float] | None = None,
) -> float:
    """Aggregate the change of several metrics against their baseline.

    Args:
        scores: s, one value per metric.
        baseline: s', the control's values of the same metrics, in the same order.
        aggregate: ``pooled``, ``mean_relative`` or ``standardized``; see :class:`Aggregate`.
        noise: standard deviation of each metric among control trials; needed by (and only by)
            ``standardized``. Centring on chance is not needed: it cancels in s - s'.

    Returns:
        A fraction (0.05 is +5 %); for ``standardized`` a number of control standard deviations.

    Raises:
        ValueError: unknown aggregate; no metrics; lengths that differ; NaN or infinite values;
            a baseline that is divided by and is not positive (a negative one would turn better
            into worse); a noise that is missing or not positive.
    """
    kind = _aggregate(aggregate)
    s, control = _vector("scores", scores), _vector("baseline", baseline)
    _same_length("scores", s, control)
    if kind is Aggregate.POOLED:
        # Differences first: s and s' are often equal to many digits.
        total = math.fsum(control)
        _positive("the sum of the baseline, which pooled divides by,", total)
        return math.fsum(s - control) / total
    if kind is Aggregate.MEAN_RELATIVE:
        scale = control
    elif noise is None:
        raise ValueError(
            "the aggregate 'standardized' needs noise: "
            "the standard deviation of each metric among control trials"
        )
    else:
        scale = _vector("noise", noise)
        _same_length("noise", scale, control)
    name = "baseline" if kind is Aggregate.MEAN_RELATIVE else "noise"
    for index, value in enumerate(scale):
        _positive(f"{name}[{index}], which {kind.value} divides by,", float(value))
    return math.fsum((s - control) / scale) / len(s)


def _aggregate(name: Aggregate | str) -> Aggregate:
    try:
        return Aggregate(name)
    except ValueError:
        known = ", ".join(Aggregate)
        raise ValueError(f"unknown aggregate {name!r} (allowed: {known})") from None


def _vector(name: str, values: Sequence[float]) -> NDArray[np.float64]:
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a sequence of numbers: {error}") from error
    if vector.ndim != 1 or not len(vector):
        raise ValueError(
            f"{name} has shape {vector.shape}; one value per metric is needed, and at least one"
        )
    bad = np.flatnonzero(~np.isfinite(vector))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {vector[bad[0]]}; finite numbers are needed")
    return vector


def _same_length(name: str, values: NDArray[np.float64], baseline: NDArray[np.float64]) -> None:
    if len(values) != len(baseline):
        raise ValueError(
            f"{name} has {len(values)} values and baseline {len(baseline)}; "
            "they must be the same metrics in the same order"
        )


def _positive(what: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{what} is {value}; it must be positive")
