"""The ``pools`` section of a configuration."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from djsandbox_ray.records import Range
from djsandbox_ray.sections import Section

MIN_CONTROLS = 5
WHOLE_BUCKET_CONTROLS = 8
"""With one draw per arm nothing but the control arms tells how much arms scatter."""


class WithinConfig(Section):
    """Values of a statistic, bounds included; a row without a value is outside."""

    statistic: str
    """Its name, as the console lists it."""
    low: float | None = None
    """Least value; by default there is no bound."""
    high: float | None = None
    """Greatest value; by default there is no bound."""

    @model_validator(mode="after")
    def _ordered(self) -> WithinConfig:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low is {self.low:g}, which is above high, {self.high:g}")
        return self


class PoolConfig(Section):
    """How statistics are cut into pools and how seeds draw from them."""

    buckets: int = Field(default=3, ge=2, le=127, strict=True)
    """Parts of equal size that every statistic is cut into: low and high, low, middle and high, or
    numbered."""
    size: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = "auto"
    """Rows of every pool; ``auto``: the smallest bucket of all testable statistics."""
    draw_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a pool that one seed trains on; 1.0: whole buckets, the same rows for every seed."""
    controls: Annotated[int, Field(ge=MIN_CONTROLS, strict=True)] | Literal["auto"] = "auto"
    """Control arms; ``auto``: twice the square root of the number of bucket pools, at least 5
    (8 with whole buckets)."""
    min_contrast: float = Field(default=0.05, ge=0, le=1)
    """Least probability that a row of the highest bucket exceeds one of the lowest; a statistic
    below it is not testable."""
    min_coverage: float = Field(default=0.5, gt=0, le=1)
    """Least share of rows with a value; a statistic below it is not testable."""
    self_tests: bool = True
    """Whether to add the pools whose verdict is known: shuffled statistic, shuffled captions."""
    seed: int = Field(default=0, strict=True)
    """Seed of the hash that splits ties, trims buckets and makes random buckets and draws."""
    within: tuple[WithinConfig, ...] = ()
    """Only rows that are in all of these ranges may be in a pool or control; by default all."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What ``within`` says."""
        return tuple(Range(item.statistic, item.low, item.high) for item in self.within)

    @property
    def bucket_names(self) -> tuple[str, ...]:
        """Names of the buckets, from the least values to the greatest."""
        if self.buckets <= 3:
            return ("low", "middle", "high") if self.buckets == 3 else ("low", "high")
        return tuple(f"b{index}" for index in range(self.buckets))

    def control_count(self, bucket_pools: int) -> int:
        """Return the number of control arms beside ``bucket_pools`` pools.

        With one control mean shared by all comparisons, about the square root of the number of
        arms minimises the variance of a comparison (Dunnett 1955); twice that, since the control
        arms alone also estimate the variance between arms.
        """
        if self.controls != "auto":
            return self.controls
        least = WHOLE_BUCKET_CONTROLS if self.draw_share == 1 else MIN_CONTROLS
        return max(least, round(2 * math.sqrt(bucket_pools)))
