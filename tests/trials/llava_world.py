"""A LLaVA of a few thousand parameters with random weights, its base as a folder, and samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llava_tokenizers import word_level
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from written_tables import written

from djsandbox_ray.dataset.media import IMAGE_TOKEN
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.shapes import generate
from djsandbox_ray.dataset.shapes_questions import converse
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.evaluation.asking import Asked
from djsandbox_ray.identity import content_id
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import TrialData, TrialTask
from djsandbox_ray.trials.llava.base_folder import joined, save
from djsandbox_ray.trials.llava.config import LlavaModelConfig
from djsandbox_ray.trials.llava.pixels import Pixels
from djsandbox_ray.trials.llava.small import small_tokenizer
from djsandbox_ray.trials.strategies.strategy import Group

BUDGET, FIXED = 24, 16
"""Samples of the first stage, and of the second."""
PIXELS = Pixels(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def tower() -> Any:
    """Return a tower of 2 layers that sees 4 patches of 16 pixels' squares."""
    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return CLIPVisionModel(config).eval()


def language(tokenizer: Any, tied: bool = False) -> Any:
    """Return a language model of 2 layers."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def write_base(folder: Path, tokenizer: Any | None = None, tied: bool = False) -> Path:
    """Write a base with random weights."""
    tokenizer = tokenizer or word_level()
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llava = joined(tower(), language(tokenizer, tied), tokenizer, PIXELS, -2)
        # Of a size that lets a projector of random weights change what is said.
        for parameter in llava.model.language_model.parameters():
            parameter.data.mul_(4 if parameter.ndim > 1 else 1)
    save(llava, tokenizer, PIXELS, folder)
    return folder


def write_fine(folder: Path) -> Path:
    """Write a ConvNeXt whose maps have 16, 16, 8 and 4 rows of 64 pixels."""
    config = ConvNextConfig(
        hidden_sizes=[6, 8, 10], depths=[1, 1, 1], num_stages=3, patch_size=4, image_size=64
    )
    ConvNextModel(config).save_pretrained(folder)
    settings = {
        "size": {"height": 64, "width": 64},
        "image_mean": [0.1] * 3,
        "image_std": [2.0] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def write_pairs(folder: Path, rows: int, seed: int = 0) -> SampleTable:
    """Write images with captions."""
    folder.mkdir(parents=True)
    samples = [generate(seed, index, (), 32) for index in range(rows)]
    return written(list(samples), folder, wide=False)[0]


def write_talk(folder: Path, rows: int, seed: int = 0, questions: int = 2) -> SampleTable:
    """Write conversations about images."""
    folder.mkdir(parents=True)
    samples = [converse(seed, index, (), 32, questions) for index in range(rows)]
    return written(list(samples), folder)[0]


def write_mixed(folder: Path) -> SampleTable:
    """Write conversations of which some are about no image.

    One worker may be at such a one while another looks at something.
    """
    folder.mkdir(parents=True)
    seen = [converse(0, index, (), 32, 2) for index in range(16)]
    blind = []
    for sample in seen:
        asked, *others = sample.turns
        asked = replace(asked, text=asked.text.removeprefix(f"{IMAGE_TOKEN}\n"))
        blind.append(replace(sample, image=b"", turns=(asked, *others)))
    return written([*seen, *blind], folder)[0]


def write_shapes(folder: Path, settings: Any) -> SampleTable:
    """Write what a source of the world of shapes gives, by its settings, into a folder of its own.

    Args:
        folder: of all such tables.
        settings: as a configuration has them, or read.
    """
    kind = settings["type"] if isinstance(settings, dict) else settings.type
    source = SOURCES.get(kind)
    config = source.Config.model_validate(settings) if isinstance(settings, dict) else settings
    samples = [item for shard in source(config).shards() for item in shard.read()]
    own = folder / content_id("shapes", config.model_dump(mode="json"))
    own.mkdir()
    return written(samples, own, wide=config.content != "pairs")[0]


def words_of(*tables: SampleTable) -> Any:
    """Return a tokenizer that knows every word of some tables."""
    texts: list[str] = []
    for table in tables:
        texts += table.column("text").to_pylist()
        turns = table.turns(np.arange(table.rows))
        texts += [turn.text for some in turns for turn in some]
    return small_tokenizer(text.replace("<__dj__image>", "") for text in texts)


class Tables:
    """What trials of a small LLaVA read.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.base = folder, folder / "base"
        self.pairs, self.talk, self.trusted = (
            SampleTable(str(folder / name / "x.lance")) for name in ("pairs", "talk", "trusted")
        )

    @classmethod
    def write(cls, folder: Path) -> Tables:
        """Write all of it."""
        write_pairs(folder / "pairs", 40)
        write_talk(folder / "talk", 20)
        write_pairs(folder / "trusted", 12, seed=1)
        made = cls(folder)
        write_base(made.base, words_of(made.pairs, made.talk, made.trusted))
        return made

    def data(self, **other: Any) -> TrialData:
        evaluation = {"trusted": self.trusted.uri, "talk": self.talk.uri}
        fixed = {"finetune": self.talk.uri}
        known = {
            "train": self.pairs.uri,
            "evaluation": evaluation,
            "fixed": fixed,
            "base": str(self.base),
        }
        return TrialData(**{**known, **other})


def config(
    tables: Tables, finetune: dict[str, Any] | None = None, **other: Any
) -> LlavaModelConfig:
    second = {
        "dataset": {"type": "shapes_questions", "samples": 20},
        "samples": FIXED,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "template": "chat",
        "aspect": "crop",
        **(finetune or {}),
    }
    return LlavaModelConfig(
        type="llava",
        base={"path": str(tables.base)},
        batch_size=8,
        finetune=second,
        **other,
    )


def task(
    tables: Tables, folder: Path, evaluate: Callable[..., dict[str, float]], **other: Any
) -> TrialTask:
    rows = np.arange(30, dtype=np.int64)
    settings: dict[str, Any] = {
        "seed": 3,
        "rows": rows,
        "captions": rows,
        "rungs": (BUDGET + FIXED,),
        "budget": BUDGET,
        "cpus": 1,
        "gpus": 0,
        "checkpoint": Checkpoint(str(folder), "trial", other.get("group")),
        "group": Group(),
        "evaluate": evaluate,
    }
    return TrialTask(**{**settings, **other})


def asked(tables: Tables) -> list[Asked]:
    """Return questions of many lengths about several images."""
    found = []
    for row, turns in enumerate(tables.talk.turns(np.arange(tables.talk.rows))):
        text = turns[0].text.replace(f"{IMAGE_TOKEN}\n", "")
        found.append(Asked(f"{row}", "talk", row, text, 4))
        found.append(Asked(f"{row} short", "talk", row, "What?", 4))
    return found
