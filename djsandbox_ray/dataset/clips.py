"""A generator of short videos of moving shapes with planted defects: data whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator

from djsandbox_ray.dataset import mp4
from djsandbox_ray.dataset.media import Content, Media
from djsandbox_ray.dataset.moving_world import (
    DEFECTS,
    VIDEO_DEFECTS,
    describe,
    draw_frames,
    mismatched,
    random_scene,
)
from djsandbox_ray.dataset.planted import PlantedConfig, PlantedSource
from djsandbox_ray.dataset.shapes import encoded as still
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.dataset.world import CLEAN

_RATE = 8
"""Frames a second."""
_X264 = {"crf": "18", "preset": "veryfast"}


class ClipsConfig(PlantedConfig):
    """How many clips of the moving world. Defects: static, noise, mismatched, fast, cut."""

    KNOWN: ClassVar[tuple[str, ...]] = DEFECTS

    content: Content = "videos"
    """Or ``pairs``: of each clip its first frame alone, as an image, with its caption."""
    frames: int = Field(default=9, ge=2, le=257)
    """Of each clip, 8 a second. Codecs of text-to-video models want 4 k + 1 of them."""
    size: int = Field(default=32, ge=16, le=512)
    """Pixels of each side; an even number."""

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2:
            raise ValueError("an even number of pixels is needed: colours are stored by twos")
        return size


class ClipsSource(PlantedSource):
    """A shard is 500 clips, MP4 files with H.264; ``meta`` holds the defect and what they show.

    The same sample is the same file, wherever the same build of the encoder makes it.
    """

    Config = ClipsConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("videos", "pairs")
    NAME: ClassVar[str] = "clips"
    WORLD: ClassVar[int] = 1

    @classmethod
    def sample(cls, config: ClipsConfig, index: int, defects: Sequence[str]) -> Sample:
        """Make one clip."""
        rng = np.random.default_rng([config.seed, index])
        scene = random_scene(rng)
        fast = "fast" in defects
        frames = draw_frames(scene, rng, config.size, config.frames, fast=fast)
        caption = describe(mismatched(scene, rng) if "mismatched" in defects else scene)
        for defect in defects:
            if defect in VIDEO_DEFECTS:
                frames = VIDEO_DEFECTS[defect](frames, scene, rng)
        meta = {
            "defect": "+".join(defects) or CLEAN,
            "colour": scene.colour,
            "shape": scene.shape,
            "background": scene.background,
            "direction": scene.direction,
        }
        where = f"{cls.NAME}#{index}"
        if config.content == "pairs":
            return Sample(still(Image.fromarray(frames[0])), caption, where, meta)
        return Sample(b"", caption, where, meta, (Media("video", encoded(frames)),))


def encoded(frames: NDArray[np.uint8]) -> bytes:
    """Return frames as an MP4 file.

    Args:
        frames: (frames, height, width, 3), RGB; of an even height and width.

    Raises:
        MissingExtra: PyAV is not installed.
    """
    return mp4.encoded(frames, rate=_RATE, pixels="yuv420p", options=_X264)
