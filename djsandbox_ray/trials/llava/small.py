"""A small base, trained on trusted data: for demonstrations and tests that need no download.

The tower is taught by contrast with captions; the language model reads nothing but text. Such a
model, if it has only ever read words, does not understand what a projector puts before its text,
however long that is trained: at this size nothing is left over in it that could. So it reads, in
the place of an image, embeddings of words about the scene, in random order and with noise; what
they mean there is learnt from text alone, and images are still news to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from djsandbox_ray.dataset.media import IMAGE_TOKEN, Turn
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, content_of
from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.sections import Component, Section, component
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.trials.base import BaseTask, run_whole
from djsandbox_ray.trials.clip.arch import build_model
from djsandbox_ray.trials.clip.export import export_hugging_face
from djsandbox_ray.trials.clip.family import ClipConfig
from djsandbox_ray.trials.clip.samples import Streamed
from djsandbox_ray.trials.clip.training import DeviceArrays, Training
from djsandbox_ray.trials.conversations import DESCRIBE, described, refuse_without
from djsandbox_ray.trials.family import device_for
from djsandbox_ray.trials.llava.base_folder import IMAGE, joined, save
from djsandbox_ray.trials.llava.objective import Batch, Micro
from djsandbox_ray.trials.llava.pixels import Pixels
from djsandbox_ray.trials.llava.text import CHAT, PLAIN, Transcript
from djsandbox_ray.trials.loop import AdditiveConfig, AdditiveTraining
from djsandbox_ray.trials.objective import noise

VERSION = 1
"""Part of the id of a small base: to be raised when the same data make another."""

_NOISE = 0.3
"""Of the words in the place of an image, in standard deviations of the embeddings."""
_MAX_TOKENS = 256
_MICRO = 32
"""Texts of like length at a time: less padding is computed."""
_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'Q: ' + message['content'] + '\nA:' }}{% else %}{{ message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class BaseTraining(Section):
    """What a small base is trained on."""

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)]
    """Trusted image-text pairs, apart from the data in question."""
    questions: Annotated[SerializeAsAny[Component], component(SOURCES)] | None = None
    """Trusted conversations, of which the language model reads the text."""
    samples: int = Field(default=20_000, gt=0, le=10**12, strict=True)
    """Samples seen by the tower, and as many by the language model."""
    seed: int = Field(default=0, ge=0, strict=True)
    """Decides the initial weights and the order of samples."""
    words: tuple[str, ...] = Field(default=("shape", "colour", "background"), min_length=1)
    """Keys of the meta data: what lies under them are the words about a scene."""
    batch_size: int = Field(default=64, ge=2, le=1 << 20, strict=True)
    """Samples of one step."""
    tower_learning_rate: float = Field(default=2e-3, gt=0)
    """Of the tower."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Of the language model."""

    @field_validator("dataset", "questions")
    @classmethod
    def _fitting(cls, source: Component | None, info: ValidationInfo) -> Component | None:
        wanted = "pairs" if info.field_name == "dataset" else "conversations"
        if source is not None and (found := content_of(source)) != wanted:
            raise ValueError(f"{wanted} are needed, not content: {found}")
        return source


