"""VBench: sixteen dimensions of generated videos, its two averages and their total."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from djsandbox_ray.dataset.media import MODALITIES, Content
from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.video.board import (
    DIMENSIONS,
    HIGHEST,
    averages,
    averages_of,
    in_range,
    part_of,
)
from djsandbox_ray.evaluation.video.dimensions import (
    VideoValue,
    aesthetic_quality,
    appearance_style,
    consistency,
    mean_value,
    temporal_flickering,
)
from djsandbox_ray.evaluation.video.evaluator import VideoEvaluator, VideoEvaluatorConfig
from djsandbox_ray.evaluation.video.features import (
    ClipFrames,
    DinoFrames,
    aesthetic_head,
    weights_digest,
)
from djsandbox_ray.evaluation.video.official import SKIPS, OfficialVbench, OfficialVbenchConfig
from djsandbox_ray.evaluation.video.prompts import (
    VIDEOS_PER_PROMPT,
    VideoPrompt,
    chosen_prompts,
    read_prompts,
    videos_of,
)
from djsandbox_ray.evaluation.video.stored_videos import Videos
from djsandbox_ray.evaluation.video.video_files import Frames, file_name, video_frames
from djsandbox_ray.evaluation.video.wanted import WantedVideo
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Spoil
from djsandbox_ray.settings.code import version_of
from djsandbox_ray.settings.sections import Section

Implementation = Literal["native", "official"]

NATIVE: dict[str, tuple[str, ...]] = {
    "subject_consistency": ("dino",),
    "background_consistency": ("clip_b32",),
    "temporal_flickering": (),
    "aesthetic_quality": ("clip_l14", "aesthetic_head"),
    "appearance_style": ("clip_b32",),
}
"""The dimensions that are computed here, with the weights that each takes."""
STILL = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
)
"""Dimensions in which nothing is as good as a video that stands still."""
_MOVES = "dynamic_degree"
_SEEN = "seen"
_WHOLE = ""
"""The key of what is kept of all videos together."""


class VbenchWeights(Section):
    """Models for the dimensions that are computed here: folders as Hugging Face has them."""

    dino: str | None = None
    """``facebook/dino-vitb16``, for ``subject_consistency``."""
    clip_b32: str | None = None
    """``openai/clip-vit-base-patch32``, for ``background_consistency`` and ``appearance_style``."""
    clip_l14: str | None = None
    """``openai/clip-vit-large-patch14``, for ``aesthetic_quality``."""
    aesthetic_head: str | None = None
    """LAION's ``sa_0_4_vit_l_14_linear.pth``, for ``aesthetic_quality``."""


