"""The ``pools`` section of a configuration."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, field_validator

from djsandbox_ray.pools.builder import BUILDERS, BuilderConfig, StatisticRange
from djsandbox_ray.records import Range
from djsandbox_ray.settings.sections import Section, component

MIN_CONTROLS = 5
MOST_ARMS = 1000
"""Each is a column of the assignments, and a trial per seed."""
WHOLE_BUCKET_CONTROLS = 8
"""With one draw per arm nothing but the control arms tells how much arms scatter."""


class WithinConfig(StatisticRange):
    """What a statistic of every row in a pool is within."""


class PoolConfig(Section):
    """How statistics are cut into pools and how seeds draw from them."""

    buckets: int = Field(default=3, ge=2, le=127, strict=True)
    """Parts of equal size that every statistic is cut into: low and high, low, middle and high, or
    numbered."""
    size: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = "auto"
    """Rows of every pool; ``auto``: the smallest bucket of all testable statistics, or the smallest
    extra pool."""
    draw_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a pool that one seed trains on; 1.0: whole buckets, the same rows for every seed."""
    controls: (
        Annotated[int, Field(ge=MIN_CONTROLS, le=MOST_ARMS, strict=True)] | Literal["auto"]
    ) = "auto"
    """Control arms; ``auto``: twice the square root of the number of other pools, at least 5
    (8 with whole buckets)."""
    min_contrast: float = Field(default=0.05, ge=0, le=1)
    """Least probability that a row of the highest bucket exceeds one of the lowest; a statistic
    below it is not testable."""
    min_coverage: float = Field(default=0.5, gt=0, le=1)
    """Least share of rows with a value; a statistic below it is not testable, nor is an extra pool
    that is smaller than this share of a bucket of all rows."""
    self_tests: bool = True
    """Whether to add the pools whose verdict is known: shuffled statistic, shuffled captions."""
    seed: int = Field(default=0, strict=True)
    """Seed of the hash that splits ties, trims buckets and makes random buckets and draws."""
    within: tuple[WithinConfig, ...] = ()
    """Only rows that are in all of these ranges may be in a pool or control; by default all."""
    extra: tuple[Annotated[SerializeAsAny[BuilderConfig], component(BUILDERS)], ...] = ()
    """Builders of further pools, of rows that no bucket of a statistic stands for."""

    @field_validator("extra")
    @classmethod
    def _distinct(cls, extra: tuple[BuilderConfig, ...]) -> tuple[BuilderConfig, ...]:
        names = [item.name for item in extra]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two builders are named {twice[0]!r}: their pools need other names")
        return extra

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

    def least_rows(self, eligible: int) -> int:
        """Return how many rows a builder must pick at least, of so many that may be in a pool.

        With the size ``auto`` a pool brings all others to its own size: it may be as small as the
        buckets of a statistic that is just testable, and no smaller.
        """
        if self.size != "auto":
            return self.size
        return max(1, math.ceil(self.min_coverage * eligible / self.buckets))

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
