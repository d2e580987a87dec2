"""Text to video as a model family: a base is adapted to the videos of a pool, and denoises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.evaluator import Reads
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.records import RungReport, Spoil
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.trials.answering import evaluate_together
from djsandbox_ray.trials.family import (
    Keep,
    ModelFamily,
    Prepared,
    TrialData,
    TrialTask,
    device_for,
)
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION
from djsandbox_ray.trials.loop import AdditiveTraining, resolved
from djsandbox_ray.trials.lora import AdapterFolder, Adapters, put_adapters
from djsandbox_ray.trials.model_folders import made_base
from djsandbox_ray.trials.staged import train_stages
from djsandbox_ray.trials.stages import Stage
from djsandbox_ray.trials.strategies.strategy import twin
from djsandbox_ray.trials.t2v.base import T2vBase
from djsandbox_ray.trials.t2v.base_folder import Prompter, VideoBase, load_video_base
from djsandbox_ray.trials.t2v.config import T2vModelConfig, deciding
from djsandbox_ray.trials.t2v.denoisers import Surroundings, TransformerAdapter
from djsandbox_ray.trials.t2v.distil import Consistency, ConsistencyConfig, Distillation
from djsandbox_ray.trials.t2v.encoding import LATENTS, PROMPTS, STILL, Encoding
from djsandbox_ray.trials.t2v.evaluated import EvaluationLatents
from djsandbox_ray.trials.t2v.flops import denoising_flops, prompt_width, without_storage
from djsandbox_ray.trials.t2v.latents import StoredLatents, write_latents
from djsandbox_ray.trials.t2v.maker import VideoModel
from djsandbox_ray.trials.t2v.objective import ComputedLatents, Denoising, Latents
from djsandbox_ray.trials.t2v.rewards import REWARDS
from djsandbox_ray.trials.t2v.schedule import Schedule, schedule_of
from djsandbox_ray.trials.t2v.stored_prompts import StoredFirst, StoredPrompts
from djsandbox_ray.trials.t2v.training_clips import Clips

VERSION = 3
"""Part of every trial's identity: to be raised with any change to what a training computes."""

_HELD = 1
"""Bases that a process keeps in memory."""


