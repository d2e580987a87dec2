"""Keeps what lies between two percentiles of a statistic; needs no trial."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.bounds import finite, settle
from djsandbox_ray.recipes.refiner import Evidence, ProposedRange, Refiner
from djsandbox_ray.sections import Component, Section


class Percentiles(Section):
    """Percentiles to keep, both included."""

    low: float = Field(default=0.0, ge=0, le=100)
    """In percent; 0 for no lower bound."""
    high: float = Field(default=100.0, ge=0, le=100)
    """In percent; 100 for no upper bound."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        return self


class PercentileConfig(Percentiles, Component):
    """``low`` and ``high`` are for every chosen statistic, unless ``statistics`` names others."""

    statistics: dict[str, Percentiles] = Field(default={})
    """Per statistic its own percentiles; these statistics alone are then bounded."""


class Percentile(Refiner):
    """A percentile is a value of the column (inverse of the empirical distribution function)."""

    Config = PercentileConfig
    config: PercentileConfig

    @property
    def needs_choice(self) -> bool:
        """Not where statistics are named."""
        return not self.config.statistics

    def propose(self, evidence: Evidence) -> tuple[ProposedRange, ...]:
        """Return a range per statistic.

        Raises:
            BadInput: an unknown statistic, one without values, or none at all.
        """
        wanted = self.config.statistics or dict.fromkeys(evidence.statistics, self.config)
        if not wanted:
            raise BadInput(
                "percentile: no pool was chosen, so statistics must be named: "
                "statistics: {name: {low: 5, high: 95}}"
            )
        return tuple(_range(name, evidence, percent) for name, percent in wanted.items())


def _range(name: str, evidence: Evidence, percent: Percentiles) -> ProposedRange:
    values = finite(evidence.column(name))
    ends = np.percentile(values, [percent.low, percent.high], method="inverted_cdf")
    low, high = settle(
        values,
        None if percent.low == 0 else float(ends[0]),
        None if percent.high == 100 else float(ends[1]),
    )
    origin = f"percentiles {percent.low:g} to {percent.high:g} of {len(values)} values"
    return ProposedRange(name, low, high, origin)
