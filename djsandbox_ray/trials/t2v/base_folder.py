"""The base of a text-to-video model, a folder as diffusers has it: a part in each folder below.

``transformer`` is what trials adapt. ``vae`` is the codec, ``text_encoder`` and ``tokenizer`` (of
some models two of each) make embeddings of prompts, ``scheduler`` says how noise was mixed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.model_folders import first_line
from djsandbox_ray.trials.t2v.codec import Codec, codec_class, load_codec, read_settings
from djsandbox_ray.trials.t2v.denoisers import (
    Prompts,
    Surroundings,
    TransformerAdapter,
    adapter_class,
)
from djsandbox_ray.trials.text_limit import within

TRANSFORMER, CODEC, SCHEDULER = "transformer", "vae", "scheduler/scheduler_config.json"
_AT_ONCE = 64
"""Prompts that are encoded at once."""


@dataclass(frozen=True)
class VideoBase:
    """A base in memory, but for its text encoder."""

    transformer: Any
    """Frozen, in evaluation mode."""
    codec: Codec
    adapter: TransformerAdapter
    scheduler: Mapping[str, Any]
    """Settings of diffusers."""


def load_video_base(
    folder: Path, device: str, half: bool, fps: float = 8.0, guidance: float = 1.0
) -> VideoBase:
    """Load transformer and codec.

    Args:
        folder: of the base.
        device: a torch device name.
        half: whether weights may stay in half precision, if they are saved so.
        fps: frames that a clip shows in a second.
        guidance: of a model that has it as an input.

    Raises:
        BadInput: a part lacks, or is of no kind that this family can train.
    """
    diffusers, torch = require("diffusers", "t2v"), require("torch", "clip")
    settings = read_settings(folder / TRANSFORMER)
    kind = adapter_class(settings["_class_name"])
    ratios = codec_class(read := read_settings(folder / CODEC)).ratios_of(read)
    try:
        transformer = getattr(diffusers, settings["_class_name"]).from_pretrained(
            folder / TRANSFORMER, local_files_only=True, use_safetensors=True, torch_dtype="auto"
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{folder / TRANSFORMER}: {first_line(error)}") from error
    if not half:
        transformer = transformer.to(torch.float32)
    return VideoBase(
        still(transformer.to(device)),
        load_codec(folder / CODEC, device, half),
        kind(transformer.config, Surroundings(ratios, fps, guidance)),
        read_scheduler(folder),
    )


def still(transformer: Any) -> Any:
    """Return a transformer in evaluation mode, frozen, and with every chance of dropout at 0."""
    torch = require("torch", "clip")
    for module in transformer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return transformer.eval().requires_grad_(False)


def read_scheduler(folder: Path) -> dict[str, Any]:
    """Return the settings of a base's scheduler.

    Raises:
        BadInput: there are none.
    """
    try:
        return dict(json.loads((folder / SCHEDULER).read_text()))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / SCHEDULER} cannot be read: {first_line(error)}") from error


def prompt_pipeline(folder: Path, adapter: type[TransformerAdapter], device: str) -> Any:
    """Load the pipeline of a base, with what makes embeddings of prompts alone.

    Args:
        folder: of the base.
        adapter: of its transformer.
        device: a torch device name.

    Raises:
        BadInput: it cannot be loaded.
    """
    kind = adapter.PIPELINE
    try:
        pipeline = getattr(require("diffusers", "t2v"), kind).from_pretrained(
            folder, transformer=None, vae=None, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        what = f"no {kind} can be loaded from it: {first_line(error)}"
        raise BadInput(f"{folder}: {what}") from error
    pipeline.to(device)
    return pipeline


def encoded_prompts(
    pipeline: Any,
    adapter: type[TransformerAdapter],
    texts: Sequence[str],
    tokens: int,
    half: bool = False,
) -> Prompts:
    """Return what a pipeline makes of texts, in order, on the CPU.

    Args:
        pipeline: of :func:`prompt_pipeline`.
        adapter: of the transformer.
        texts: at least one.
        tokens: most of them per prompt.
        half: whether the numbers are those of bfloat16: under autocast, no more of them is used.
    """
    torch = require("torch", "clip")
    found: Prompts | None = None
    with torch.no_grad():
        for start in range(0, len(texts), _AT_ONCE):
            some = [within(text, tokens) for text in texts[start : start + _AT_ONCE]]
            made = adapter.encode(pipeline, some, tokens)
            made = made.map(lambda value: value.cpu())
            found = made if found is None else found.joined(made)
    if found is None:
        raise ValueError("there are no prompts")
    return found.map(lambda value: in_half(value).to(value.dtype)) if half else found


def in_half(value: Any) -> Any:
    """Return a tensor in bfloat16, if it is one of fractions."""
    return value.bfloat16() if value.is_floating_point() else value


class Prompter:
    """Makes embeddings of prompts by the pipeline of a base; each prompt once.

    Its text encoder, perhaps larger than the transformer, is loaded when there is a prompt that was
    not seen yet, and let go of afterwards.

    Args:
        folder: of the base.
        adapter: of its transformer.
        tokens: most of them per prompt.
        device: a torch device name.
        half: see :func:`encoded_prompts`.
    """

    def __init__(
        self,
        folder: Path,
        adapter: type[TransformerAdapter],
        tokens: int,
        device: str,
        half: bool = False,
    ) -> None:
        self._folder, self._adapter, self._tokens = folder, adapter, tokens
        self._device, self._half = device, half
        self._known: dict[str, int] = {}
        self._prompts: Prompts | None = None

    def __call__(self, texts: Sequence[str]) -> Prompts:
        """Return what the text encoder makes of texts, in order, on the CPU.

        Raises:
            BadInput: the base has no text encoder that can be loaded.
        """
        torch = require("torch", "clip")
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            pipeline = prompt_pipeline(self._folder, self._adapter, self._device)
            made = encoded_prompts(pipeline, self._adapter, new, self._tokens, self._half)
            self._prompts = made if self._prompts is None else self._prompts.joined(made)
            self._known |= {text: len(self._known) + place for place, text in enumerate(new)}
        if self._prompts is None:
            raise ValueError("there are no prompts")
        return self._prompts.take(torch.tensor([self._known[text] for text in texts]))
