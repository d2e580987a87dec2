"""LLaVA as a model family: a projector is trained on the pool, then the whole on fixed data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, Source
from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.evaluation.evaluator import Reads
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.answering import evaluate_together
from djsandbox_ray.trials.conversations import LOOKED_AT, Conversations, naming, refuse_without
from djsandbox_ray.trials.family import (
    ModelFamily,
    Prepared,
    Preparing,
    TrialData,
    TrialTask,
    device_for,
)
from djsandbox_ray.trials.growing import Keys
from djsandbox_ray.trials.llava.answerer import LlavaAnswerer
from djsandbox_ray.trials.llava.base import FOLDERS, LlavaBase
from djsandbox_ray.trials.llava.base_folder import (
    Loaded,
    Words,
    load_base,
    read_words,
    written_out,
)
from djsandbox_ray.trials.llava.config import (
    FinetuneConfig,
    LlavaModelConfig,
    MiningConfig,
    TalkConfig,
    deciding,
)
from djsandbox_ray.trials.llava.features import (
    FEATURES,
    MOST,
    Pictured,
    StoredFeatures,
    of_table,
    store_features,
)
from djsandbox_ray.trials.llava.flops import PartFlops, count_parts
from djsandbox_ray.trials.llava.objective import NextTokens
from djsandbox_ray.trials.llava.pixels import Looks, Pixels, Squares
from djsandbox_ray.trials.llava.text import Encoded, Transcript
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION
from djsandbox_ray.trials.loop import AdditiveTraining, resolved
from djsandbox_ray.trials.model_folders import folder_content, is_there, local_folder, made_base
from djsandbox_ray.trials.staged import train_stages
from djsandbox_ray.trials.stages import Stage

VERSION = 2
"""Part of every trial's identity: to be raised with any change to what a training computes."""

_PROJECTOR, _FINETUNE = "projector", "finetune"
_COMMON = "mlp2x_gelu"
"""The projector that transformers' LLaVA has."""
_HELD = 2
"""Bases that a process keeps in memory."""


