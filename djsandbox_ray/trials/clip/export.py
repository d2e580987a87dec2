"""Saves an open_clip model for others: as open_clip's own folder, or as Hugging Face's CLIP.

In the latter the parameters are the same numbers under other names; only the fused query-key-value
matrices of open_clip are split into three.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.clip.arch import Tokenizer, image_size
from djsandbox_ray.trials.clip.training import PIXEL_MEAN, PIXEL_STD

_WHOLE_VOCABULARY = 49408
_MERGES = "bpe.txt.gz"


def export_open_clip(model: Any, arch: dict[str, Any], folder: Path) -> str:
    """Write weights and configuration as open_clip's folders have them, and a tokenizer.

    Args:
        model: an open_clip model that was built from ``arch``, on any device; it stays as it is.
        arch: its open_clip configuration.
        folder: an existing empty folder.

    Returns:
        Python that loads model, transform and tokenizer from the folder ``folder``.
    """
    save_file = require("safetensors.torch", "clip").save_file
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if name != "attn_mask"
    }
    # Trials may have it as a vector of length 1: what shares weights out cannot cut a scalar.
    state["logit_scale"] = state["logit_scale"].reshape(())
    save_file(state, folder / "open_clip_model.safetensors")
    pixels = {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD)}
    config = {"model_cfg": arch, "preprocess_cfg": {**pixels, "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    lines = [
        "import open_clip",
        'model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")',
    ]
    tokenizer = Tokenizer(arch)
    if len(tokenizer.encoder) == _WHOLE_VOCABULARY:
        lines.append('tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")')
    else:  # open_clip's configurations cannot name a smaller vocabulary
        merges = "\n".join(["#version: 0.2", *tokenizer.merge_lines])
        (folder / _MERGES).write_bytes(gzip.compress(merges.encode(), mtime=0))
        lines.append(
            f'tokenizer = open_clip.SimpleTokenizer(bpe_path=f"{{folder}}/{_MERGES}", '
            f"context_length={tokenizer.context_length})"
        )
    return "\n".join(lines)


def export_hugging_face(model: Any, arch: dict[str, Any], folder: Path) -> None:
    """Write weights, configuration, tokenizer and image processor to ``folder``.

    The temperature is set to 1/100, which ``image_text_similarity_filter`` divides out again: its
    statistic is the cosine between image and text.

    Args:
        model: an open_clip model that was built from ``arch``, on any device; it stays as it is.
        arch: its open_clip configuration.
        folder: an existing empty folder.

    Raises:
        BadInput: the architecture has parts that Hugging Face's CLIP does not have.
    """
    transformers = require("transformers", "clip")
    tokenizer = Tokenizer(arch)
    target = transformers.CLIPModel(_config(transformers, arch, tokenizer))
    state = _rename(model.state_dict())
    state["logit_scale"] = state["logit_scale"].reshape(()).fill_(math.log(100))
    missing, unexpected = target.load_state_dict(state, strict=False)
    lacking = [name for name in missing if not name.endswith("position_ids")]
    if lacking or unexpected:
        raise BadInput(
            "this architecture cannot be saved as a Hugging Face CLIP: "
            f"without counterpart: {[*lacking, *unexpected][:5]}"
        )
    target.save_pretrained(folder)
    _save_tokenizer(transformers, tokenizer, folder)
    side = image_size(arch)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(PIXEL_MEAN),
        image_std=list(PIXEL_STD),
    ).save_pretrained(folder)


def _config(transformers: Any, arch: dict[str, Any], tokenizer: Tokenizer) -> Any:
    vision, text = arch["vision_cfg"], arch["text_cfg"]
    activation = "quick_gelu" if arch.get("quick_gelu") else "gelu"
    vision_width = vision["width"]
    start, end = tokenizer.encoder["<start_of_text>"], tokenizer.encoder["<end_of_text>"]
    return transformers.CLIPConfig(
        projection_dim=arch["embed_dim"],
        vision_config={
            "hidden_size": vision_width,
            "intermediate_size": int(vision_width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision_width // vision.get("head_width", 64),
            "image_size": image_size(arch),
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
        },
        text_config={
            "vocab_size": len(tokenizer.encoder),
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": tokenizer.context_length,
            "hidden_act": activation,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": end,
        },
    )


_NAMES = (
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
)


_LAYER_NAMES = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)


def _rename(state: dict[str, Any]) -> dict[str, Any]:
    renamed = {}
    for name, value in state.items():
        if name == "attn_mask":
            continue
        for prefix, new in _NAMES:
            if name.startswith(prefix):
                name = new + name[len(prefix) :]
                break
        for part, new in _LAYER_NAMES:
            name = name.replace(part, new)
        if ".attn.in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(".attn.in_proj_", f".self_attn.{letter}_proj.")] = part
        elif name in {"visual_projection.weight", "text_projection.weight"}:
            renamed[name] = value.T.contiguous()
        else:
            renamed[name] = value.clone()
    return renamed


def _save_tokenizer(transformers: Any, tokenizer: Tokenizer, folder: Path) -> None:
    # Hugging Face spells the special tokens differently; the ids are what the model knows.
    spelling = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {spelling.get(token, token): i for token, i in tokenizer.encoder.items()}
    vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary_file.write_text(json.dumps(vocabulary, ensure_ascii=False))
    merges_file.write_text("\n".join(["#version: 0.2", *tokenizer.merge_lines, ""]))
    transformers.CLIPTokenizer.from_pretrained(
        folder, model_max_length=tokenizer.context_length, local_files_only=True
    ).save_pretrained(folder)
