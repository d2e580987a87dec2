"""The section ``cost`` of a configuration."""

from __future__ import annotations

from pydantic import Field

from djsandbox_ray.sections import Section


class CostConfig(Section):
    """What a full training costs, and how many of them the whole run may cost."""

    full_trainings: float = Field(gt=1)
    """M: the full trainings that would be spent without the sandbox, trying one recipe each. The
    final training is one of them, so that M - 1 are left for trials."""
    full_samples: int = Field(gt=0, strict=True)
    """Samples seen in one full training, over all its epochs."""
    full_flops_per_sample: float | None = Field(default=None, gt=0)
    """Floating-point operations of the full model per training sample, forward and backward; by
    default those of the small model."""