class VbenchConfig(VideoEvaluatorConfig):
    """Which dimensions are measured, by what, and of which videos."""

    dimensions: Literal["all", "quality", "semantic"] | tuple[str, ...] = "all"
    """Names, or one of the two parts, or all."""
    implementation: Literal["auto", "native", "official"] = "auto"
    """``official`` has all measured by VBench itself, ``native`` all here; ``auto``, here what is
    computed here and has its weights, by VBench the others."""
    weights: VbenchWeights = Field(default_factory=VbenchWeights)
    """Where the models lie that measure."""
    official: OfficialVbenchConfig | None = None
    """VBench itself."""
    prompts: str
    """``VBench_full_info.json``, as VBench's package has it, or prompts of your own in that form.
    """
    videos_per_prompt: int = Field(default=VIDEOS_PER_PROMPT, ge=1, le=VIDEOS_PER_PROMPT)
    """VBench has 5."""
    limit: int | None = Field(default=None, ge=1)
    """So many prompts of each dimension, the same ones for every trial; such a score is none to
    compare with published ones."""

    @field_validator("dimensions")
    @classmethod
    def _known(cls, dimensions: Any) -> Any:
        if isinstance(dimensions, tuple):
            if not dimensions or len(set(dimensions)) < len(dimensions):
                raise ValueError("names are needed, each once")
            for name in dimensions:
                if name not in DIMENSIONS:
                    raise ValueError(str(unknown("dimension", name, DIMENSIONS)))
        return dimensions

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        names = self.measured()
        if self.implementation == "native" and (others := [n for n in names if n not in NATIVE]):
            raise ValueError(
                f"implementation: native: {', '.join(others)} are not computed here (these are: "
                f"{', '.join(NATIVE)})"
            )
        if self.implementation == "native":
            for name in names:
                if lacking := self._lacking(name):
                    raise ValueError(
                        f"implementation: native: {name} takes weights.{', weights.'.join(lacking)}"
                    )
        if self.official is None and (by_vbench := self.by("official")):
            first, lacking = by_vbench[0], self._lacking(by_vbench[0])
            here = f"; for {first}, weights.{lacking[0]} would do" if lacking else ""
            listed = ", ".join(by_vbench)
            raise ValueError(
                f"official: is needed for {listed}: VBench's environment and cache{here}"
            )
        return self

    def measured(self) -> tuple[str, ...]:
        """Return the dimensions that are measured, in the order of the leaderboard."""
        if self.dimensions == "all":
            return tuple(DIMENSIONS)
        if isinstance(self.dimensions, str):
            return part_of(self.dimensions)
        return tuple(name for name in DIMENSIONS if name in self.dimensions)

    def by(self, implementation: Implementation) -> tuple[str, ...]:
        """Return the dimensions that are measured in one of the two ways."""
        return tuple(name for name in self.measured() if self._way(name) == implementation)

    def _way(self, name: str) -> Implementation:
        if self.implementation != "auto":
            return self.implementation
        return "official" if name not in NATIVE or self._lacking(name) else "native"

    def _lacking(self, name: str) -> list[str]:
        return [one for one in NATIVE.get(name, ()) if getattr(self.weights, one) is None]


