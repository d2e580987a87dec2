"""A generator of image-text pairs with planted defects: data whose truth is known."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_validator

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.source import Rejection, Sample, Shard, Source, SourceConfig
from djsandbox_ray.dataset.world import (
    BLOCK,
    CLEAN,
    DEFECTS,
    IMAGE_DEFECTS,
    TEXT_DEFECTS,
    Scene,
    describe,
    draw_scene,
    plan_defects,
    random_scene,
)
from djsandbox_ray.errors import unknown

_SHARD_ROWS = 500

Make: TypeAlias = Callable[[int, int, Sequence[str], int], Sample]
"""Makes a sample of seed, index, defects and image size; picklable."""


class ShapesConfig(SourceConfig):
    """How many samples of which world."""

    DEFECTS: ClassVar[tuple[str, ...]] = DEFECTS
    """What can be wrong there."""

    samples: int = Field(gt=0, le=100_000_000)
    """How many; every 500 of them are a shard, which the driver lists."""
    seed: int = Field(default=0, ge=0)
    """Sample i depends on the seed, i, the image size and the defects only."""
    image_size: int = Field(default=32, ge=16, le=512)
    """Pixels of each side."""
    defects: dict[str, float] = Field(default_factory=dict)
    """Share of the samples per defect, in whole percent, exact in every 100 samples: mismatched,
    boilerplate, repeated_words, special_characters, blur, low_contrast, odd_size."""
    independent: bool = False
    """Whether each defect is planted without regard to the others, so that a sample may have
    several; else it has at most one."""

    @field_validator("defects")
    @classmethod
    def _known(cls, defects: dict[str, float]) -> dict[str, float]:
        for name, fraction in defects.items():
            if name not in cls.DEFECTS:
                raise ValueError(str(unknown("defect", name, cls.DEFECTS)))
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


class ShapesSource(Source):
    """A shard is 500 samples. ``meta`` holds the defect and what the image shows."""

    Config: ClassVar[type[SourceConfig]] = ShapesConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs",)
    NAME: ClassVar[str] = "shapes"
    WORLD: ClassVar[int] = 1
    """Version of the world: raised when the same seed gives other samples."""
    config: ShapesConfig

    @property
    def make(self) -> Make:
        """Makes one sample: see :func:`generate`."""
        return generate

    def shards(self) -> list[Shard]:
        """Cut the samples into ranges."""
        total = self.config.samples
        return [
            Shard(
                f"{self.NAME}#{start}",
                {"world": self.WORLD},
                partial(_generate, self.make, self.config, start, min(start + _SHARD_ROWS, total)),
                min(_SHARD_ROWS, total - start),
            )
            for start in range(0, total, _SHARD_ROWS)
        ]


def _generate(
    make: Make, config: ShapesConfig, start: int, stop: int
) -> Iterator[Sample | Rejection]:
    planned: list[tuple[str, ...]] = []
    for index in range(start, stop):
        if not planned or index % BLOCK == 0:
            planned = plan_defects(config.defects, config.seed, index // BLOCK, config.independent)
        yield make(config.seed, index, planned[index % BLOCK], config.image_size)


def generate(seed: int, index: int, defects: Sequence[str], image_size: int) -> Sample:
    """Make one sample.

    Args:
        seed: of the world.
        index: of the sample.
        defects: names of :data:`.world.DEFECTS`, in that order; none for a clean one.
        image_size: pixels of each side.
    """
    rng = np.random.default_rng([seed, index])
    scene = random_scene(rng)
    caption, image = describe(scene, rng), draw_scene(scene, rng, image_size)
    for defect in defects:
        if defect in TEXT_DEFECTS:
            caption = TEXT_DEFECTS[defect](scene, caption, rng)
        else:
            image = IMAGE_DEFECTS[defect](image, rng)
    return Sample(encoded(image), caption, f"shapes#{index}", facts(scene, defects))


def encoded(image: Image.Image) -> bytes:
    """Return an image as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def facts(scene: Scene, defects: Sequence[str]) -> dict[str, Any]:
    """Return what is known of a sample, as its meta data."""
    return {
        "defect": "+".join(defects) or CLEAN,
        "colour": scene.colour,
        "shape": scene.shape,
        "background": scene.background,
    }
