"""The hyper-parameters of an image-to-text model of transformers, and of its stages."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from djsandbox_ray.dataset.source import SOURCES, content_of
from djsandbox_ray.settings.sections import Component, Section, component
from djsandbox_ray.trials.config import WorkerResources
from djsandbox_ray.trials.conversations import DESCRIBE
from djsandbox_ray.trials.loop import COSTS_ONLY, AdditiveConfig, Beta
from djsandbox_ray.trials.lora import LoraConfig

Trains = Literal["full", "lora", "projector"]

NO_RESULT = {*COSTS_ONLY, "answer_batch"}
"""Settings that decide no result of a training."""


class VlmBaseConfig(Section):
    """Where the model comes from that every trial starts from."""

    path: str
    """A folder or URL with a model that ``AutoModelForImageTextToText`` loads, and its processor;
    weights are read from safetensors only, and no code."""
    resources: WorkerResources = WorkerResources()
    """What copying it occupies."""


class VlmStageConfig(AdditiveConfig):
    """What both stages may be told."""

    train: Trains = "lora"
    """What is trained: all that the loss reaches, adapters on the language model, or what joins
    tower and language model."""
    lora: LoraConfig = LoraConfig()
    """The adapters of ``train: lora``."""
    projector: str | None = None
    """A pattern (of Python's ``re``) that is searched for in the names of parameters: those that
    have it are what ``train: projector`` trains. By default the usual names of projectors are."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decays matrices only; biases and norms are left alone."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly; then it falls as a cosine."""
    learning_rate: float = Field(default=1e-4, gt=0)
    max_tokens: int = Field(default=2048, ge=16, le=1 << 20, strict=True)
    """Longer samples are cut on the right, images included in the count."""

    @field_validator("projector")
    @classmethod
    def _is_pattern(cls, projector: str | None) -> str | None:
        try:
            re.compile(projector or "")
        except re.error as error:
            raise ValueError(f"{projector!r} is no pattern: {error}") from error
        return projector


class VlmFinetuneConfig(VlmStageConfig):
    """A second stage, on data that is the same for all trials."""

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)]
    """Conversations about images, or pairs."""
    samples: int = Field(gt=0, le=10**12, strict=True)
    """Samples seen in this stage."""

    @field_validator("dataset")
    @classmethod
    def _talks(cls, dataset: Component) -> Component:
        content = content_of(dataset)
        if content not in ("conversations", "pairs"):
            raise ValueError(f"conversations or pairs are needed, not content: {content}")
        return dataset


class VlmConfig(VlmStageConfig, Component):
    """A model and how it is trained; what stands here itself is about the stage on the pool."""

    base: VlmBaseConfig
    """What every trial starts from."""
    caption_prompt: str = Field(default=DESCRIBE, min_length=1)
    """What is asked about the image of a pair: its caption answers."""
    finetune: VlmFinetuneConfig | None = None
    """The second stage; without it the model is judged as the first one leaves it."""
    answer_batch: int = Field(default=16, ge=1, le=1 << 16, strict=True)
    """Questions that are answered at once."""

    @model_validator(mode="after")
    def _adapters_stay(self) -> VlmConfig:
        second = self.finetune
        if second is None or self.train != "lora":
            return self
        if (second.train, second.lora) != (self.train, self.lora):
            raise ValueError(
                "adapters of the first stage stay in the second: finetune needs train: lora with "
                "the same lora"
            )
        return self


def deciding(config: VlmConfig) -> dict[str, Any]:
    """Return the settings that decide a result, as plain data; without data and models."""
    found = config.model_dump(mode="json", exclude={"base", "finetune", *NO_RESULT})
    if config.finetune is not None:
        found["finetune"] = config.finetune.model_dump(mode="json", exclude={"dataset", *NO_RESULT})
    return found