class Vbench(VideoEvaluator):
    """``vbench/<dimension>`` as VBench gives it, and the averages of the leaderboard.

    These are there where all of their dimensions are measured; what is not measured is no zero.
    """

    Config = VbenchConfig
    VERSION: ClassVar[int] = 1
    CONTENT: ClassVar[tuple[Content, ...]] = tuple(MODALITIES)
    NOT_ASKED: ClassVar[frozenset[str]] = frozenset(
        {"name", "keep", "dimensions", "implementation", "weights", "official"}
    )
    config: VbenchConfig

    @cached_property
    def prompts(self) -> tuple[VideoPrompt, ...]:
        """The prompts that are used; their file is where the configuration is: on the driver."""
        config = self.config
        return chosen_prompts(read_prompts(config.prompts), config.measured(), config.limit)

    @cached_property
    def official(self) -> OfficialVbench | None:
        """VBench itself, where something is measured by it."""
        given = self.config.official
        return OfficialVbench(given) if given is not None and self.config.by("official") else None

    @cached_property
    def measuring(self) -> dict[str, str]:
        """What stands for how each dimension is measured, and of which prompts; by name."""
        weights = {name: weights_digest(path) for name, path in self._weights().items()}
        program = None if self.official is None else self.official.identity()
        found = {}
        for name in self.config.measured():
            is_native = name in self.config.by("native")
            way = [weights[one] for one in NATIVE[name]] if is_native else program
            prompts = [one.entry() for one in self.prompts if name in one.dimensions]
            version = version_of(type(self))
            found[name] = content_id("measured", name, version, is_native, way, prompts)
        return found

    def identity(self) -> Any:
        """Return what decides the numbers: prompts, weights and the program by their contents."""
        return {"asking": self.asking(), "measuring": self.measuring}

    def asking(self) -> Any:
        """Return what decides the videos: sampling, and whose videos they are."""
        videos = [[one.prompt, one.number] for one in self.wanted()]
        sampling = self.config.sampling.model_dump(mode="json")
        return {"sampling": sampling, "videos": content_id("videos", videos)}

    def needs_samples(self) -> bool:
        """Say that prompts are enough."""
        return False

    def metrics(self) -> tuple[Metric, ...]:
        """Return the dimensions and the averages; by default, what the others are part of counts.

        That is the total; without it quality, semantic, and dimensions that are in neither.
        """
        names = self.config.measured()
        known = averages_of(names)
        covered = {
            name for part in ("quality", "semantic") if part in known for name in part_of(part)
        }
        found = [
            Metric(
                f"{self.name}/{name}",
                low=DIMENSIONS[name].lowest,
                high=HIGHEST,
                scored=name not in covered,
            )
            for name in names
        ]
        best = {"total"} if "total" in known else set(known)
        found += [Metric(f"{self.name}/{name}", scored=name in best) for name in known]
        found += [
            Metric(f"{self.name}/{name}_{_SEEN}", low=0, high=1, scored=False)
            for name in names
            if name in SKIPS
        ]
        return tuple(found)

    def sees(self, metric: Metric) -> frozenset[Spoil]:
        """Say what a metric shows: those of smoothness like videos that stand still best.

        So that quality, of which four dimensions of seven are of smoothness, stays what it was: a
        good model (.826) whose videos stood still would lose all of its dynamics and gain as much.
        """
        name = metric.name.rpartition("/")[2]
        made_of = {
            "quality": part_of("quality"),
            "semantic": part_of("semantic"),
            "total": tuple(DIMENSIONS),
            "uniform": tuple(DIMENSIONS),
        }.get(name, (name,))
        found: set[Spoil] = set()
        if name == _MOVES:
            found.add("frames")
        if any(one in DIMENSIONS and DIMENSIONS[one].part == "semantic" for one in made_of):
            found.add("captions")
        return frozenset(found)

    def check(self, data: EvaluationSet) -> None:
        """Look for prompts, weights and VBench's packages.

        Raises:
            BadInput: something is not there.
        """
        for name, path in self._weights().items():
            if not Path(path).exists():
                raise BadInput(f"{self.name}: weights.{name}: {path!r} does not exist")
        if self.official is not None:
            self.official.check(self.config.by("official"))
        assert self.measuring, "it is sent to workers, which have no such files"

    def remarks(self, data: EvaluationSet) -> tuple[str, ...]:
        """Say what a limit leaves, and which dimensions reward videos that stand still."""
        config, names = self.config, self.config.measured()
        found = []
        if config.limit is not None or config.videos_per_prompt < VIDEOS_PER_PROMPT:
            there = chosen_prompts(read_prompts(config.prompts), names)
            known = len(videos_of(there, VIDEOS_PER_PROMPT))
            found.append(
                f"{self.name}: {len(self.wanted()):,} of {known:,} videos are made: no score to "
                "compare with published ones"
            )
        still = [name for name in names if name in STILL]
        if still and _MOVES not in names:
            found.append(
                f"{self.name}: {', '.join(still)}: nothing is as good there as a video that stands "
                f"still; read them beside {_MOVES}, or another metric of motion"
            )
        return tuple(found)

    def wanted(self, data: EvaluationSet | None = None) -> list[WantedVideo]:
        """Return the videos of all prompts."""
        return videos_of(self.prompts, self.config.videos_per_prompt)

    def measure(self, videos: Videos, data: EvaluationSet) -> dict[str, float]:
        """Measure all dimensions, those of one model after each other.

        Raises:
            BadInput: weights are none, or a value is none that can be.
            SandboxError: VBench failed, or a video cannot be read.
        """
        device = "cuda" if videos.gpus > 0 else "cpu"
        models = _Models(self.config.weights, device)
        values, seen = self._official(videos)
        values |= {name: self._native(name, videos, models) for name in self.config.by("native")}
        values = {name: in_range(name, values[name], self.name) for name in self.config.measured()}
        found = {**values, **averages(values), **seen}
        return {f"{self.name}/{name}": value for name, value in found.items()}

    def _native(self, dimension: str, videos: Videos, models: _Models) -> float:
        """Return the value of a dimension over its videos."""
        wanted = videos_of(self.prompts, self.config.videos_per_prompt, dimension)
        name = self._kept_as(dimension)
        kept = videos.kept(name, (one.key for one in wanted))
        if kept is None:
            styles = {
                one.text: str(one.more[dimension]["appearance_style"])
                for one in self.prompts
                if dimension == "appearance_style" and dimension in one.dimensions
            }
            measure = models.measures(dimension, styles)
            kept = {}
            for one, data in videos.each(wanted):
                found = measure(one, video_frames(data, f"video {one.number} of {one.prompt!r}"))
                kept[one.key] = [found.value, found.weight]
            videos.keep(name, kept)
        return mean_value([VideoValue(kept[one.key][0], int(kept[one.key][1])) for one in wanted])

    def _official(self, videos: Videos) -> tuple[dict[str, float], dict[str, float]]:
        """Return what VBench gives, and in which share of the videos it has seen anything."""
        each, names = self.config.videos_per_prompt, self.config.by("official")
        wanted = {name: videos_of(self.prompts, each, name) for name in names}
        kept = {name: videos.kept(self._kept_as(name), [_WHOLE]) for name in names}
        lacking = [name for name in names if kept[name] is None]
        if lacking and self.official is not None:
            prompts = chosen_prompts(self.prompts, lacking)
            found = self.official.measure(videos, prompts, lacking, each)
            for name, result in found.items():
                keys = {file_name(one.prompt, one.number): one.key for one in wanted[name]}
                singles = {keys[file]: [value] for file, value in result.videos.items()}
                kept[name] = {_WHOLE: [result.value], **singles}
                videos.keep(self._kept_as(name), kept[name] or {})
        values = {name: (kept[name] or {})[_WHOLE][0] for name in names}
        seen = {
            f"{name}_{_SEEN}": (len(kept[name] or {}) - 1) / len(wanted[name])
            for name in names
            if name in SKIPS
        }
        return values, seen

    def _kept_as(self, dimension: str) -> str:
        return f"{dimension}-{self.measuring[dimension].rpartition('-')[2]}"

    def _weights(self) -> dict[str, str]:
        """Return the weights that are used, by name."""
        needed = dict.fromkeys(one for name in self.config.by("native") for one in NATIVE[name])
        return {name: str(getattr(self.config.weights, name)) for name in needed}


