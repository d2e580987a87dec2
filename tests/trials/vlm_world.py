"""Models of three kinds that read images and text, tiny, with random weights and real processors.

Each is a folder as ``AutoModelForImageTextToText`` and ``AutoProcessor`` load it. They differ in
what their processors make of an image: Idefics3's, which SmolVLM has too, pads the tiles of a batch
to one number, Qwen2-VL has a row for each patch, InternVL one for each tile.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llava_tokenizers import CORPUS
from llava_world import write_pairs, write_talk
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from djsandbox_ray.dataset.media import IMAGE_TOKEN, Turn
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.evaluation.asking import Asked
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import TrialData, TrialTask
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.vlm.config import VlmConfig

BUDGET, FIXED = 12, 8
"""Samples of the stage on the pool, and of that on fixed data."""
SIZES = ((32, 32), (16, 30), (40, 20), (24, 24))
"""Height and width of images of which processors make other numbers of tiles."""

IDEFICS = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for line in message['content'] %}"
    "{% if line['type'] == 'image' %}IMAGE{% else %}{{ line['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def tokenizer(special: Sequence[str], end: str, **attributes: str) -> Any:
    """Return a tokenizer of byte pairs; ``attributes`` are tokens that a processor asks it for."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=["<pad>", "<|im_start|>", end, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token=end,
        additional_special_tokens=["<|im_start|>", *special],
        extra_special_tokens=attributes or None,
    )


def idefics3() -> tuple[Any, Any]:
    """Return a model and its processor, which cuts images into tiles of 16 pixels."""
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    around = ["<image>", "<fake_token_around_image>", "<global-img>"]
    words = tokenizer([*around, *tiles], "<end_of_utterance>")
    images = Idefics3ImageProcessor(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}, do_image_splitting=True
    )
    processor = Idefics3Processor(images, words, image_seq_len=1, chat_template=IDEFICS)
    config = Idefics3Config(
        vision_config=dict(_TOWER),
        text_config={"model_type": "llama", "vocab_size": len(words), **_LANGUAGE},
        scale_factor=4,
        image_token_id=processor.image_token_id,
        pad_token_id=words.pad_token_id,
    )
    return Idefics3ForConditionalGeneration(config), processor


def qwen2_vl() -> tuple[Any, Any]:
    """Return a model and its processor, of whose patches four are a token."""
    special = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    words = tokenizer(special, "<|im_end|>")
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    images = Qwen2VLImageProcessor(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
    processor = Qwen2VLProcessor(images, words, Qwen2VLVideoProcessor(), chat_template=template)
    known = {name: words.convert_tokens_to_ids(name) for name in special}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": _LANGUAGE["hidden_size"],
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
        },
        text_config={
            "vocab_size": len(words),
            "rope_parameters": rope,
            "bos_token_id": None,
            "eos_token_id": words.eos_token_id,
            **_LANGUAGE,
        },
        image_token_id=known["<|image_pad|>"],
        video_token_id=known["<|video_pad|>"],
        vision_start_token_id=known["<|vision_start|>"],
        vision_end_token_id=known["<|vision_end|>"],
    )
    return Qwen2VLForConditionalGeneration(config), processor


def internvl() -> tuple[Any, Any]:
    """Return a model and its processor, which cuts images into tiles of 16 pixels."""
    around = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(list(around.values()), "<|im_end|>", **around)
    images = GotOcr2ImageProcessor(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=2
    )
    processor = InternVLProcessor(
        images,
        words,
        InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    config = InternVLConfig(
        vision_config=dict(_TOWER),
        text_config={"model_type": "qwen2", "vocab_size": len(words), **_LANGUAGE},
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    return InternVLForConditionalGeneration(config), processor


KINDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "idefics3": idefics3,
    "qwen2_vl": qwen2_vl,
    "internvl": internvl,
}


def write_vlm(folder: Path, kind: str) -> Path:
    """Write a model with its processor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = KINDS[kind]()
        for name, parameter in model.named_parameters():
            # Of a size that lets an image change what is said.
            if parameter.ndim > 1 and "embed" not in name:
                torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(number: int) -> bytes:
    """Return a PNG of noise in one of :data:`SIZES`."""
    height, width = SIZES[number % len(SIZES)]
    pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def talk(images: int = 1) -> tuple[tuple[Turn, ...], list[bytes]]:
    """Return a conversation of four turns, with images in front and one behind."""
    turns = (
        Turn("user", f"{IMAGE_TOKEN}\n" * images + "What color is the circle?"),
        Turn("assistant", "red"),
        Turn("user", f"there is a small blue star, no cross!\n{IMAGE_TOKEN}"),
        Turn("assistant", "yes no two lines"),
    )
    return turns, [picture(number) for number in range(images + 1)]


class VlmTables:
    """What trials of a small model read.

    Args:
        folder: where it lies.
        kind: of the model.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self.base = folder, kind, folder / kind
        self.pairs, self.talk, self.trusted = (
            SampleTable(str(folder / name / "x.lance")) for name in ("pairs", "talk", "trusted")
        )

    @classmethod
    def write(cls, folder: Path) -> dict[str, VlmTables]:
        """Write all of it, and a model of each kind."""
        write_pairs(folder / "pairs", 20)
        write_talk(folder / "talk", 10)
        write_pairs(folder / "trusted", 6, seed=1)
        made = {kind: cls(folder, kind) for kind in KINDS}
        for tables in made.values():
            write_vlm(tables.base, tables.kind)
        return made

    def data(self, **other: Any) -> TrialData:
        known: dict[str, Any] = {
            "train": self.pairs.uri,
            "evaluation": {"trusted": self.trusted.uri, "talk": self.talk.uri},
            "fixed": {"finetune": self.talk.uri},
            "base": str(self.base),
        }
        return TrialData(**{**known, **other})

    def asked(self) -> list[Asked]:
        """Return questions of several lengths about several images."""
        found = []
        for row, turns in enumerate(self.talk.turns(np.arange(self.talk.rows))):
            text = turns[0].text.replace(f"{IMAGE_TOKEN}\n", "")
            found.append(Asked(f"{row}", "talk", row, text, 4))
            found.append(Asked(f"{row} short", "talk", row, "What?", 4))
        return found


def config(tables: VlmTables, finetune: dict[str, Any] | None = None, **other: Any) -> VlmConfig:
    """Return settings of two stages; without the second where ``finetune`` is left out."""
    second = None
    if finetune is not None:
        dataset = {"type": "shapes_questions", "samples": 10}
        second = {"dataset": dataset, "samples": FIXED, "batch_size": 4, **finetune}
    lora = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
    if second is not None and second.get("train", "lora") == "lora":
        second["lora"] = lora
    return VlmConfig(
        **{
            "type": "vlm",
            "base": {"path": str(tables.base)},
            "batch_size": 6,
            "learning_rate": 1e-3,
            "lora": lora,
            "finetune": second,
            **other,
        }
    )


def task(
    tables: VlmTables, folder: Path, evaluate: Callable[..., dict[str, float]], **other: Any
) -> TrialTask:
    """Return a trial on the first rows of the pairs."""
    rows = np.arange(16, dtype=np.int64)
    settings: dict[str, Any] = {
        "seed": 3,
        "rows": rows,
        "captions": rows,
        "rungs": (BUDGET,),
        "budget": BUDGET,
        "cpus": 1,
        "gpus": 0,
        "checkpoint": Checkpoint(str(folder), "trial", other.get("group")),
        "group": Group(),
        "evaluate": evaluate,
    }
    return TrialTask(**{**settings, **other})
