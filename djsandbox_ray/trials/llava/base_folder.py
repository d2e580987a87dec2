"""The base of a LLaVA: a vision tower and a language model under one roof, as one folder.

It is transformers' own format: ``config.json``, ``model.safetensors``, the tokenizer and the image
processor, whether it was such a folder already or is put together of two. The projector in it does
not count: each trial makes its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.llava.pixels import Pixels
from djsandbox_ray.trials.model_folders import first_line, without_dropout

IMAGE = "<image>"
"""The token that stands for a part of an image, where a tokenizer has none yet."""
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")


def _has_type(architecture: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(architecture.get("model_type"), str):
        raise ValueError("model_type is needed: the name that transformers has for the model")
    return architecture


Architecture = Annotated[dict[str, Any], AfterValidator(_has_type)]
"""What a ``config.json`` of transformers says of a model; what is left out has its default."""


@dataclass(frozen=True)
class Words:
    """What a base reads, without its weights."""

    tokenizer: Any
    """Pads on the left."""
    pixels: Pixels
    image_id: int
    """The token that stands for a part of an image."""
    image_tokens: int
    """How many tokens stand for an image."""


@dataclass(frozen=True)
class Loaded:
    """A base in memory."""

    llava: Any
    """A ``LlavaForConditionalGeneration`` on the CPU, as it was saved, in evaluation mode."""
    words: Words


def read_words(folder: Path) -> Words:
    """Read what a base reads: its tokenizer and its images' form.

    Raises:
        BadInput: the folder has no LLaVA.
    """
    config = read_config(folder)
    tokenizer = _tokenizer(folder)
    # The configuration of the class sets it; some tokenizers' own files set it again.
    tokenizer.padding_side = "left"
    image_id, tokens = int(config.image_token_id), int(config.image_seq_length)
    return Words(tokenizer, read_pixels(folder), image_id, tokens)


def load_base(folder: Path) -> Loaded:
    """Load a base.

    Raises:
        BadInput: the folder has no LLaVA, or one that this family cannot train.
    """
    transformers = require("transformers", "llava")
    config = read_config(folder)
    without_dropout(config)
    try:
        llava = transformers.LlavaForConditionalGeneration.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, dtype="auto"
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{folder}: no LLaVA can be loaded from it: {first_line(error)}") from error
    llava.generation_config = transformers.GenerationConfig()
    return Loaded(llava.eval(), read_words(folder))


def read_config(folder: Path) -> Any:
    """Read the settings of a LLaVA.

    Raises:
        BadInput: the folder has none.
    """
    transformers = require("transformers", "llava")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{folder}: no LLaVA: {first_line(error)}") from error
    if config.model_type != "llava":
        raise BadInput(f"{folder}: a LLaVA is needed, not {config.model_type!r}")
    return config


def written_out(architecture: Mapping[str, Any]) -> Any:
    """Return the settings of a model as transformers has them.

    Args:
        architecture: an :data:`Architecture`.

    Raises:
        BadInput: transformers knows no such model, or none with such settings.
    """
    transformers = require("transformers", "llava")
    try:
        return transformers.AutoConfig.for_model(**architecture)
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"architecture {dict(architecture)}: {first_line(error)}") from error


def join(
    vision_tower: Path, language_model: Path, folder: Path, vision_feature_layer: int | list[int]
) -> None:
    """Put a base together of a vision tower and a language model, and save it.

    Args:
        vision_tower: a folder of transformers with a vision tower and its image processor; of a
            whole CLIP the tower is taken.
        language_model: a folder of transformers with a causal language model and its tokenizer.
        folder: an existing empty folder.
        vision_feature_layer: which hidden states of the tower are read; several are put together.

    Raises:
        BadInput: one of the folders has no such model.
    """
    transformers = require("transformers", "llava")
    tower = _tower(transformers, vision_tower)
    try:
        language = transformers.AutoModelForCausalLM.from_pretrained(
            language_model, local_files_only=True, use_safetensors=True, dtype="auto"
        )
    except (OSError, ValueError, KeyError) as error:
        what = f"no causal language model can be loaded from it: {first_line(error)}"
        raise BadInput(f"{language_model}: {what}") from error
    tokenizer, pixels = _tokenizer(language_model), read_pixels(vision_tower)
    save(
        joined(tower, language, tokenizer, pixels, vision_feature_layer), tokenizer, pixels, folder
    )


def joined(
    tower: Any,
    language: Any,
    tokenizer: Any,
    pixels: Pixels,
    vision_feature_layer: int | list[int],
) -> Any:
    """Return a tower and a language model as one LLaVA, with a projector of zeros.

    Args:
        tower: a vision model of transformers.
        language: a causal language model of transformers.
        tokenizer: of that; it gets a token for images where it has none.
        pixels: what the tower reads.
        vision_feature_layer: which hidden states of the tower are read.

    Returns:
        A ``LlavaForConditionalGeneration`` that has the two as its parts.
    """
    transformers, torch = require("transformers", "llava"), require("torch", "clip")
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    vocabulary = language.get_input_embeddings().weight.shape[0]
    if image_id >= vocabulary:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # new rows are drawn: a base is the same, whenever it is made
            language.resize_token_embeddings(image_id + 1, mean_resizing=False)
    embeddings = getattr(tower, "embeddings", None)
    has_class = hasattr(embeddings, "class_embedding") or hasattr(embeddings, "cls_token")
    config = transformers.LlavaConfig(
        vision_config=tower.config.to_dict(),
        text_config=language.config.to_dict(),
        image_token_index=image_id,
        image_seq_length=(pixels.side // tower.config.patch_size) ** 2,
        vision_feature_layer=vision_feature_layer,
        vision_feature_select_strategy="default" if has_class else "full",
        tie_word_embeddings=bool(language.config.tie_word_embeddings),
    )
    with torch.device("meta"):
        llava = transformers.LlavaForConditionalGeneration(config)
    projector = require("transformers.models.llava.modeling_llava", "llava")
    llava.model.multi_modal_projector = projector.LlavaMultiModalProjector(config)
    for parameter in llava.model.multi_modal_projector.parameters():
        torch.nn.init.zeros_(parameter)
    llava.model.multi_modal_projector.to(language.dtype)
    llava.model.vision_tower, llava.model.language_model = tower, language.base_model
    llava.lm_head = language.get_output_embeddings()
    return llava


def save(llava: Any, tokenizer: Any, pixels: Pixels, folder: Path) -> None:
    """Write a base, as :func:`load_base` reads it.

    Args:
        llava: a ``LlavaForConditionalGeneration``.
        tokenizer: of its language model.
        pixels: what its tower reads.
        folder: an existing empty folder.
    """
    llava.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = {
        "size": {"shortest_edge": pixels.side},
        "crop_size": {"height": pixels.side, "width": pixels.side},
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
        "image_processor_type": "CLIPImageProcessor",
    }
    (folder / _PROCESSORS[1]).write_text(json.dumps(processor, indent=2))


def _tower(transformers: Any, folder: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type == "siglip":
            return transformers.SiglipVisionModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="auto"
            )
        tower = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype="auto"
        )
        tower = tower.vision_model if config.model_type == "clip" else tower
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{folder}: no vision tower can be loaded from it: {first_line(error)}"
        ) from error
    if not hasattr(tower.config, "patch_size"):
        raise BadInput(f"{folder}: {config.model_type!r} is no vision tower with patches")
    return tower


def _tokenizer(folder: Path) -> Any:
    transformers = require("transformers", "llava")
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, padding_side="left"
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BadInput(
            f"{folder}: no tokenizer can be loaded from it: {first_line(error)}"
        ) from error


def read_pixels(folder: Path) -> Pixels:
    """Read the image processor of a folder of transformers.

    Raises:
        BadInput: there is none.
    """
    for name in _PROCESSORS:
        file = folder / name
        if not file.is_file():
            continue
        try:
            settings = json.loads(file.read_text())
        except ValueError as error:
            raise BadInput(f"{file}: no JSON: {error}") from error
        settings = settings.get("image_processor", settings)
        if "image_mean" in settings:
            return Pixels.read(settings, str(file))
    raise BadInput(f"{folder}: there is no image processor ({' or '.join(_PROCESSORS)})")