class _Models:
    """The models of one measurement, each loaded when it is needed first.

    Args:
        weights: where they are.
        device: what torch calls it.
    """

    def __init__(self, weights: VbenchWeights, device: str) -> None:
        self._weights, self._device = weights, device
        self._loaded: dict[str, ClipFrames] = {}

    def measures(
        self, dimension: str, styles: dict[str, str]
    ) -> Callable[[WantedVideo, Frames], VideoValue]:
        """Return what measures a video.

        Args:
            dimension: of those that are computed here.
            styles: by prompt, what its videos are to look like.
        """
        weights = self._weights
        if dimension == "subject_consistency":
            dino = DinoFrames(str(weights.dino), self._device)
            return lambda one, frames: consistency(dino(frames))
        if dimension == "background_consistency":
            clip = self._clip(str(weights.clip_b32))
            return lambda one, frames: consistency(clip(frames))
        if dimension == "appearance_style":
            clip = self._clip(str(weights.clip_b32))
            texts = {style: clip.text(style) for style in dict.fromkeys(styles.values())}
            return lambda one, frames: appearance_style(
                clip.smoothed(frames), texts[styles[one.prompt]], clip.scale
            )
        if dimension == "aesthetic_quality":
            clip = self._clip(str(weights.clip_l14))
            head = aesthetic_head(str(weights.aesthetic_head))
            return lambda one, frames: aesthetic_quality(clip(frames), *head)
        return lambda one, frames: temporal_flickering(frames)

    def _clip(self, folder: str) -> ClipFrames:
        if folder not in self._loaded:
            self._loaded[folder] = ClipFrames(folder, self._device)
        return self._loaded[folder]
