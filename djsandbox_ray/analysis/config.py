"""The sections ``confirm`` and ``learning_rate_check`` of a configuration."""

from __future__ import annotations

from pydantic import Field

from djsandbox_ray.sections import Section


class ConfirmConfig(Section):
    """The second look at the pools that are called better."""

    top: int = Field(default=3, ge=0, strict=True)
    """At most so many pools, best first, are trained again with fresh seeds; 0 for none."""
    seeds: int | None = Field(default=None, ge=1, strict=True)
    """Fresh seeds; by default as many as the first study has."""
    controls: int = Field(default=5, ge=5, strict=True)
    """Fresh control arms."""


class LearningRateConfig(Section):
    """Whether the verdicts hold at a second learning rate."""

    learning_rate: float = Field(gt=0)
    """Replaces the model's, for the controls and the pools that were decided."""
