"""How far a model's videos are, as a whole, from real ones: Frechet's and a kernel distance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, field_validator

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, Source, content_of
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet, least
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.video.evaluator import VideoEvaluator, VideoEvaluatorConfig
from djsandbox_ray.evaluation.video.features import VideoMaeClips, weights_digest
from djsandbox_ray.evaluation.video.frechet import (
    LEAST,
    checked,
    frechet_distance,
    kernel_distance,
)
from djsandbox_ray.evaluation.video.i3d import DIMENSIONS_OF_I3D, I3dClips, I3dConfig
from djsandbox_ray.evaluation.video.stored_videos import Videos
from djsandbox_ray.evaluation.video.video_files import Frames, video_frames
from djsandbox_ray.evaluation.video.wanted import WantedVideo, of_captions
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Spoil
from djsandbox_ray.settings.code import version_of
from djsandbox_ray.settings.sections import Component, Section, component

FRAMES_OF_VIDEOMAE, FRAMES_OF_I3D = 16, 16
"""Where nothing else is said; I3D looks at any number of them, cd-fvd at so many."""


class VideoMaeConfig(Section):
    """A VideoMAE: content-debiased FVD (Ge et al. 2024)."""

    type: Literal["videomae"]
    path: str
    """A folder as Hugging Face has it, such as ``MCG-NJU/videomae-base``; on all nodes."""


class FvdConfig(VideoEvaluatorConfig):
    """Which features of which videos are compared."""

    features: Annotated[VideoMaeConfig | I3dConfig, Field(discriminator="type")]
    """``{type: videomae, path: ...}``, computed here, or ``{type: i3d, path: ..., environment:
    {packages: [cd-fvd==0.1.1]}}``, as published FVD has them."""
    reference: Annotated[SerializeAsAny[Component], component(SOURCES)] | None = None
    """Real videos with captions; if left out, the trusted split."""
    videos: int = Field(default=2048, ge=2)
    """So many are compared with as many: the captions of the real ones are the prompts. Distances
    with different numbers are not to be compared."""
    stride: int = Field(default=1, ge=1)
    """Every how many frames of a real video: so that it has the frame rate of the others."""
    force: bool = False
    """Whether fewer than 256 videos, or fewer than there are features, will do."""

    @field_validator("reference")
    @classmethod
    def _of_videos(cls, reference: Component | None) -> Component | None:
        if reference is not None and content_of(reference) != "videos":
            raise ValueError("its samples are to be videos with captions (content: videos)")
        return reference


class Fvd(VideoEvaluator):
    """``fvd/frechet``, the Frechet video distance, and ``fvd/kernel``; both are better when less.

    Neither knows which prompt a video belongs to, and the draw of the videos alone moves them: with
    a few hundred by more than all that is lost when nothing moves any more.
    """

    Config = FvdConfig
    VERSION: ClassVar[int] = 1
    CONTENT: ClassVar[tuple[Content, ...]] = ("videos",)
    SEES: ClassVar[frozenset[Spoil]] = frozenset()
    NOT_ASKED: ClassVar[frozenset[str]] = frozenset(
        {"name", "keep", "features", "reference", "stride", "force"}
    )
    config: FvdConfig

    @cached_property
    def i3d(self) -> I3dClips | None:
        """The program that computes features, where it is one."""
        given = self.config.features
        return I3dClips(given) if isinstance(given, I3dConfig) else None

    @cached_property
    def looking(self) -> str:
        """What stands for how features are computed."""
        program = None if self.i3d is None else self.i3d.identity()
        given = self.config.features
        weights = weights_digest(given.path)
        return content_id("features", version_of(type(self)), given.type, weights, program)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """How many features there are, and of how many frames of each video."""
        given = self.config.features
        if isinstance(given, I3dConfig):
            return DIMENSIONS_OF_I3D, min(self.config.sampling.frames, FRAMES_OF_I3D)
        path = Path(given.path, "config.json")
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            return int(known["hidden_size"]), int(known.get("num_frames", FRAMES_OF_VIDEOMAE))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{self.name}: features.path: {path}: no VideoMAE: {error}") from None

    def identity(self) -> Any:
        """Return what decides the numbers: weights and the program by their contents."""
        config = self.config
        return {"asking": self.asking(), "features": self.looking, "stride": config.stride}

    def source(self) -> Source | None:
        """Return the real videos, where they are not the trusted split."""
        reference = self.config.reference
        return None if reference is None else SOURCES.get(reference.type)(reference)

    def metrics(self) -> tuple[Metric, ...]:
        """Name both; only the first is part of the score by default."""
        return (
            Metric(f"{self.name}/frechet", "less", low=0.0),
            Metric(f"{self.name}/kernel", "less", scored=False),
        )

    def check(self, data: EvaluationSet) -> None:
        """Look whether there are enough videos, the weights, and the packages of a program.

        Raises:
            BadInput: something is not there.
        """
        config, weights = self.config, Path(self.config.features.path)
        if len(data.texts) != data.rows or data.rows < config.videos:
            raise BadInput(
                f"{self.name}: {config.videos} videos are compared with as many real ones, but "
                f"{data.id or 'the set'} has {data.rows} with captions (videos: says how many)"
            )
        if not weights.exists():
            raise BadInput(f"{self.name}: features.path: {str(weights)!r} does not exist")
        dimensions, frames = self.shape
        if config.sampling.frames < frames:
            raise BadInput(
                f"{self.name}: sampling.frames: {config.sampling.frames}; the model in "
                f"{str(weights)!r} looks at {frames} frames"
            )
        least_videos = max(LEAST, dimensions + 1)
        if config.videos < least_videos and not config.force:
            raise BadInput(
                f"{self.name}: videos: {config.videos}; at least {least_videos} are needed with "
                "these features (force: true computes it of fewer, for a try)"
            )
        if self.i3d is not None:
            self.i3d.program.check()
        assert self.looking, "it is sent to workers, which may have no such files"

    def remarks(self, data: EvaluationSet) -> tuple[str, ...]:
        """Say what its numbers are not to be compared with."""
        found = [
            f"{self.name}: of {self.config.videos:,} videos each; numbers from other numbers of "
            "videos, frames or sizes are not to be compared with it"
        ]
        if self.config.videos < LEAST:
            found.append(f"{self.name}: fewer than {LEAST} videos: the draw alone moves it more")
        return tuple(found)

    def wanted(self, data: EvaluationSet) -> list[WantedVideo]:
        """Return a video for the caption of every real one; of equal captions several."""
        return of_captions(data.texts[row] for row in self._rows(data))

    def measure(self, videos: Videos, data: EvaluationSet) -> dict[str, float]:
        """Compute features of what has none, and compare.

        Raises:
            BadInput: no distance can be computed; see :func:`.frechet.checked`.
            SandboxError: a video cannot be read, or is too short.
        """
        wanted, rows = self.wanted(data), self._rows(data)
        identity = [self.looking, data.id, rows, list(self.shape), self.config.stride]
        name = content_id("real", *identity, list(self.config.sampling.size))
        real = videos.shared(name, map(str, rows))
        if real is None:
            real = self._features(self._real(data, rows), [str(row) for row in rows], videos)
            videos.share(name, real)
        kept_as = f"features-{self.looking.rpartition('-')[2]}"
        keys = [one.key for one in wanted]
        made = videos.kept(kept_as, keys)
        if made is None:
            found = (
                video_frames(data, f"video {one.number} of {one.prompt!r:.60}")
                for one, data in videos.each(wanted)
            )
            made = self._features(found, keys, videos)
            videos.keep(kept_as, made)
        force = self.config.force
        first = checked(_stacked(real, map(str, rows)), f"{self.name}, real", force=force)
        second = checked(_stacked(made, keys), f"{self.name}, made", force=force)
        return {
            f"{self.name}/frechet": frechet_distance(first, second),
            f"{self.name}/kernel": kernel_distance(first, second),
        }

    def _rows(self, data: EvaluationSet) -> list[int]:
        """Return the rows of the real videos, the same ones for every trial."""
        return sorted(map(int, least(map(str, range(data.rows)), self.config.videos)))

    def _real(self, data: EvaluationSet, rows: Sequence[int]) -> Iterator[Frames]:
        """Yield real videos, cut and scaled as the others are."""
        table, stride = SampleTable(data.uri), self.config.stride
        for row in rows:
            media = table.media([row], "video")[0]
            if not media:
                raise BadInput(f"{self.name}: row {row} of {data.id} has no video")
            frames = video_frames(media[0].data, f"the video of row {row} of {data.id}")
            yield fitted(frames[::stride], self.config.sampling.size)

    def _features(
        self, found: Iterator[Frames], keys: Sequence[str], videos: Videos
    ) -> dict[str, list[float]]:
        """Return the features of videos, by key."""
        some = (self._first(frames, key) for frames, key in zip(found, keys, strict=True))
        if self.i3d is not None:
            rows = self.i3d.features(some, cpus=videos.cpus, gpus=videos.gpus)
            return {key: row.tolist() for key, row in zip(keys, rows, strict=True)}
        looks: Callable[[Frames], NDArray[np.float32]] = VideoMaeClips(
            self.config.features.path, "cuda" if videos.gpus > 0 else "cpu"
        )
        return {key: looks(frames).tolist() for key, frames in zip(keys, some, strict=True)}

    def _first(self, frames: Frames, key: str) -> Frames:
        count = self.shape[1]
        if len(frames) < count:
            raise SandboxError(
                f"{self.name}: video {key} has {len(frames)} frames; {count} are compared (stride: "
                f"{self.config.stride})"
            )
        return frames[:count]


def fitted(frames: Frames, size: tuple[int, int]) -> Frames:
    """Return the middle of frames in the shape of another size, smoothly scaled to it.

    Args:
        frames: (frames, height, width, 3).
        size: height and width.
    """
    from PIL import Image

    height, width = frames.shape[1:3]
    if (height, width) == tuple(size):
        return frames
    scale = min(height / size[0], width / size[1])
    tall, wide = (max(1, round(side * scale)) for side in size)
    top, left = (height - tall) // 2, (width - wide) // 2
    shape, way = (size[1], size[0]), Image.Resampling.BILINEAR
    middle = np.ascontiguousarray(frames[:, top : top + tall, left : left + wide])
    return np.stack([np.asarray(Image.fromarray(one).resize(shape, way)) for one in middle])


def _stacked(features: Mapping[str, Sequence[float]], keys: Any) -> NDArray[np.float64]:
    return np.array([features[key] for key in keys], dtype=np.float64)