class T2v(ModelFamily):
    """A text-to-video model that is adapted to a pool."""

    Config = T2vModelConfig
    OFFERS: ClassVar[tuple[Reads, ...]] = ("denoising", "videos")
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
        """Return the folder of the base, if it is not there, and what else lacks."""
        found: list[str] = []
        config = self.config
        if not self._base.is_there():
            found.append(f"base.path: there is no folder {config.base.path!r}")
        if isinstance(config.init, AdapterFolder):
            found += [f"init.{phrase}" for phrase in config.init.lost()]
        if isinstance(config.objective, ConsistencyConfig):
            found += [f"objective.{phrase}" for phrase in config.objective.lost()]
        return found

    def identity(self) -> Any:
        """Return the settings, and what the base is made of."""
        found = {**deciding(self.config), "base": self._base.identity()}
        return {**found, "version": VERSION, "loop": LOOP_VERSION}

    def resolved(self, gpus: float) -> Self:
        """Decide what is ``auto``."""
        return type(self)(resolved(self.config, gpus))

    def libraries(self) -> tuple[str, ...]:
        """Add what makes adapters, where there are any."""
        adapters = self.config.train == "lora"
        return (*self.LIBRARIES, "peft") if adapters else self.LIBRARIES

    def numerics(self, gpus: float) -> dict[str, str]:
        """Add the precision, as it is resolved."""
        return {**super().numerics(gpus), "precision": resolved(self.config, gpus).precision}

    def keeps(self) -> bool:
        """Say that adapters are kept; of all of a transformer, there would be another for each."""
        return self.config.train == "lora"

    def flops_per_sample(self) -> float:
        """Count a forward and a backward pass; latents and embeddings are had once: not counted.

        Of a distillation also the three passes forward that give its target; not the decoder and
        the models of rewards.
        """
        config, ratios = self.config, self._base.ratios()
        shape = ratios.shape(config.frames, *config.size)
        frozen = config.train == "lora"
        more = (shape, config.prompt_tokens, frozen)
        settings = self._base.transformer()
        found = denoising_flops(settings, ratios, *more)
        if isinstance(config.objective, ConsistencyConfig) and config.objective.weights.cd:
            passes = 3 if config.objective.guidance else 2
            found += passes * denoising_flops(settings, ratios, *more, backward=False)
        return found

    def evaluation_flops(self, suite: Suite) -> float | None:
        """Count the passes of the transformer through what it denoises, and through its videos.

        Not those of the decoder, and of models that measure videos.
        """
        if not suite.reads <= set(self.OFFERS):
            return None  # nobody counts what programs do
        config, found = self.config, 0.0
        if times := suite.denoisings():
            found += times * self._pass(config.frames, config.size)
        for sampling, videos in suite.made():
            passes = sampling.steps * (1 if sampling.guidance == 1.0 else 2)
            if isinstance(config.objective, ConsistencyConfig):
                passes = config.objective.sampling_steps
            found += videos * passes * self._pass(sampling.frames, sampling.size)
        return found

    def _pass(self, frames: int, size: tuple[int, int]) -> float:
        """Count a pass forward through the transformer, for one clip."""
        ratios = self._base.ratios()
        more = (ratios.shape(frames, *size), self.config.prompt_tokens)
        return denoising_flops(self._base.transformer(), ratios, *more, True, backward=False)

    def stored_bytes(self, samples: int | None = None) -> dict[str, int]:
        """Count latents in half precision, and embeddings of whole prompts in that of trials."""
        config, found = self.config, {}
        if config.latents == "store" and config.window == "middle":
            shape = self._base.ratios().shape(config.frames, *config.size)
            found[LATENTS] = 2 * prod(shape)
        if config.prompts == "store":
            width = prompt_width(self._base.transformer())
            found[PROMPTS] = config.prompt_tokens * width * (2 if config.precision == "bf16" else 4)
        return found

    def prepare(self, data: TrialData) -> Prepared:
        """Look whether the transformer reads the latents of such clips, and have them stored.

        Raises:
            BadInput: it does not, or evaluators want videos of which it can make none.
        """
        config, ratios = self.config, self._base.ratios()
        settings = self._base.transformer()
        kind = self._base.adapter()
        adapter = kind(without_storage(settings).config, Surroundings(ratios))
        adapter.check(ratios.shape(config.frames, *config.size))
        work = data.preparing
        if work is None:
            return Prepared(data)
        for sampling in work.suite.samplings():
            try:
                adapter.check(ratios.shape(sampling.frames, *sampling.size))
            except BadInput as error:
                raise BadInput(f"evaluation.metrics: sampling: {error}") from error
        growth = work.growth
        numerics = self.numerics(growth.gpus)
        stored, seconds = Encoding(config, kind, ratios, data, work, numerics).store()
        held = seconds * growth.actor.get("CPU", 0.0), seconds * growth.gpus
        return Prepared(replace(data, preparing=None, stored=stored), *held)

    def unexportable(self) -> str:
        """Return nothing: diffusers saves what it has loaded."""
        return ""

    def train(self, task: TrialTask, shared: TrialData) -> Iterator[RungReport]:
        """Adapt the base to the clips of a draw."""
        config, device = self.config, device_for(task.cpus, task.gpus)
        half = config.precision == "bf16"
        with made_base(shared.base) as folder, temporary() as scratch:
            base = _held(str(folder), device, half, config.fps, config.guidance)
            prompter = _prompts(str(folder), device, base, config, shared.stored.get(PROMPTS))
            shape = base.codec.ratios.shape(config.frames, *config.size)
            tokens = base.adapter.tokens(shape)
            schedule = schedule_of(base.scheduler, config.time, config.shift, tokens)
            draw = _Draw(config, task, shared, base, scratch)
            known = EvaluationLatents(
                shared.evaluation, draw.clips.shape, base.codec, shared.stored
            )

            def begin(stage: Stage, earlier: Mapping[str, Any]) -> AdditiveTraining:
                objective = _objective(config, base, schedule, draw, prompter, task.seed, device)
                return AdditiveTraining(
                    objective,
                    len(draw.clips),
                    config,
                    task.seed,
                    device,
                    task.group,
                    task.pulse.beat,
                    threads=max(1, int(task.cpus)),
                )

            def evaluate(training: AdditiveTraining, samples: int) -> dict[str, float]:
                if task.keep is not None and samples >= task.rungs[-1]:
                    _keep(task.keep, training.weights(), config, base.adapter)
                own = training.own()
                model = training.whole() if own is None else own
                if model is None:
                    return {}
                held = (task.cpus, task.gpus)
                seen = VideoModel(model, base, config, schedule, known, prompter, device, *held)
                if own is None:
                    return task.evaluate(seen, samples)
                return evaluate_together(task.group, seen, task.evaluate, samples)

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
        still = task.spoil == "frames"
        self._more: dict[str, Any] = {"seed": seed, "still": still}
        self._stored = data.stored.get(STILL if still else LATENTS)
        self.clips = Clips(data.train, shape, task.rows, task.captions, **self._more)

    def latents(self) -> Latents:
        """Return the latents of all positions.

        Where none are stored and a worker sees clips several times, they are computed once, before
        training.
        """
        self.clips.check()
        task, codec = self._task, self._base.codec
        if self._stored is not None:
            return StoredLatents(self._stored, task.rows)
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
            pools begin as the base, or as the adapters that training begins with.

    Raises:
        BadInput: the transformer has no such layers, or the adapters do not fit them.
    """
    model = twin(base.transformer)
    if config.train == "lora":
        lora = config.lora
        targets = lora.targets or base.adapter.TARGETS
        where = "trials.model.lora.targets"
        put_adapters(model, lora.rank, lora.alpha, targets, seed, where)
        if isinstance(config.init, AdapterFolder):
            found, where = config.init.read(seed), f"trials.model.init.path: {config.init.path}"
            if found.alpha != lora.alpha:
                raise BadInput(f"{where}: trained with alpha {found.alpha:g}, not {lora.alpha:g}")
            found.fill(model, where)
    else:
        for parameter in model.parameters():
            parameter.data = parameter.data.clone().float()
            parameter.requires_grad_(True)
    return model


def taught(base: VideoBase, teacher: AdapterFolder, seed: int) -> Any:
    """Return a frozen transformer with adapters, which shares all else with the base.

    Args:
        base: it stays as it is.
        teacher: the adapters.
        seed: of the trial.

    Raises:
        BadInput: there are no adapters, or they are of another transformer.
    """
    model, found = twin(base.transformer), teacher.read(seed)
    where = f"trials.model.objective.teacher.path: {teacher.path}"
    put_adapters(model, found.rank, found.alpha, found.targets, seed, where)
    found.fill(model, where)
    return model.requires_grad_(False).eval()


def _objective(
    config: T2vModelConfig,
    base: VideoBase,
    schedule: Schedule,
    draw: _Draw,
    prompter: StoredFirst,
    seed: int,
    device: str,
) -> Denoising | Distillation:
    captions, what = draw.clips.captions(), config.objective
    model, book = adapted(base, config, seed), prompter.book(captions)
    if not isinstance(what, ConsistencyConfig):
        drop = config.caption_drop
        given = (draw.latents(), captions, book, seed, drop, device)
        return Denoising(model, base.adapter, schedule, *given)
    rewards = {name: REWARDS.get(one.type)(one) for name, one in what.used().items()}
    for reward in rewards.values():
        reward.prepare(device)
    teacher = what.teacher
    return Distillation(
        model,
        base.transformer if isinstance(teacher, str) else taught(base, teacher, seed),
        Consistency(base.adapter, schedule, what.time_scale),
        base.codec,
        draw.latents(),
        captions,
        book,
        config.frames,
        what,
        rewards,
        seed,
        device,
    )


def _keep(
    keep: Keep, weights: Mapping[str, Any], config: T2vModelConfig, adapter: TransformerAdapter
) -> None:
    """Keep the adapters of a model at the end of its training."""
    lora = config.lora
    kept = Adapters(lora.rank, lora.alpha, tuple(lora.targets or adapter.TARGETS), weights)

    def fill(folder: Path) -> Mapping[str, Any]:
        kept.write(folder)
        return {}

    keep(fill)


@lru_cache(maxsize=_HELD)
def _held(folder: str, device: str, half: bool, fps: float, guidance: float) -> VideoBase:
    """Return a base that stays in this process: trials share what they do not change."""
    return load_video_base(Path(folder), device, half, fps, guidance)


def _prompts(
    folder: str, device: str, base: VideoBase, config: T2vModelConfig, stored: str | None
) -> StoredFirst:
    """Return what has embeddings of captions, from a table where they are stored."""
    half = config.precision == "bf16"
    prompter = _prompter(folder, device, type(base.adapter), config.prompt_tokens, half)
    return StoredFirst(None if stored is None else StoredPrompts(stored), prompter)


@lru_cache(maxsize=_HELD)
def _prompter(
    folder: str, device: str, adapter: type[TransformerAdapter], tokens: int, half: bool
) -> Prompter:
    """Return what makes embeddings of captions; those that it knows stay in this process."""
    return Prompter(Path(folder), adapter, tokens, device, half)