class Llava(ModelFamily):
    """A vision tower and a language model that learn to understand each other."""

    Config = LlavaModelConfig
    OFFERS: ClassVar[tuple[Reads, ...]] = ("answers", "likelihoods")
    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    CONTENT: ClassVar[tuple[Content, ...]] = ("pairs", "conversations")
    config: LlavaModelConfig

    @cached_property
    def _base(self) -> LlavaBase:
        return LlavaBase(self.config.base)

    def base(self) -> LlavaBase:
        """Return how the tower and the language model are had."""
        return self._base

    def sources(self) -> dict[str, Source]:
        """Return the data of the second stage."""
        finetune = self.config.finetune
        if finetune is None:
            return {}
        return {_FINETUNE: SOURCES.get(finetune.dataset.type)(finetune.dataset)}

    def lost(self) -> list[str]:
        """Return the folders of models that are not there."""
        base, mining = self.config.base, self._mining
        places = {f"base.{name}": getattr(base, name) for name in FOLDERS}
        if mining is not None:
            places["projector.tower"] = mining.tower
        return [
            f"{name}: there is no folder {place!r}"
            for name, place in places.items()
            if place is not None and not is_there(place)
        ]

    def identity(self) -> Any:
        """Return the settings, and what the base is made of."""
        found = {**deciding(self.config), "base": self._base.identity()}
        if (mining := self._mining) is not None:
            found["fine"] = folder_content(mining.tower)
        return {**found, "version": VERSION, "loop": LOOP_VERSION}

    def resolved(self, gpus: float) -> Self:
        """Decide what is ``auto`` in both stages."""
        config = resolved(self.config, gpus)
        if config.finetune is not None:
            config = config.model_copy(update={"finetune": resolved(config.finetune, gpus)})
        return type(self)(config)

    def libraries(self) -> tuple[str, ...]:
        """Add what makes adapters, where there are any."""
        second = self.config.finetune
        adapters = second is not None and second.train == "lora"
        return (*self.LIBRARIES, "peft") if adapters else self.LIBRARIES

    def numerics(self, gpus: float) -> dict[str, str]:
        """Add the precision, as it is resolved."""
        return {**super().numerics(gpus), "precision": resolved(self.config, gpus).precision}

    def stages(self, budget: int) -> tuple[Stage, ...]:
        """Return the projector's stage on the pool, and that of the whole on fixed data."""
        finetune = self.config.finetune
        if finetune is None:
            return (Stage(_PROJECTOR, budget),)
        first = Stage(_PROJECTOR, budget, judged=False)
        return (first, Stage(_FINETUNE, finetune.samples))

    def counted(self, budget: int) -> tuple[Stage, ...]:
        """Return the stages with the operations of both."""
        first, *others = super().counted(budget)
        finetune = self.config.finetune
        if finetune is None:
            return (first,)
        flops = self._parts(finetune.text_tokens).training(finetune.train)
        return (first, *(replace(stage, flops_per_sample=flops) for stage in others))

    def flops_per_sample(self) -> float:
        """Count the training of the projector."""
        return self._parts(self.config.text_tokens).training("projector")

    def evaluation_flops(self, suite: Suite) -> float | None:
        """Estimate captions, and answers as long as they may be to what is asked first.

        Of questions that hang on answers, as rotated options do, nobody knows how many there are.
        """
        if not suite.reads <= set(self.OFFERS):
            return None  # nobody counts what programs do
        found = 0.0
        if asked := suite.asked():
            parts = self._parts((self.config.finetune or self.config).text_tokens)
            found += sum(parts.answering(one.max_new_tokens) for one in asked)
        if weighed := suite.weighed():
            found += weighed * self._parts(self.config.text_tokens).weighing
        return found

    def stored_bytes(self, samples: int | None = None) -> dict[str, int]:
        """Count what the tower sees of an image, in the precision of trials, where it is stored."""
        how = self.config.features
        # Of samples nobody knows how many of, ``auto`` promises nothing.
        if how == "compute" or self._mining is not None or (how == "auto" and samples is None):
            return {}
        each = prod(self._base.seen()) * (2 if self.config.precision == "bf16" else 4)
        fits = how == "store" or each * (samples or 0) <= MOST
        return {FEATURES: each} if fits else {}

    def prepare(self, data: TrialData) -> Prepared:
        """Look at the first samples of all tables: whether there is enough to learn in them.

        Then have stored what the tower sees, if it is.
        """
        for name, config in self._configs().items():
            uri = data.train if name == _PROJECTOR else data.fixed[name]
            with made_base(data.base) as folder:
                _look(uri, read_words(folder), config)
        work = data.preparing
        if work is None or data.base is None:
            return Prepared(data)
        growth = work.growth
        wanted = [one for one in self._wanted(data, work) if self.stored_bytes(len(one.rows))]
        stored, seconds = store_features(
            wanted, data.base, self._base.seen(), work, self.numerics(growth.gpus)
        )
        held = seconds * growth.actor.get("CPU", 0.0), seconds * growth.gpus
        return Prepared(replace(data, preparing=None, stored=stored), *held)

    def _wanted(self, data: TrialData, work: Preparing) -> Iterator[Pictured]:
        """Yield the tables whose images trials look at: the pool's, fixed ones, and those of sets.

        Models are judged as their last stage leaves them.
        """
        configs = self._configs()
        last, whole = list(configs.values())[-1], self.config.precision != "bf16"
        tables: list[tuple[str, str, str, Keys, TalkConfig]]
        tables = [(FEATURES, work.dataset, data.train, work.rows(None, "captions"), self.config)]
        for name, dataset in work.fixed.items():
            every = np.arange(SampleTable(data.fixed[name]).rows, dtype=np.int64)
            tables.append((of_table(name), dataset, data.fixed[name], every, configs[name]))
        for name, rows in work.suite.pictured().items():
            tables.append((of_table(name), name, data.evaluation[name], rows, last))
        for name, dataset, uri, rows, config in tables:
            half, lowered = config.precision == "bf16", config.frozen == "bf16"
            if len(rows):
                yield Pictured(name, dataset, uri, rows, config.aspect, half, lowered, whole)

    def _looks(self, data: TrialData, words: Words, config: TalkConfig, name: str) -> Looks:
        """Return what makes of the images of a stage what the model is given."""
        if (uri := data.stored.get(name)) is not None:
            return StoredFeatures(uri)
        return Squares(self._squares(words), config.aspect)

    def unexportable(self) -> str:
        """Say that transformers' LLaVA has only one kind of projector."""
        if self._kind == _COMMON:
            return ""
        return f"transformers' LLaVA has no projector of the kind {self._kind!r}, only {_COMMON}"

    def train(self, task: TrialTask, shared: TrialData) -> Iterator[RungReport]:
        """Train one model, stage after stage."""
        device = device_for(task.cpus, task.gpus)
        with made_base(shared.base) as folder:
            base = _held(str(folder), device, self.config.precision == "bf16")

        def begin(stage: Stage, earlier: Mapping[str, Any]) -> AdditiveTraining:
            return self._begin(stage, earlier, task, shared, base, device)

        def evaluate(training: AdditiveTraining, samples: int) -> dict[str, float]:
            own = training.own()
            if own is not None:
                answerer = self._answerer(own, base, shared, device)
                return evaluate_together(task.group, answerer, task.evaluate, samples)
            if (model := training.whole()) is None:
                return {}
            return task.evaluate(self._answerer(model, base, shared, device), samples)

        yield from train_stages(task, self.stages(task.budget), begin, evaluate)

    @property
    def _mining(self) -> MiningConfig | None:
        projector = self.config.projector
        return projector if isinstance(projector, MiningConfig) else None

    @property
    def _kind(self) -> str:
        projector = self.config.projector
        return projector if isinstance(projector, str) else projector.type

    def _fine(self, words: Words, device: str) -> Any | None:
        """Return the second tower on a device, if there is one."""
        if (mining := self._mining) is None:
            return None
        with local_folder(mining.tower) as folder:
            return _held_fine(str(folder), mining.layers, words.pixels, device)

    def _squares(self, words: Words) -> Pixels:
        """Return the squares that are made of images: the second tower's, if there is one."""
        mining = self._mining
        return words.pixels if mining is None else replace(words.pixels, side=mining.size)

    def _configs(self) -> dict[str, TalkConfig]:
        """Return the settings of the stages by their names."""
        found: dict[str, TalkConfig] = {_PROJECTOR: self.config}
        if self.config.finetune is not None:
            found[_FINETUNE] = self.config.finetune
        return found

    def _begin(
        self,
        stage: Stage,
        earlier: Mapping[str, Any],
        task: TrialTask,
        data: TrialData,
        base: Loaded,
        device: str,
    ) -> AdditiveTraining:
        from djsandbox_ray.trials.llava.modules import adapt, open_language, trial_model

        config = self._configs()[stage.name]
        fine = self._fine(base.words, device)
        model = trial_model(base.llava, self._kind, task.seed, fine)
        told = Conversations(data.train, task.rows, task.captions)
        looks = self._looks(data, base.words, config, FEATURES)
        if isinstance(config, FinetuneConfig):
            looks = self._looks(data, base.words, config, of_table(_FINETUNE))
            uri = data.fixed[_FINETUNE]
            told = Conversations(uri, np.arange(SampleTable(uri).rows, dtype=np.int64))
            if config.train == "full":
                open_language(model)
            else:
                lora = config.lora
                adapt(model, lora.rank, lora.alpha, lora.targets, task.seed)
        told.check()
        if left := model.load_state_dict(dict(earlier), strict=False).unexpected_keys:
            raise SandboxError(f"nothing goes on from what was trained of {left[0]}")
        objective = NextTokens(model, told, _transcript(base.words, config), looks, device)
        return AdditiveTraining(
            objective,
            len(told),
            config,
            task.seed,
            device,
            task.group,
            task.pulse.beat,
            threads=max(1, int(task.cpus)),
        )

    def _answerer(self, model: Any, base: Loaded, data: TrialData, device: str) -> LlavaAnswerer:
        last = self.config.finetune or self.config
        squares = Squares(self._squares(base.words), last.aspect)
        names = {name: of_table(name) for name in data.evaluation}
        stored = {
            name: StoredFeatures(data.stored[table])
            for name, table in names.items()
            if table in data.stored
        }

        def looks(name: str, rows: Sequence[int]) -> Looks:
            found = stored.get(name)
            return found if found is not None and found.holds(rows) else squares

        return LlavaAnswerer(
            model,
            base.words.tokenizer,
            talk=_transcript(base.words, last),
            captions=_transcript(base.words, self.config),
            looks=looks,
            pixels=base.words.pixels,
            sets=data.evaluation,
            device=device,
            batch=self.config.answer_batch,
            half=last.precision == "bf16",
        )

    def _parts(self, text_tokens: int) -> PartFlops:
        from djsandbox_ray.trials.llava.fine import empty_fine, fine_settings
        from djsandbox_ray.trials.llava.modules import projector_of

        tower, language = self._base.configurations()
        tokens = (tower.image_size // tower.patch_size) ** 2
        widths = (tower.hidden_size, language.hidden_size)
        if (mining := self._mining) is None:
            made = partial(projector_of, self._kind, *widths)
            return count_parts(tower, language, made, tokens + text_tokens)
        if mining.architecture is not None and not is_there(mining.tower):
            settings = written_out(mining.architecture)
        else:
            with local_folder(mining.tower) as folder:
                settings = fine_settings(folder)
        fine = partial(empty_fine, settings, mining.layers)
        with require("torch", "clip").device("meta"):
            channels: int = fine().channels
        made = partial(projector_of, self._kind, *widths, channels)
        return count_parts(tower, language, made, tokens + text_tokens, fine, mining.size)


def _transcript(words: Words, config: TalkConfig) -> Transcript:
    return Transcript(
        words.tokenizer, config.template, words.image_id, words.image_tokens, config.max_tokens
    )


@lru_cache(maxsize=_HELD)
def _held(folder: str, device: str, half: bool) -> Loaded:
    """Return a base that stays in this process: trials share what they do not change."""
    base = load_base(Path(folder))
    if not half:
        base.llava.float()
    base.llava.requires_grad_(False).to(device)
    return base


@lru_cache(maxsize=1)
def _held_fine(folder: str, layers: tuple[int, ...], pixels: Pixels, device: str) -> Any:
    """Return a second tower that stays in this process."""
    from djsandbox_ray.trials.llava.fine import load_fine

    fine = load_fine(Path(folder), layers, pixels)
    return (fine if device != "cpu" else fine.float()).to(device)


def _look(uri: str, words: Words, config: TalkConfig) -> None:
    """Look whether there is enough to learn in the first samples of a table."""
    rows = np.arange(min(LOOKED_AT, SampleTable(uri).rows), dtype=np.int64)
    transcript = _transcript(words, config)
    told, encoded = Conversations(uri, rows), list[Encoded]()
    for place, turns in zip(told.places(rows), told.said(rows), strict=True):
        with naming(place):
            encoded.append(transcript.sample(turns))
    without = sum(not one.targets for one in encoded)
    refuse_without(without, len(encoded), config.max_tokens)
