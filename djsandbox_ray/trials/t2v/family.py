"""Text to video as a model family: a base is adapted to the videos of a pool, and denoises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import require
from djsandbox_ray.evaluation.evaluator import Reads
from djsandbox_ray.records import RungReport, Spoil
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.trials.answering import evaluate_together
from djsandbox_ray.trials.family import ModelFamily, Prepared, TrialData, TrialTask, device_for
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION
from djsandbox_ray.trials.loop import AdditiveTraining, resolved
from djsandbox_ray.trials.lora import put_adapters
from djsandbox_ray.trials.model_folders import made_base
from djsandbox_ray.trials.staged import train_stages
from djsandbox_ray.trials.stages import Stage
from djsandbox_ray.trials.strategies.strategy import twin
from djsandbox_ray.trials.t2v.base import T2vBase
from djsandbox_ray.trials.t2v.build import Prompter, VideoBase, load_video_base
from djsandbox_ray.trials.t2v.clips import Clips
from djsandbox_ray.trials.t2v.config import T2vModelConfig, deciding
from djsandbox_ray.trials.t2v.denoisers import Surroundings, TransformerAdapter
from djsandbox_ray.trials.t2v.evaluated import EvaluationLatents, VideoDenoiser
from djsandbox_ray.trials.t2v.flops import denoising_flops
from djsandbox_ray.trials.t2v.latents import StoredLatents, write_latents
from djsandbox_ray.trials.t2v.objective import ComputedLatents, Denoising, Latents, PromptBook
from djsandbox_ray.trials.t2v.schedule import Schedule, schedule_of

VERSION = 1
"""Part of every trial's identity: to be raised with any change to what a training computes."""

_TRAIN = "train"
_HELD = 1
"""Bases that a process keeps in memory."""


class T2v(ModelFamily):
    """A text-to-video model that is adapted to a pool."""

    Config = T2vModelConfig
    OFFERS: ClassVar[tuple[Reads, ...]] = ("denoising",)
    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers")
    CONTENT: ClassVar[tuple[Content, ...]] = ("videos",)
    SPOILS: ClassVar[tuple[Spoil, ...]] = ("captions", "frames")
    config: T2vModelConfig

    @cached_property
    def _base(self) -> T2vBase:
        return T2vBase(self.config.base)

    def base(self) -> T2vBase:
        """Return how transformer, codec and text encoder are had."""
        return self._base

    def lost(self) -> list[str]:
        """Return the folder of the base, if it is not there."""
        if self._base.is_there():
            return []
        return [f"base.path: there is no folder {self.config.base.path!r}"]

    def identity(self) -> Any:
        """Return the settings, and what the base is made of."""
        found = {**deciding(self.config), "base": self._base.identity()}
        return {**found, "version": VERSION, "loop": LOOP_VERSION}

    def resolved(self, gpus: float) -> Self:
        """Decide what is ``auto``."""
        return type(self)(resolved(self.config, gpus))

    def numerics(self, gpus: float) -> dict[str, str]:
        """Add the precision, as it is resolved."""
        return {**super().numerics(gpus), "precision": resolved(self.config, gpus).precision}

    def flops_per_sample(self) -> float:
        """Count a forward and a backward pass; latents and embeddings are had once: not counted."""
        config, ratios = self.config, self._base.ratios()
        shape = ratios.shape(config.frames, *config.size)
        frozen = config.train == "lora"
        settings = self._base.transformer()
        return denoising_flops(settings, ratios, shape, config.prompt_tokens, frozen)

    def prepare(self, data: TrialData) -> Prepared:
        """Look whether the transformer reads the latents of such clips.

        Raises:
            BadInput: it does not.
        """
        config, ratios = self.config, self._base.ratios()
        settings = self._base.transformer()
        diffusers, torch = require("diffusers", "t2v"), require("torch", "clip")
        with torch.device("meta"):
            made = getattr(diffusers, settings["_class_name"]).from_config(settings)
        adapter = self._base.adapter()(made.config, Surroundings(ratios))
        adapter.check(ratios.shape(config.frames, *config.size))
        return Prepared(data)

    def unexportable(self) -> str:
        """Return nothing: diffusers saves what it has loaded."""
        return ""

    def train(self, task: TrialTask, shared: TrialData) -> Iterator[RungReport]:
        """Adapt the base to the clips of a draw."""
        config, device = self.config, device_for(task.cpus, task.gpus)
        half = config.precision == "bf16"
        with made_base(shared.base) as folder, temporary() as scratch:
            base = _held(str(folder), device, half, config.fps, config.guidance)
            prompter = _prompter(str(folder), device, type(base.adapter), config.prompt_tokens)
            schedule = schedule_of(base.scheduler, config.time, config.shift)
            draw = _Draw(config, task, shared, base, scratch)
            known = EvaluationLatents(shared.evaluation, draw.clips.shape, base.codec)

            def begin(stage: Stage, earlier: Mapping[str, Any]) -> AdditiveTraining:
                captions = draw.clips.captions()
                objective = Denoising(
                    adapted(base, config, task.seed),
                    base.adapter,
                    schedule,
                    draw.latents(),
                    captions,
                    PromptBook(captions, prompter),
                    task.seed,
                    config.caption_drop,
                    device,
                )
                return AdditiveTraining(
                    objective,
                    len(captions),
                    config,
                    task.seed,
                    device,
                    task.group,
                    task.pulse.beat,
                    threads=max(1, int(task.cpus)),
                )

            def evaluate(training: AdditiveTraining, samples: int) -> dict[str, float]:
                own = training.own()
                model = training.whole() if own is None else own
                if model is None:
                    return {}
                denoiser = _denoiser(model, base, config, schedule, known, prompter, device)
                if own is None:
                    return task.evaluate(denoiser, samples)
                return evaluate_together(task.group, denoiser, task.evaluate, samples)

            yield from train_stages(task, self.stages(task.budget), begin, evaluate)


