"""The section ``report`` of a configuration."""

from __future__ import annotations

from pydantic import Field

from djsandbox_ray.settings.sections import Section


class ReportConfig(Section):
    """What the report shows beside the verdicts."""

    labels: list[str] = Field(default=[])
    """Keys of the samples' metadata, such as ``defect``: the report says how large a share of every
    pool has each value. They are only shown, never used."""
