"""The section ``ingest`` of a configuration."""

from __future__ import annotations

from pydantic import Field

from djsandbox_ray.resources import NodeKind
from djsandbox_ray.sections import Section


class IngestConfig(Section):
    """What is tolerated when samples are read, and where that is done."""

    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of the samples that may be rejected; above it the run stops before training."""
    resources: NodeKind = NodeKind()
    """Which nodes read and decode samples."""
