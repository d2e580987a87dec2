"""What generators of samples with planted defects have in common: data whose truth is known.

Sample i is a function of the seed, i and the options of its world; its defects are planned for
every block of a hundred, so that their shares are exact.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from djsandbox_ray.dataset.source import Item, Sample, Shard, Source, SourceConfig
from djsandbox_ray.dataset.world import BLOCK, plan_defects
from djsandbox_ray.errors import unknown

_SHARD_ROWS = 500


class PlantedConfig(SourceConfig):
    """How many samples of which world, and what is wrong with them."""

    KNOWN: ClassVar[tuple[str, ...]]
    """Defects of the world, in its order."""

    samples: int = Field(gt=0, le=100_000_000)
    """How many; every 500 of them are a shard, which the driver lists."""
    seed: int = Field(default=0, ge=0)
    """Sample i depends on the seed, i, its size and the defects only."""
    defects: dict[str, float] = Field(default_factory=dict)
    """Share of the samples per defect, in whole percent, exact in every 100 samples."""
    independent: bool = False
    """Whether each defect is planted without regard to the others, so that a sample may have
    several; else it has at most one."""

    @field_validator("defects")
    @classmethod
    def _known(cls, defects: dict[str, float]) -> dict[str, float]:
        for name, fraction in defects.items():
            if name not in cls.KNOWN:
                raise ValueError(str(unknown("defect", name, cls.KNOWN)))
            if not 0 <= fraction <= 1:
                raise ValueError(f"{name}: {fraction} is not a fraction from 0 to 1")
            if abs(fraction * BLOCK - round(fraction * BLOCK)) > 1e-9:
                raise ValueError(f"{name}: {fraction} is not a whole number of percent")
        return defects

    @model_validator(mode="after")
    def _fit(self) -> Self:
        total = sum(self.defects.values())
        if not self.independent and total > 1 + 1e-9:
            raise ValueError(
                f"the fractions of the defects add up to {total:g}, more than 1 (independent: true "
                "lets a sample have several)"
            )
        return self


class PlantedSource(Source):
    """A shard is 500 samples. ``meta`` holds the defect and what there is to see."""

    NAME: ClassVar[str]
    """Of the world; shards and samples are called ``NAME#index``."""
    WORLD: ClassVar[int]
    """Version of the world: raised when the same seed gives other samples."""
    config: PlantedConfig

    def shards(self) -> list[Shard]:
        """Cut the samples into ranges."""
        total = self.config.samples
        return [
            Shard(
                f"{self.NAME}#{start}",
                {"world": self.WORLD},
                partial(_generate, type(self), self.config, start, min(start + _SHARD_ROWS, total)),
                min(_SHARD_ROWS, total - start),
            )
            for start in range(0, total, _SHARD_ROWS)
        ]

    @classmethod
    @abstractmethod
    def sample(cls, config: Any, index: int, defects: Sequence[str]) -> Sample:
        """Make one sample.

        Args:
            config: of the source.
            index: of the sample.
            defects: of the world, in its order; none for a clean one.
        """


def _generate(
    source: type[PlantedSource], config: PlantedConfig, start: int, stop: int
) -> Iterator[Item]:
    planned: list[tuple[str, ...]] = []
    for index in range(start, stop):
        if not planned or index % BLOCK == 0:
            planned = plan_defects(
                config.defects, config.seed, index // BLOCK, config.independent, config.KNOWN
            )
        yield source.sample(config, index, planned[index % BLOCK])