@dataclass(frozen=True)
class SmallBase:
    """Trains a small base."""

    config: BaseTraining
    arch: dict[str, Any]
    task: BaseTask

    def make(self) -> dict[str, float]:
        """Train and save both; return their losses."""
        with temporary() as folder:
            tower_loss = self._train_tower(folder)
            transformers = require("transformers", "llava")
            tower = transformers.CLIPModel.from_pretrained(
                folder, local_files_only=True
            ).vision_model
            settings = json.loads((folder / "preprocessor_config.json").read_text())
            pixels = Pixels.read(settings, "the tower's image processor")
        scenes = _Scenes.read(self.task.tables, self.config.words)
        tokenizer = small_tokenizer(scenes.texts())
        llava, loss = self._train_language(tower, tokenizer, pixels, scenes)
        save(llava, tokenizer, pixels, self.task.folder)
        return {"tower_loss": tower_loss, "language_loss": loss}

    def _train_tower(self, folder: Path) -> float:
        """Train an open_clip model, and leave it as a folder of transformers."""
        config, arch = self.config, self.arch["tower"]
        device = device_for(self.task.cpus, self.task.gpus)
        table = SampleTable(self.task.tables["pairs"])
        rows = np.arange(table.rows, dtype=np.int64)
        samples = Streamed(table.uri, arch, threads=2)
        draw = DeviceArrays(samples.images(rows), samples.tokens(rows), config.seed, device)
        settings = ClipConfig(
            type="clip", batch_size=config.batch_size, learning_rate=config.tower_learning_rate
        )
        model = build_model(arch, config.seed).to(device)
        training = Training(model, draw, settings, device, beat=self.task.beat)
        loss = run_whole(training, config.samples, self.task.checkpoint("tower"))
        export_hugging_face(model.cpu().eval(), arch, folder)
        return loss

    def _train_language(
        self, tower: Any, tokenizer: Any, pixels: Pixels, scenes: _Scenes
    ) -> tuple[Any, float]:
        """Train a language model on the texts; return it with the tower, and its loss."""
        transformers, torch = require("transformers", "llava"), require("torch", "clip")
        from djsandbox_ray.trials.llava.modules import Blindfold

        config, settings = self.config, dict(self.arch["language"])
        device = device_for(self.task.cpus, self.task.gpus)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            language = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(
                    settings.pop("model_type"),
                    vocab_size=len(tokenizer),
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                    tie_word_embeddings=False,
                    **settings,
                )
            )
        layers = self.arch["vision_feature_layer"]
        llava = joined(tower, language, tokenizer, pixels, layers)
        llava.requires_grad_(False)
        for part in (llava.model.language_model, llava.lm_head):
            part.requires_grad_(True)
        objective = _Words(Blindfold(llava).to(device), scenes, tokenizer, config.seed, device)
        training = AdditiveTraining(
            objective,
            len(scenes.told),
            AdditiveConfig(
                batch_size=config.batch_size,
                micro_batch=_MICRO,
                learning_rate=config.learning_rate,
                weight_decay=0.0,
            ),
            config.seed,
            device,
            beat=self.task.beat,
        )
        loss = run_whole(training, config.samples, self.task.checkpoint("language"))
        return llava.cpu().eval(), loss


@dataclass(frozen=True)
class _Scenes:
    """The texts of the trusted data, and the words about what each is about."""

    told: tuple[tuple[Turn, ...], ...]
    templates: tuple[str, ...]
    """Of each: captions are read plain, conversations as such."""
    words: tuple[str, ...]
    """Of each, the words about its scene."""

    @classmethod
    def read(cls, tables: Mapping[str, str], keys: Sequence[str]) -> _Scenes:
        """Read captions, and conversations where there are any.

        Raises:
            BadInput: what is said is not about one image, or its meta data have no such keys.
        """
        told: list[tuple[Turn, ...]] = []
        templates: list[str] = []
        words: list[str] = []
        for uri in tables.values():
            table = SampleTable(uri)
            columns = table.scan(0, table.rows, ["text", "meta"]).to_pylist()
            turns = table.turns(np.arange(table.rows))
            for row, (line, said) in enumerate(zip(columns, turns, strict=True)):
                meta = json.loads(line["meta"])
                lacking = [key for key in keys if not isinstance(meta.get(key), str)]
                if lacking:
                    raise BadInput(
                        f"trials.model.base.train.words: row {row} of {uri} has no text under "
                        f"{', '.join(lacking)} in its meta data (there are {', '.join(meta)})"
                    )
                whole = said or described(line["text"])
                if sum(turn.text.count(IMAGE_TOKEN) for turn in whole) != 1:
                    raise BadInput(f"{uri}: row {row} is not about one image")
                told.append(whole)
                templates.append(CHAT if said else PLAIN)
                words.append(" ".join(meta[key] for key in keys))
        return cls(tuple(told), tuple(templates), tuple(words))

    def texts(self) -> Iterator[str]:
        """Yield everything that is said."""
        yield from self.words
        for turns in self.told:
            for turn in turns:
                yield turn.text.replace(IMAGE_TOKEN, "")


