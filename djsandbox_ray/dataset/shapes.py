"""A generator of image-text pairs with planted defects: data whose truth is known."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.planted import PlantedConfig, PlantedSource
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.dataset.world import (
    CLEAN,
    DEFECTS,
    IMAGE_DEFECTS,
    TEXT_DEFECTS,
    Scene,
    describe,
    draw_scene,
    random_scene,
)


class ShapesConfig(PlantedConfig):
    """How many samples of which world.

    Defects: mismatched, boilerplate, repeated_words, special_characters, blur, low_contrast,
    odd_size.
    """

    KNOWN: ClassVar[tuple[str, ...]] = DEFECTS

    image_size: int = Field(default=32, ge=16, le=512)
    """Pixels of each side."""


class ShapesSource(PlantedSource):
    """A shard is 500 samples. ``meta`` holds the defect and what the image shows."""

    Config = ShapesConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs",)
    NAME: ClassVar[str] = "shapes"
    WORLD: ClassVar[int] = 1

    @classmethod
    def sample(cls, config: Any, index: int, defects: Sequence[str]) -> Sample:
        """Make one sample."""
        return generate(config.seed, index, defects, config.image_size)


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
