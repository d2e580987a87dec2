"""The hyper-parameters of a text-to-video model: its base, its clips, and how it is adapted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from djsandbox_ray.errors import BadInput
from djsandbox_ray.settings.sections import Component, Section
from djsandbox_ray.trials.loop import COSTS_ONLY, AdditiveConfig, Beta
from djsandbox_ray.trials.lora import AdapterFolder
from djsandbox_ray.trials.t2v.base import T2vBase, VideoBaseConfig
from djsandbox_ray.trials.t2v.distil import ConsistencyConfig
from djsandbox_ray.trials.t2v.objective import DenoiseConfig
from djsandbox_ray.trials.t2v.schedule import TimeSampling

NO_RESULT = {*COSTS_ONLY, "evaluation_batch", "latents", "prompts"}
"""Settings that decide no result of a training."""


class VideoLora(Section):
    """Low-rank adapters on the transformer (Hu et al. 2021, arXiv 2106.09685), by peft."""

    rank: int = Field(default=128, ge=1, le=4096, strict=True)
    alpha: float = Field(default=128, gt=0)
    """What an adapter adds is scaled by ``alpha / rank``."""
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the linear layers that get one; those of the attention by default."""


class T2vModelConfig(AdditiveConfig, Component):
    """A text-to-video model and how it is adapted; the defaults are the paper's."""

    base: VideoBaseConfig
    """What every trial starts from."""
    frames: int = Field(default=17, ge=1, le=1 << 12, strict=True)
    """Of a clip; most codecs want 4 k + 1 of them."""
    stride: int = Field(default=2, ge=1, le=1 << 10, strict=True)
    """Every so many frames of a video one is taken."""
    size: tuple[int, int] = (256, 256)
    """Height and width of a clip in pixels: videos are scaled to cover it, and cut."""
    window: Literal["middle", "random"] = "middle"
    """Where clips begin in longer videos: in the middle, or anywhere, by seed and row."""
    latents: Literal["store", "compute"] = "store"
    """Whether what the codec makes of clips is stored, once for all trials; with ``window: random``
    no two seeds have the same, and every trial computes its own."""
    prompts: Literal["store", "compute"] = "store"
    """Whether what the text encoder makes of captions is stored, once for all trials: then it is
    in no memory while models are trained."""
    fps: float = Field(default=8.0, gt=0, le=1000)
    """Frames that a clip shows in a second; only LTX is told."""
    train: Literal["lora", "full"] = "lora"
    """What is trained: adapters on the transformer, or all of it."""
    lora: VideoLora = VideoLora()
    objective: Annotated[DenoiseConfig | ConsistencyConfig, Field(discriminator="type")] = (
        DenoiseConfig()
    )
    """What is learnt: to denoise, or what a teacher does in many steps (``type: consistency``)."""
    init: Literal["base"] | AdapterFolder = "base"
    """What training begins with: the base, or adapters from a folder, on the same layers."""
    time: TimeSampling = "logit_normal"
    """How noisy the samples of a flow are that are learnt; other diffusion draws its steps alike.
    """
    shift: float = Field(default=1.0, gt=0, le=100)
    """Of these times, towards more noise above 1."""
    caption_drop: float = Field(default=0.1, ge=0, lt=1)
    """Share of the samples that are learnt without their caption, so that guidance is possible."""
    prompt_tokens: int = Field(default=226, ge=1, le=4096, strict=True)
    """Most tokens of a caption; CogVideoX' smaller models want 226."""
    guidance: float = Field(default=1.0, ge=0, le=100)
    """Of a model that has it as an input (HunyuanVideo)."""
    batch_size: int = Field(default=8, ge=1, le=1 << 20, strict=True)
    """Samples of one step, of all workers together."""
    learning_rate: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=3e-2, ge=0)
    """Decays matrices only; biases and norms are left alone."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-10, gt=0)
    """What Adam adds to the root of the mean square of the gradient."""
    evaluation_batch: int = Field(default=16, ge=1, le=1 << 16, strict=True)
    """Clips that are denoised at once when a model is evaluated."""

    def adam_eps(self) -> float:
        """Return ``eps``."""
        return self.eps

    @model_validator(mode="after")
    def _fits(self) -> T2vModelConfig:
        """Look whether there are latents of such clips, where the base can be asked."""
        if self.train == "full" and self.init != "base":
            raise ValueError("init: adapters need train: lora")
        if self.train == "full" and self.objective.type == "consistency":
            raise ValueError("objective: a student is distilled into adapters (train: lora)")
        base = T2vBase(self.base)
        if base.is_there() or self.base.architecture is not None:
            try:
                base.ratios().shape(self.frames, *self.size)
            except BadInput as error:
                raise ValueError(str(error)) from error
        return self


def deciding(config: T2vModelConfig) -> dict[str, Any]:
    """Return the settings that decide a result, as plain data; without the base.

    What distillation has brought is there where it is used: other trials are known as before.
    """
    found = config.model_dump(mode="json", exclude={"base", "objective", "init", *NO_RESULT})
    if isinstance(config.objective, ConsistencyConfig):
        found["objective"] = config.objective.identity()
    if isinstance(config.init, AdapterFolder):
        found["init"] = config.init.identity()
    return found