class _Words:
    """The objective of a language model that reads words in the place of an image.

    Args:
        model: a :class:`~.modules.Blindfold` on its device.
        scenes: what it reads.
        tokenizer: of the language model.
        seed: decides order and noise of the words.
        device: a torch device name.
    """

    def __init__(self, model: Any, scenes: _Scenes, tokenizer: Any, seed: int, device: str) -> None:
        self.model = model
        self._seed, self._device = seed, device
        config = model.llava.config
        self._tokens = config.image_seq_length
        self._width = config.text_config.hidden_size
        transcripts = {
            template: Transcript(
                tokenizer, template, config.image_token_id, self._tokens, _MAX_TOKENS
            )
            for template in sorted(set(scenes.templates))
        }
        self._encoded = [
            transcripts[template].sample(turns)
            for template, turns in zip(scenes.templates, scenes.told, strict=True)
        ]
        self._words = [
            np.array(tokenizer(words, add_special_tokens=False)["input_ids"])
            for words in scenes.words
        ]
        refuse_without(
            sum(not one.targets for one in self._encoded), len(self._encoded), _MAX_TOKENS
        )
        self._pad = int(tokenizer.pad_token_id)

    def collate(self, positions: NDArray[np.int64], order: NDArray[np.int64]) -> Batch:
        """Choose the words of each sample's scene, as often as needed, in random order."""
        words = []
        for at, number in zip(positions.tolist(), order.tolist(), strict=True):
            rng = noise(self._seed, 2 * number)
            words.append((rng.permutation(np.resize(self._words[at], self._tokens)),))
        encoded = tuple(self._encoded[at] for at in positions.tolist())
        return Batch(encoded, tuple(words), tuple(order.tolist()))

    def weight(self, batch: Batch) -> float:
        """Return the number of tokens that are learnt."""
        return float(batch.targets)

    def split(self, batch: Batch, size: int) -> list[Micro]:
        """Cut a batch, with samples of like length together."""
        return batch.split(size, self._pad)

    def loss(self, forward: Callable[..., Any], batch: Micro) -> tuple[Any, dict[str, Any]]:
        """Return the sum of the negative log likelihoods of the targets, in nats."""
        torch = require("torch", "clip")
        shape = (self._tokens, self._width)
        noises = [
            noise(self._seed, 2 * number + 1).standard_normal(shape, np.float32)
            for number in batch.numbers
        ]
        batch = batch.to(self._device)
        blurred = torch.from_numpy(_NOISE * np.stack(noises)).to(self._device)
        logits = forward(batch.ids, batch.mask, batch.places, batch.images, blurred)
        functional = require("torch.nn.functional", "clip")
        return functional.cross_entropy(logits.float(), batch.targets, reduction="sum"), {}


def small_configurations(arch: dict[str, Any]) -> tuple[Any, Any]:
    """Return the settings of tower and language model of a small architecture.

    How many words there are, only the trusted data tell: ``vocabulary`` says how many are expected.
    """
    transformers = require("transformers", "llava")
    vision, settings = arch["tower"]["vision_cfg"], dict(arch["language"])
    tower = transformers.CLIPVisionConfig(
        hidden_size=vision["width"],
        intermediate_size=int(vision["width"] * vision["mlp_ratio"]),
        num_hidden_layers=vision["layers"],
        num_attention_heads=vision["width"] // vision["head_width"],
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
    )
    kind = settings.pop("model_type")
    return tower, transformers.AutoConfig.for_model(kind, vocab_size=arch["vocabulary"], **settings)


def small_tokenizer(texts: Iterable[str]) -> Any:
    """Return a tokenizer with the words of some texts: each is a token, and the end of a line is.

    Its chat template is ``Q: ... A: ...``.
    """
    tokenizers, transformers = require("tokenizers", "llava"), require("transformers", "llava")
    split = tokenizers.pre_tokenizers
    cutter = split.Sequence(
        [
            split.Split(tokenizers.Regex(r"\n"), "isolated"),
            split.Split(tokenizers.Regex(r"[^\S\n]+"), "removed"),
            split.Punctuation(),
        ]
    )
    every = {
        word for text in (*texts, DESCRIBE, "Q:\nA:") for word, _ in cutter.pre_tokenize_str(text)
    }
    special = (*_SPECIAL.values(), IMAGE)
    known = {word: place for place, word in enumerate((*special, *sorted(every - {*special})))}
    model = tokenizers.models.WordLevel(known, unk_token=_SPECIAL["unk_token"])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = cutter
    begin = _SPECIAL["bos_token"]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, known[begin])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        extra_special_tokens=[IMAGE],
        chat_template=_CHAT,
        **_SPECIAL,
    )
