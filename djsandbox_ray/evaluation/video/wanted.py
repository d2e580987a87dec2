"""What a model that generates videos is asked for, and how."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from djsandbox_ray.evaluation.video.video_files import Frames
from djsandbox_ray.settings.sections import Section


class SamplingConfig(Section):
    """How videos are made; part of what decides them, as the prompts are."""

    steps: int = Field(default=25, ge=1, strict=True)
    """Steps of the sampler."""
    guidance: float = Field(default=6.0, ge=0)
    """How much more than without it the prompt counts; 1 for not at all."""
    frames: int = Field(default=17, ge=2, strict=True)
    """Of each video. Codecs of text-to-video models want 4 k + 1 of them."""
    size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] = (256, 256)
    """Height and width in pixels."""
    fps: float = Field(default=8.0, gt=0, le=120)
    """Frames a second, which some measures of motion read in the file."""


@dataclass(frozen=True)
class WantedVideo:
    """One of the videos of a prompt."""

    prompt: str
    number: int = 0
    """Among those of the same prompt."""

    @property
    def key(self) -> str:
        """What tells it from all others that are made in the same way."""
        return f"{self.noise[0]:016x}-{self.number}"

    @property
    def noise(self) -> tuple[int, int]:
        """Two whole numbers from which its noise is drawn: the same for every model."""
        digest = hashlib.blake2b(self.prompt.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little"), self.number

    def rng(self) -> np.random.Generator:
        """Return the generator of its noise, at its beginning."""
        return np.random.Generator(np.random.Philox(key=np.array(self.noise, dtype=np.uint64)))


def of_captions(captions: Iterable[str]) -> list[WantedVideo]:
    """Return a video for each of some captions; of equal ones several."""
    seen: Counter[str] = Counter()
    found = []
    for caption in captions:
        found.append(WantedVideo(caption, seen[caption]))
        seen[caption] += 1
    return found


@runtime_checkable
class VideoMaker(Protocol):
    """What a trained model that generates videos offers to evaluators."""

    cpus: float
    """That the trial has, for whoever measures its videos."""
    gpus: float
    """As ``cpus``."""

    def videos(self, wanted: Sequence[WantedVideo], sampling: SamplingConfig) -> Iterable[Frames]:
        """Make videos, and return each one's frames, in the order in which they are wanted.

        A model whose noise is that of :meth:`WantedVideo.rng` makes the same video whatever else it
        is asked for, so that models are compared on the same noise.

        Args:
            wanted: some of all that there will be, as many as are kept at a time.
            sampling: how.
        """
