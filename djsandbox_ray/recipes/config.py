"""The section ``policies`` of a configuration: limits that hold whatever helps the score."""

from __future__ import annotations

from pydantic import Field, model_validator

from djsandbox_ray.sections import Section

_LIMITS = ("above", "below", "mean_at_most", "mean_at_least")


class PolicyConfig(Section):
    """A limit that a statistic of the kept rows must stay within; exactly one limit per entry.

    ``{statistic: image_nsfw_score, above: 0.5, share: 0.01}``: at most 1 % of them above 0.5.
    """

    statistic: str = Field(min_length=1)
    """Its name, as in ``pools.json``."""
    above: float | None = None
    """At most ``share`` of the rows may have a value above this, or none at all."""
    below: float | None = None
    """At most ``share`` of the rows may have a value below this, or none at all."""
    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows that may lie beyond ``above`` or ``below``."""
    mean_at_most: float | None = None
    """The mean of the rows may not be greater."""
    mean_at_least: float | None = None
    """The mean of the rows may not be less."""

    @model_validator(mode="after")
    def _one_limit(self) -> PolicyConfig:
        given = [name for name in _LIMITS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(_LIMITS)} is needed, not {len(given)}")
        if "share" in self.model_fields_set and given[0] not in ("above", "below"):
            raise ValueError("share goes with above or below only")
        return self
