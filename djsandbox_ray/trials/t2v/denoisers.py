"""How the transformers of diffusers are called: an adapter each, as its own pipeline does it.

They differ in the order of axes, in what they are told beside the noisy latents, and in what their
pipelines make of a prompt. The adapters hide that: latents go in and out as (n, channels, frames,
height, width), times from 0 to 1000, prompts as :class:`Prompts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import prod
from types import SimpleNamespace
from typing import Any, ClassVar

from djsandbox_ray.errors import BadInput, require, unknown
from djsandbox_ray.trials.t2v.codec import Ratios

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class Prompts:
    """What a text encoder makes of prompts; torch tensors."""

    embeddings: Any
    """Shape (n, tokens, width)."""
    mask: Any | None = None
    """1 where there is a token, shape (n, tokens); of models that are told."""
    pooled: Any | None = None
    """Of whole prompts, shape (n, width); of models that are told."""

    def __len__(self) -> int:
        return len(self.embeddings)

    def map(self, change: Callable[[Any], Any]) -> Prompts:
        """Return the same with every tensor changed."""
        values = (getattr(self, one.name) for one in fields(self))
        return Prompts(*(None if value is None else change(value) for value in values))

    def take(self, places: Any) -> Prompts:
        """Return some of the prompts, in that order; one may stand several times."""
        return self.map(lambda value: value[places])

    def joined(self, others: Prompts) -> Prompts:
        """Return these prompts and others behind them."""
        cat = require("torch", "clip").cat
        pairs = ((getattr(self, one.name), getattr(others, one.name)) for one in fields(self))
        return Prompts(*(None if one is None else cat([one, more]) for one, more in pairs))


@dataclass(frozen=True)
class Surroundings:
    """What a transformer may want to know of the clips beside their latents."""

    ratios: Ratios
    """Of the codec."""
    fps: float = 8.0
    """Frames that a clip shows in a second, strides taken into account."""
    guidance: float = 1.0
    """Of a model that was distilled with guidance as an input: how much."""


class TransformerAdapter(ABC):
    """Calls a transformer, and the pipeline that it comes with.

    Args:
        config: the transformer's.
        around: the clips.
    """

    PIPELINE: ClassVar[str]
    """The class of diffusers that goes with it."""
    TARGETS: ClassVar[tuple[str, ...]] = _ATTENTION
    """The linear layers that get adapters by default."""
    TEXT_WIDTH: ClassVar[str] = "text_embed_dim"
    """What its settings call the width of the embeddings of prompts."""

    def __init__(self, config: Any, around: Surroundings) -> None:
        self.config, self.around = config, around

    def __call__(
        self, forward: Callable[..., Any], latents: Any, times: Any, prompts: Prompts
    ) -> Any:
        """Return what a transformer foretells.

        Args:
            forward: the transformer, or what stands for it in training.
            latents: noisy, shape (n, channels, frames, height, width).
            times: float32, shape (n,).
            prompts: n of them.

        Returns:
            Shape as ``latents``.
        """
        return forward(**self.arguments(latents, times, prompts), return_dict=False)[0]

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, height and width of the latents that become one token."""
        side = self.config.patch_size
        if isinstance(side, int):
            return self.config.get("patch_size_t") or 1, side, side
        return tuple(side)

    def tokens(self, shape: Sequence[int]) -> int:
        """Return how many tokens the latents of a clip become; see :meth:`check`."""
        return prod(side // patch for side, patch in zip(shape[1:], self.patch, strict=True))

    def check(self, shape: Sequence[int]) -> None:
        """Look whether clips can be denoised whose latents have a shape.

        Args:
            shape: channels, frames, height, width.

        Raises:
            BadInput: their channels are not the transformer's, or its patches do not fit.
        """
        channels, *sides = shape
        if channels != self.config.in_channels:
            raise BadInput(
                f"the transformer reads latents of {self.config.in_channels} channels, the codec "
                f"gives {channels}: one of text to video is needed, not of image to video"
            )
        for what, side, patch in zip(("frames", "height", "width"), sides, self.patch, strict=True):
            if side % patch:
                raise BadInput(
                    f"the latents of a clip have a {what} of {side}, which the transformer reads "
                    f"by {patch}: choose other frames or another size"
                )

    @abstractmethod
    def arguments(self, latents: Any, times: Any, prompts: Prompts) -> dict[str, Any]:
        """Return what the transformer is called with."""

    @classmethod
    def encode(cls, pipeline: Any, texts: Sequence[str], tokens: int) -> Prompts:
        """Return what a pipeline makes of texts.

        Args:
            pipeline: one of :attr:`PIPELINE`, with text encoder and tokenizer.
            texts: prompts, perhaps empty ones.
            tokens: most of them per prompt.
        """
        found = pipeline.encode_prompt(
            list(texts), do_classifier_free_guidance=False, max_sequence_length=tokens
        )
        return Prompts(found[0])


class EasyAnimate(TransformerAdapter):
    """It is given nothing else; times have the type of the latents."""

    PIPELINE = "EasyAnimatePipeline"

    def __call__(
        self, forward: Callable[..., Any], latents: Any, times: Any, prompts: Prompts
    ) -> Any:
        """Drop the variance that some of its models foretell, too."""
        out = super().__call__(forward, latents, times, prompts)
        return out if out.shape[1] == latents.shape[1] else out.chunk(2, dim=1)[0]

    def arguments(self, latents: Any, times: Any, prompts: Prompts) -> dict[str, Any]:
        """Return the three that it needs."""
        return {
            "hidden_states": latents,
            "timestep": times.to(latents.dtype),
            "encoder_hidden_states": prompts.embeddings,
        }


class CogVideoX(TransformerAdapter):
    """Frames stand before channels, times are whole numbers; the larger ones have rotary places."""

    PIPELINE = "CogVideoXPipeline"

    def __call__(
        self, forward: Callable[..., Any], latents: Any, times: Any, prompts: Prompts
    ) -> Any:
        """Put the axes back."""
        return super().__call__(forward, latents, times, prompts).transpose(1, 2)

    def arguments(self, latents: Any, times: Any, prompts: Prompts) -> dict[str, Any]:
        """Return latents with frames first, and where they are."""
        return {
            "hidden_states": latents.transpose(1, 2),
            "encoder_hidden_states": prompts.embeddings,
            "timestep": times.to(require("torch", "clip").int64),
            "image_rotary_emb": self._places(latents),
        }

    def _places(self, latents: Any) -> Any:
        """Return the rotary embeddings of the places, by the pipeline's own arithmetic."""
        if not self.config.use_rotary_positional_embeddings:
            return None
        place = require("diffusers", "t2v").CogVideoXPipeline._prepare_rotary_positional_embeddings
        frames, height, width = latents.shape[2:]
        # It counts in pixels; here, one of them is one of the latents.
        own = SimpleNamespace(
            vae_scale_factor_spatial=1, transformer=SimpleNamespace(config=self.config)
        )
        return place(own, height, width, frames, latents.device)


class Wan(TransformerAdapter):
    """It is given nothing else; prompts are filled up with zeros."""

    PIPELINE = "WanPipeline"
    TEXT_WIDTH = "text_dim"

    def arguments(self, latents: Any, times: Any, prompts: Prompts) -> dict[str, Any]:
        """Return the three that it needs."""
        return {
            "hidden_states": latents,
            "timestep": times,
            "encoder_hidden_states": prompts.embeddings,
        }


class LtxVideo(TransformerAdapter):
    """Latents are one row of tokens, and it is told how large and fast the clip is."""

    PIPELINE = "LTXPipeline"
    TEXT_WIDTH = "caption_channels"

    def __call__(
        self, forward: Callable[..., Any], latents: Any, times: Any, prompts: Prompts
    ) -> Any:
        """Make a clip of the tokens."""
        out = super().__call__(forward, latents, times, prompts)
        return self._pipeline._unpack_latents(out, *latents.shape[2:], *self._patch)

    def arguments(self, latents: Any, times: Any, prompts: Prompts) -> dict[str, Any]:
        """Return the tokens, what is text of the prompts, and the scale of time and space."""
        frames, height, width = latents.shape[2:]
        ratios = self.around.ratios
        return {
            "hidden_states": self._pipeline._pack_latents(latents, *self._patch),
            "encoder_hidden_states": prompts.embeddings,
            "timestep": times,
            "encoder_attention_mask": prompts.mask,
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (
                ratios.time / self.around.fps,
                ratios.space,
                ratios.space,
            ),
        }

    @classmethod
    def encode(cls, pipeline: Any, texts: Sequence[str], tokens: int) -> Prompts:
        """Return embeddings and mask."""
        found = pipeline.encode_prompt(
            list(texts), do_classifier_free_guidance=False, max_sequence_length=tokens
        )
        return Prompts(found[0], found[1])

    @property
    def _pipeline(self) -> Any:
        return require("diffusers", "t2v").LTXPipeline

    @property
    def _patch(self) -> tuple[int, int]:
        return self.config.patch_size, self.config.patch_size_t


class HunyuanVideo(TransformerAdapter):
    """It is told what is text of the prompts, a vector for each as a whole, and the guidance."""

    PIPELINE = "HunyuanVideoPipeline"

    def arguments(self, latents: Any, times: Any, prompts: Prompts) -> dict[str, Any]:
        """Return mask, vectors and guidance with the rest."""
        torch = require("torch", "clip")
        dtype = prompts.embeddings.dtype
        guidance = torch.full((len(latents),), self.around.guidance, dtype=dtype)
        return {
            "hidden_states": latents,
            "timestep": times.to(latents.dtype),
            "encoder_hidden_states": prompts.embeddings,
            "encoder_attention_mask": None if prompts.mask is None else prompts.mask.to(dtype),
            "pooled_projections": prompts.pooled,
            "guidance": guidance.to(latents.device) * 1000.0,
        }

    @classmethod
    def encode(cls, pipeline: Any, texts: Sequence[str], tokens: int) -> Prompts:
        """Return what both of its text encoders say."""
        embeddings, pooled, mask = pipeline.encode_prompt(list(texts), max_sequence_length=tokens)
        return Prompts(embeddings, mask, pooled)


ADAPTERS: dict[str, type[TransformerAdapter]] = {
    "CogVideoXTransformer3DModel": CogVideoX,
    "EasyAnimateTransformer3DModel": EasyAnimate,
    "HunyuanVideoTransformer3DModel": HunyuanVideo,
    "LTXVideoTransformer3DModel": LtxVideo,
    "WanTransformer3DModel": Wan,
}
"""By the class of the transformer."""


def adapter_class(transformer: str) -> type[TransformerAdapter]:
    """Return the adapter of a class of transformers.

    Raises:
        BadInput: there is none.
    """
    if transformer not in ADAPTERS:
        raise unknown("video transformer", transformer, ADAPTERS)
    return ADAPTERS[transformer]
