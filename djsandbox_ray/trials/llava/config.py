"""The hyper-parameters of a LLaVA: its base, its projector, and the two stages of its training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, field_validator, model_validator

from djsandbox_ray.dataset.source import SOURCES, content_of
from djsandbox_ray.settings.sections import Component, Section, component
from djsandbox_ray.trials.llava.base import LlavaBaseConfig
from djsandbox_ray.trials.llava.base_folder import Architecture
from djsandbox_ray.trials.llava.pixels import Aspect
from djsandbox_ray.trials.llava.text import check_template
from djsandbox_ray.trials.loop import COSTS_ONLY, AdditiveConfig, Beta
from djsandbox_ray.trials.lora import LoraConfig

TemplateName = Annotated[str, AfterValidator(check_template)]

NO_RESULT = {*COSTS_ONLY, "text_tokens", "answer_batch", "features"}
"""Settings that decide no result of a training."""


class MiningConfig(Section):
    """Mini-Gemini's patch info mining: a second tower sees more pixels, and each token of the first
    one looks for details among those behind it.
    """  # noqa: D205

    type: Literal["mining"]
    tower: str
    """A folder or URL with a ConvNeXt of transformers and its image processor, or with an open_clip
    model that has one for its tower."""
    size: int = Field(default=768, ge=32, le=4096, strict=True)
    """Pixels of a side of the squares that it sees; the first tower gets them made smaller."""
    layers: tuple[int, ...] = Field(default=(-2, -1), min_length=1)
    """Which of its maps are read: 0 is that of the stem, 1 that of the first stage."""
    architecture: Architecture | None = None
    """What the folder holds: as long as it is not there, operations are counted by it."""


class TalkConfig(AdditiveConfig):
    """What both stages may be told; the defaults are LLaVA's."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decays matrices only; biases and norms are left alone."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly; then it falls as a cosine."""
    template: TemplateName = "plain"
    """``plain`` (the image, then its caption), ``caption``, words with ``{caption}`` at their end;
    or of conversations ``vicuna_v1``, ``gemma`` or ``chat``, the tokenizer's own."""
    aspect: Aspect = "crop"
    """How images become squares: ``pad`` or ``crop``."""
    max_tokens: int = Field(default=2048, ge=16, le=1 << 20, strict=True)
    """Longer samples are cut on the right, images included in the count."""
    text_tokens: int = Field(default=64, ge=1, le=1 << 20, strict=True)
    """Tokens of a usual text, beside its image: operations are counted for so many."""


class FinetuneConfig(TalkConfig):
    """The second stage: projector and language model, on data that is the same for all trials."""

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)]
    """Conversations about images."""
    samples: int = Field(gt=0, le=10**12, strict=True)
    """Samples seen in this stage."""
    train: Literal["full", "lora"] = "full"
    """What is trained beside the projector: the language model, or adapters on it."""
    lora: LoraConfig = LoraConfig()
    """The adapters of ``train: lora``."""
    template: TemplateName = "vicuna_v1"
    aspect: Aspect = "pad"
    batch_size: int = Field(default=128, ge=1, le=1 << 20, strict=True)
    """Samples of one step, of all workers together."""
    learning_rate: float = Field(default=2e-5, gt=0)

    @field_validator("dataset")
    @classmethod
    def _talks(cls, dataset: Component) -> Component:
        content = content_of(dataset)
        if content not in ("conversations", "pairs"):
            raise ValueError(f"conversations or pairs are needed, not content: {content}")
        return dataset


class LlavaModelConfig(TalkConfig, Component):
    """A LLaVA and how it is trained; what stands here itself is about the first stage."""

    base: LlavaBaseConfig
    """What every trial starts from."""
    projector: Literal["mlp2x_gelu", "linear"] | MiningConfig = "mlp2x_gelu"
    """What joins tower and language model: made anew by every trial, from its seed."""
    batch_size: int = Field(default=256, ge=1, le=1 << 20, strict=True)
    """Samples of one step, of all workers together."""
    learning_rate: float = Field(default=1e-3, gt=0)
    finetune: FinetuneConfig | None = None
    """The second stage; without it the model is judged as the first one leaves it."""
    answer_batch: int = Field(default=64, ge=1, le=1 << 16, strict=True)
    """Questions that are answered at once."""
    features: Literal["auto", "store", "compute"] = "auto"
    """Whether what the tower sees of images is stored, once for all trials; ``auto`` stores where
    that is at most 20 GB of a table. It decides no result. With ``mining``, every trial looks at
    them itself."""

    @model_validator(mode="after")
    def _storable(self) -> LlavaModelConfig:
        if self.features == "store" and isinstance(self.projector, MiningConfig):
            raise ValueError(
                "features: store: of a second tower's maps nothing is stored (auto, compute)"
            )
        return self


def deciding(config: LlavaModelConfig) -> dict[str, Any]:
    """Return the settings that decide a result, as plain data; without data and models."""
    found = config.model_dump(mode="json", exclude={"base", "finetune", *NO_RESULT})
    if isinstance(config.projector, MiningConfig):
        for name in ("tower", "architecture"):  # its content stands for it
            found["projector"].pop(name)
    if config.finetune is not None:
        found["finetune"] = config.finetune.model_dump(mode="json", exclude={"dataset", *NO_RESULT})
    return found
