"""Image-to-text models of transformers as a family: the pool trains them, then maybe fixed data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, Source
from djsandbox_ray.evaluation.evaluator import Reads
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.answering import evaluate_together
from djsandbox_ray.trials.conversations import Conversations, Unlearnt
from djsandbox_ray.trials.family import ModelFamily, Prepared, TrialData, TrialTask, device_for
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION
from djsandbox_ray.trials.loop import AdditiveTraining, resolved
from djsandbox_ray.trials.model_folders import is_there, made_base
from djsandbox_ray.trials.staged import train_stages
from djsandbox_ray.trials.stages import Stage
from djsandbox_ray.trials.vlm.answerer import VlmAnswerer
from djsandbox_ray.trials.vlm.base import LoadedVlm, VlmBase, load_vlm, read_processor
from djsandbox_ray.trials.vlm.config import VlmConfig, VlmStageConfig, deciding
from djsandbox_ray.trials.vlm.joined import check_joining, join
from djsandbox_ray.trials.vlm.objective import WHOLE, ProcessedTokens, probe, read_told
from djsandbox_ray.trials.vlm.text import Script

VERSION = 2
"""Part of every trial's identity: to be raised with any change to what a training computes."""

_POOL, _FINETUNE = "train", "finetune"
_WHERE = {_POOL: "trials.model", _FINETUNE: "trials.model.finetune"}
_HELD = 2
"""Bases that a process keeps in memory."""
_LOOKED = 64
"""Samples of a table that are processed before anything is trained."""
_JOINED = 3
"""Of them, those that are put together in two ways."""


class Vlm(ModelFamily):
    """A model that reads images and text, and answers with text."""

    Config = VlmConfig
    OFFERS: ClassVar[tuple[Reads, ...]] = ("answers", "likelihoods")
    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "transformers")
    CONTENT: ClassVar[tuple[Content, ...]] = ("pairs", "conversations")
    config: VlmConfig

    @cached_property
    def _base(self) -> VlmBase:
        return VlmBase(self.config.base)

    def base(self) -> VlmBase:
        """Return how the model is had."""
        return self._base

    def sources(self) -> dict[str, Source]:
        """Return the data of the second stage."""
        finetune = self.config.finetune
        if finetune is None:
            return {}
        return {_FINETUNE: SOURCES.get(finetune.dataset.type)(finetune.dataset)}

    def lost(self) -> list[str]:
        """Return the folder of the model, if it is not there."""
        path = self.config.base.path
        return [] if is_there(path) else [f"base.path: there is no folder {path!r}"]

    def identity(self) -> Any:
        """Return the settings, and what the base is made of."""
        found = {**deciding(self.config), "base": self._base.identity()}
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
        adapters = "lora" in (self.config.train, None if second is None else second.train)
        return (*self.LIBRARIES, "peft") if adapters else self.LIBRARIES

    def numerics(self, gpus: float) -> dict[str, str]:
        """Add the precision, as it is resolved."""
        return {**super().numerics(gpus), "precision": resolved(self.config, gpus).precision}

    def stages(self, budget: int) -> tuple[Stage, ...]:
        """Return the stage on the pool, and that on fixed data.

        The model answers before it is trained at all, and so at any moment of both.
        """
        finetune = self.config.finetune
        first = Stage(_POOL, budget)
        return (first,) if finetune is None else (first, Stage(_FINETUNE, finetune.samples))

    def flops_per_sample(self) -> None:
        """Return nothing: of how many tokens an image is made hangs on the image.

        Nor can a model be counted without numbers that asks them where images stand.
        """
        return

    def prepare(self, data: TrialData) -> Prepared:
        """Process the first samples of all tables: whether they can be learnt from."""
        with made_base(data.base) as folder:
            processor = read_processor(folder)
        for name, config in self._configs().items():
            uri = data.train if name == _POOL else data.fixed[name]
            _look(uri, processor, config, self.config.caption_prompt)
        return Prepared(data)

    def unexportable(self) -> str:
        """Return nothing: transformers saves what it has loaded."""
        return ""

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

    def _configs(self) -> dict[str, VlmStageConfig]:
        """Return the settings of the stages by their names."""
        found: dict[str, VlmStageConfig] = {_POOL: self.config}
        if self.config.finetune is not None:
            found[_FINETUNE] = self.config.finetune
        return found

    def _begin(
        self,
        stage: Stage,
        earlier: Mapping[str, Any],
        task: TrialTask,
        data: TrialData,
        base: LoadedVlm,
        device: str,
    ) -> AdditiveTraining:
        from djsandbox_ray.trials.vlm.modules import freeze_unreached, trial_model

        config, where = self._configs()[stage.name], _WHERE[stage.name]
        model = trial_model(base.model, config, task.seed, where, earlier)
        prompt = self.config.caption_prompt
        told = Conversations(data.train, task.rows, task.captions, prompt)
        if stage.name == _FINETUNE:
            uri = data.fixed[_FINETUNE]
            rows = np.arange(SampleTable(uri).rows, dtype=np.int64)
            told = Conversations(uri, rows, prompt=prompt)
        told.check()
        script, pad_id = Script(base.processor, config.max_tokens), _pad_id(base.processor)
        seen = join([probe(base.processor)], [0], pad_id).to(device)
        freeze_unreached(model, seen, config.precision == "bf16", where)
        return AdditiveTraining(
            ProcessedTokens(model, told, script, device, pad_id),
            len(told),
            config,
            task.seed,
            device,
            task.group,
            task.pulse.beat,
            threads=max(1, int(task.cpus)),
        )

    def _answerer(self, model: Any, base: LoadedVlm, data: TrialData, device: str) -> VlmAnswerer:
        last = self.config.finetune or self.config
        return VlmAnswerer(
            model,
            Script(base.processor, last.max_tokens),
            self.config.caption_prompt,
            sets=data.evaluation,
            device=device,
            pad_id=_pad_id(base.processor),
            batch=self.config.answer_batch,
            half=last.precision == "bf16",
        )


@lru_cache(maxsize=_HELD)
def _held(folder: str, device: str, half: bool) -> LoadedVlm:
    """Return a base that stays in this process: trials share what they do not change."""
    base = load_vlm(Path(folder))
    if not half:
        base.model.float()
    base.model.requires_grad_(False).to(device)
    return base


def _pad_id(processor: Any) -> int:
    """Return a token that no model takes for an image."""
    tokenizer = processor.tokenizer
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(one) for one in found if one is not None)


def _look(uri: str, processor: Any, config: VlmStageConfig, prompt: str) -> None:
    """Process the first samples of a table, as they will be in training.

    Raises:
        BadInput: too many of them have nothing to learn, or they cannot be put together.
    """
    rows = np.arange(min(_LOOKED, SampleTable(uri).rows), dtype=np.int64)
    told = Conversations(uri, rows, prompt=prompt).take(rows)
    script, unlearnt = Script(processor, config.max_tokens), Unlearnt(config.max_tokens)
    unlearnt.count([read_told(script, one).targets for one in told])
    seen = [(one.turns, one.images) for one in told if one.images][:_JOINED]
    if len(seen) > 1:
        check_joining(Script(processor, WHOLE), seen, _pad_id(processor))
