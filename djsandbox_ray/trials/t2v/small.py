"""A small base, trained on trusted clips: for demonstrations and tests that need no download.

The codec is fitted, not trained. The text encoder has random weights and stays as it is: of twenty
words it makes twenty different directions, which is all that a small transformer has to tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, SerializeAsAny, field_validator

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, content_of
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import require
from djsandbox_ray.settings.sections import Component, Section, component
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.trials.base import BaseTask, run_whole
from djsandbox_ray.trials.family import device_for
from djsandbox_ray.trials.loop import AdditiveConfig, AdditiveTraining
from djsandbox_ray.trials.t2v.base_folder import CODEC, Prompter, load_video_base
from djsandbox_ray.trials.t2v.latents import StoredLatents, write_latents
from djsandbox_ray.trials.t2v.objective import Denoising, PromptBook
from djsandbox_ray.trials.t2v.patches import PatchCodec
from djsandbox_ray.trials.t2v.schedule import schedule_of
from djsandbox_ray.trials.t2v.training_clips import Clips

VERSION = 1
"""Part of the id of a small base: to be raised when the same data make another."""

_DROP = 0.1
_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
"""In the order of their numbers, as T5 has them."""


class VideoBaseTraining(Section):
    """What a small base is trained on."""

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)]
    """Trusted videos with captions, apart from the data in question."""
    samples: int = Field(default=12_800, gt=0, le=10**12, strict=True)
    """Samples seen in training."""
    frames: int = Field(default=9, ge=1, le=1 << 12, strict=True)
    size: tuple[int, int] = (32, 32)
    """Height and width in pixels."""
    seed: int = Field(default=0, ge=0, strict=True)
    """Decides the initial weights, the order of samples and the noise."""
    fitted: int = Field(default=500, ge=1, le=1 << 20, strict=True)
    """Clips that the codec is fitted on, the first ones."""
    batch_size: int = Field(default=32, ge=1, le=1 << 20, strict=True)
    learning_rate: float = Field(default=2e-3, gt=0)

    @field_validator("dataset")
    @classmethod
    def _videos(cls, source: Component) -> Component:
        if (found := content_of(source)) != "videos":
            raise ValueError(f"videos are needed, not content: {found}")
        return source


@dataclass(frozen=True)
class SmallVideoBase:
    """Trains a small base."""

    config: VideoBaseTraining
    arch: dict[str, Any]
    task: BaseTask

    def make(self) -> dict[str, float]:
        """Fit, train and save; return the share of variance that the codec keeps, and the loss."""
        config, folder = self.config, self.task.folder
        table = SampleTable(self.task.tables["clips"])
        shape = ClipShape(config.frames, config.size)
        clips = Clips(table.uri, shape, np.arange(table.rows, dtype=np.int64))
        kept = self._fit(clips)
        captions = clips.captions()
        write_parts(folder, self.arch, captions, config.seed)
        with temporary() as scratch:
            return {"variance_kept": kept, "loss": self._train(clips, captions, scratch)}

    def _fit(self, clips: Clips) -> float:
        """Fit the codec and save it."""
        settings, count = self.arch["codec"], min(self.config.fitted, len(clips))
        seen = (clips.take(np.array([place]))[0] for place in range(count))
        codec, kept = PatchCodec.fitted(seen, settings["channels"], settings["side"])
        (self.task.folder / CODEC).mkdir()
        codec.save(self.task.folder / CODEC)
        return kept

    def _train(self, clips: Clips, captions: list[str], scratch: Path) -> float:
        config, folder = self.config, self.task.folder
        device = device_for(self.task.cpus, self.task.gpus)
        base = load_video_base(folder, device, half=False)
        base.adapter.check(base.codec.ratios.shape(config.frames, *config.size))
        uri = str(scratch / "latents.lance")
        write_latents(uri, clips, base.codec)
        prompter = Prompter(folder, type(base.adapter), self.arch["tokens"], device)
        model = base.transformer.requires_grad_(True)
        objective = Denoising(
            model,
            base.adapter,
            schedule_of(base.scheduler, "logit_normal", 1.0),
            StoredLatents(uri, clips.rows),
            captions,
            PromptBook(captions, prompter),
            config.seed,
            _DROP,
            device,
        )
        training = AdditiveTraining(
            objective,
            len(clips),
            AdditiveConfig(
                batch_size=config.batch_size, learning_rate=config.learning_rate, weight_decay=0.0
            ),
            config.seed,
            device,
            beat=self.task.beat,
        )
        loss = run_whole(training, config.samples, self.task.checkpoint("transformer"))
        model.cpu().eval().save_pretrained(folder / "transformer")
        return loss


def write_parts(folder: Path, arch: dict[str, Any], captions: Iterable[str], seed: int) -> None:
    """Write a pipeline with random weights; all but its codec.

    Args:
        folder: where.
        arch: as :func:`.model_folders.shipped_arch` gives it.
        captions: whose words its tokenizer knows.
        seed: of the weights.
    """
    diffusers, transformers = require("diffusers", "t2v"), require("transformers", "t2v")
    torch = require("torch", "clip")
    tokenizer = word_tokenizer(captions, arch["tokens"])
    text, settings = dict(arch["text_encoder"]), dict(arch["transformer"])
    config = transformers.AutoConfig.for_model(
        text.pop("model_type"), vocab_size=len(tokenizer), **text
    )
    scheduler = dict(arch["scheduler"])
    made = getattr(diffusers, scheduler.pop("_class_name"))(**scheduler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = transformers.AutoModelForTextEncoding.from_config(config)
        transformer = getattr(diffusers, settings.pop("_class_name"))(**settings)
    diffusers.WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.eval(),
        vae=None,
        scheduler=made,
        transformer=transformer,
    ).save_pretrained(folder)


def word_tokenizer(texts: Iterable[str], tokens: int) -> Any:
    """Return a tokenizer with the words of some texts, each a token, and an end behind them.

    Args:
        texts: all that it is to know.
        tokens: most of them per text.
    """
    tokenizers, transformers = require("tokenizers", "t2v"), require("transformers", "t2v")
    split = tokenizers.pre_tokenizers.Whitespace()
    every = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    known = {word: place for place, word in enumerate((*_SPECIAL.values(), *every))}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(known, unk_token=_SPECIAL["unk_token"])
    )
    tokenizer.pre_tokenizer = split
    end = _SPECIAL["eos_token"]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, known[end])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=tokens, **_SPECIAL
    )