class _Draw:
    """The clips of a trial, and their latents.

    Args:
        config: of the model.
        task: the trial.
        data: the tables.
        base: of the model.
        scratch: a folder for what is computed once.
    """

    def __init__(
        self,
        config: T2vModelConfig,
        task: TrialTask,
        data: TrialData,
        base: VideoBase,
        scratch: Path,
    ) -> None:
        self._task, self._base, self._scratch = task, base, scratch
        shape = ClipShape(config.frames, config.size, config.stride)
        seed = task.seed if config.window == "random" else None
        self._more: dict[str, Any] = {"seed": seed, "still": task.spoil == "frames"}
        self.clips = Clips(data.train, shape, task.rows, task.captions, **self._more)

    def latents(self) -> Latents:
        """Return the latents of all positions.

        Where a worker sees clips several times, they are computed once, before training.
        """
        self.clips.check()
        task, codec = self._task, self._base.codec
        if task.group.size > 1 or task.budget <= len(task.rows):
            return ComputedLatents(self.clips, codec)
        uri = self._scratch / "latents.lance"
        if not uri.exists():
            once = Clips(self.clips.table.uri, self.clips.shape, np.unique(task.rows), **self._more)
            write_latents(str(uri), once, codec, beat=task.pulse.beat)
        return StoredLatents(str(uri), task.rows)


def adapted(base: VideoBase, config: T2vModelConfig, seed: int) -> Any:
    """Return a transformer for one trial, which shares with the base what is not trained.

    Args:
        base: it stays as it is.
        config: what is trained.
        seed: decides the first matrices of the adapters; the second ones are zero, so that all
            pools begin as the base.

    Raises:
        BadInput: the transformer has no such layers.
    """
    model = twin(base.transformer)
    if config.train == "lora":
        lora = config.lora
        targets = lora.targets or base.adapter.TARGETS
        where = "trials.model.lora.targets"
        put_adapters(model, lora.rank, lora.alpha, targets, seed, where)
    else:
        for parameter in model.parameters():
            parameter.data = parameter.data.clone().float()
            parameter.requires_grad_(True)
    return model


def _denoiser(
    model: Any,
    base: VideoBase,
    config: T2vModelConfig,
    schedule: Schedule,
    known: EvaluationLatents,
    prompter: Prompter,
    device: str,
) -> VideoDenoiser:
    return VideoDenoiser(
        model,
        base.adapter,
        schedule,
        known,
        prompter,
        device,
        config.evaluation_batch,
        config.precision == "bf16",
    )


@lru_cache(maxsize=_HELD)
def _held(folder: str, device: str, half: bool, fps: float, guidance: float) -> VideoBase:
    """Return a base that stays in this process: trials share what they do not change."""
    return load_video_base(Path(folder), device, half, fps, guidance)


@lru_cache(maxsize=_HELD)
def _prompter(folder: str, device: str, adapter: type[TransformerAdapter], tokens: int) -> Prompter:
    """Return what makes embeddings of captions; those that it knows stay in this process."""
    return Prompter(Path(folder), adapter, tokens, device)
