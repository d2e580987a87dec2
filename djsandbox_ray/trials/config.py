"""The section ``trials`` of a configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SerializeAsAny, field_validator

from djsandbox_ray.sections import Component, Section, component
from djsandbox_ray.trials.family import FAMILIES


class Resources(Section):
    """What one trial occupies while it runs; Ray Tune runs as many at once as fit."""

    cpus_per_worker: float = Field(default=1, gt=0, strict=True)
    """CPUs; a fraction lets several trials share one core. Also sets torch's threads."""
    gpus_per_worker: float = Field(default=0, ge=0, le=1, strict=True)
    """At most one GPU; a fraction (0.25) lets several trials share one."""


class TrialsConfig(Section):
    """One training of every pool with every seed."""

    model: Annotated[SerializeAsAny[Component], component(FAMILIES)]
    """The model family and its hyper-parameters, the same for every trial."""
    budget: int = Field(gt=0, strict=True)
    """Samples seen in training, by every trial."""
    seeds: int = Field(default=3, ge=2, strict=True)
    """Trials per pool. Seed s gives every pool the same initial weights and order of positions."""
    rungs: list[float] = Field(default=[])
    """Fractions of the budget at which trials are evaluated too; the end always is."""
    resources: Resources = Resources()

    @field_validator("rungs")
    @classmethod
    def _fractions(cls, rungs: list[float]) -> list[float]:
        if any(not 0 < rung < 1 for rung in rungs) or sorted(set(rungs)) != rungs:
            raise ValueError("rungs are fractions between 0 and 1, in increasing order")
        return rungs

    def rung_samples(self) -> tuple[int, ...]:
        """Return the samples seen at every report, the budget last."""
        return (*(max(1, round(rung * self.budget)) for rung in self.rungs), self.budget)
