"""The ``pools`` section of a configuration."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from djsandbox_ray.sections import Section

MIN_CONTROLS = 5
WHOLE_BUCKET_CONTROLS = 8
"""With one draw per arm nothing but the control arms tells how much arms scatter."""


class PoolConfig(Section):
    """How statistics are cut into pools and how seeds draw from them."""

    buckets: int = Field(default=3, ge=2, le=127, strict=True)
    """Parts of equal size that every statistic is cut into; 3 are named low, middle and high."""
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

    @property
    def bucket_names(self) -> tuple[str, ...]:
        """Names of the buckets, from the least values to the greatest."""
        if self.buckets == 3:
            return ("low", "middle", "high")
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
