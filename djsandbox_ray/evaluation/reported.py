"""What a training has measured itself, as metrics of the run."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.evaluator import Artefact, Evaluator, Reads
from djsandbox_ray.evaluation.split import Split
from djsandbox_ray.sections import Component


class ReportedConfig(Component):
    """Which numbers of the training's own report count; each is better when greater."""

    metrics: list[str] = Field(min_length=1)
    """Their names."""

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, metrics: list[str]) -> list[str]:
        if len(set(metrics)) < len(metrics):
            raise ValueError("a metric stands twice")
        return metrics


class Reported(Evaluator):
    """The metrics that a program wrote beside its loss, under their own names."""

    Config = ReportedConfig
    READS: ClassVar[Reads] = "reports"
    config: ReportedConfig

    def metric_names(self) -> tuple[str, ...]:
        """Name them as they were reported."""
        return tuple(self.config.metrics)

    def evaluate(self, encoder: Artefact, split: Split) -> dict[str, float]:
        """Pick the metrics.

        Raises:
            SandboxError: one was not reported: trials without it cannot be compared.
        """
        found = encoder.reported
        if lacking := [name for name in self.config.metrics if name not in found]:
            raise SandboxError(
                f"the training reported no {', '.join(map(repr, lacking))} "
                f"(reported: {', '.join(map(repr, found)) or 'nothing'})"
            )
        return {name: found[name] for name in self.config.metrics}
