"""Architectures: open_clip's JSON, by name or by file, with its tokenizer, model and operations.

Floating-point operations are counted by torch on a model without storage, on the meta device: on a
CPU the counter misses fused attention.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, require, unknown
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.storage.filesystems import read_text
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.trials.text_limit import within

_BATCH = 8
# OpenAI's byte-pair vocabulary: 256 bytes, 256 bytes that end a word, the merges, 2 special tokens.
_BASE_TOKENS = 514
_OF_HUB = ("hf-hub:", "local-dir:")
"""What open_clip takes for a model that is trained already, and would ask the hub for."""
_COUNTED = {"small": 36_796_416.0, "tiny": 6_280_320.0}
"""What torch counts for a step of the shipped ones, which a plan need not wait for: to import torch
and open_clip takes five seconds."""
_SHIPPED = resources.files(__package__) / "archs"


def load_arch(name: str) -> dict[str, Any]:
    """Return the open_clip configuration that ``name`` stands for.

    Args:
        name: ``tiny`` or ``small`` (shipped here), any model of open_clip such as ``ViT-B-32``, or
            the path or URL of a JSON file in open_clip's format.

    Raises:
        BadInput: there is no such architecture, or the file is not one.
    """
    shipped = sorted(
        entry.name.removesuffix(".json")
        for entry in _SHIPPED.iterdir()
        if entry.name.endswith(".json")
    )
    if name in shipped:
        return dict(json.loads((_SHIPPED / f"{name}.json").read_text()))
    if name.endswith(".json"):
        return _read(name)
    if name.startswith(_OF_HUB):
        raise BadInput(
            f"architecture {name!r}: a model of the hub is nothing that a pool is trained from; "
            "for its architecture, name its file open_clip_config.json (docs/operators.md says how "
            "files of the hub are got)"
        )
    open_clip = require("open_clip", "clip")
    if (found := open_clip.get_model_config(name)) is not None:
        return dict(found)
    listed = f"shipped: {', '.join(shipped)}; or a model name of open_clip, or a .json file's path"
    raise unknown("architecture", name, [*shipped, *open_clip.list_models()], listed=listed)


def _read(path: str) -> dict[str, Any]:
    try:
        arch = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise BadInput(f"architecture file {path}: {error}") from error
    if isinstance(arch, dict) and isinstance(arch.get("model_cfg"), dict):
        arch = arch["model_cfg"]  # as models of the hub have it, beside how images are made ready
    needed = {"embed_dim", "vision_cfg", "text_cfg"}
    if not isinstance(arch, dict) or not needed <= set(arch):
        raise BadInput(f"architecture file {path} lacks some of {', '.join(sorted(needed))}")
    return arch


def image_size(arch: dict[str, Any]) -> int:
    """Return the side of the square images, in pixels."""
    size = arch["vision_cfg"].get("image_size", 224)
    return int(size[0] if isinstance(size, list) else size)


class Tokenizer:
    """open_clip's own byte-pair tokenizer, with only the first merges where the arch says so.

    A small ``vocab_size`` keeps a tiny model tiny: the first merges of OpenAI's list are the most
    frequent pairs of English, and any text still has a tokenisation.

    Args:
        arch: an open_clip configuration.

    Raises:
        BadInput: the vocabulary is not one that the byte-pair list can give.
    """

    def __init__(self, arch: dict[str, Any]) -> None:
        text = arch["text_cfg"]
        if "hf_tokenizer_name" in text or "hf_model_name" in text:
            raise BadInput("architectures with a Hugging Face text tower are not supported")
        vocabulary = int(text.get("vocab_size", 49408))
        merges = vocabulary - _BASE_TOKENS
        if not 0 <= merges <= 49408 - _BASE_TOKENS:
            raise BadInput(f"vocab_size must lie in {_BASE_TOKENS}..49408, not {vocabulary}")
        self.context_length = int(text.get("context_length", 77))
        self.merges = merges
        self._encode = _simple_tokenizer(merges)

    def __call__(self, texts: list[str]) -> NDArray[np.int32]:
        """Return token ids, shape (len(texts), context_length), padded with 0."""
        cut = [within(text, self.context_length, lead=False) for text in texts]
        tokens = self._encode(cut, context_length=self.context_length)
        array: NDArray[np.int32] = tokens.numpy().astype(np.int32)
        return array

    @property
    def merge_lines(self) -> list[str]:
        """The merges, ``left right`` each."""
        return [" ".join(pair) for pair in self._encode.bpe_ranks]

    @property
    def encoder(self) -> dict[str, int]:
        """Token to id."""
        return dict(self._encode.encoder)


@cache
def _simple_tokenizer(merges: int) -> Any:
    tokenizer = require("open_clip.tokenizer", "clip")
    with gzip.open(tokenizer.default_bpe()) as file:
        lines = file.read().decode().split("\n")[: merges + 1]  # the first line is a header
    # open_clip reads its merges from a gzip file only.
    with temporary() as folder:
        path = folder / "bpe.txt.gz"
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
        return tokenizer.SimpleTokenizer(bpe_path=str(path))


def build_model(arch: dict[str, Any], seed: int, shareable: bool = False) -> Any:
    """Build the open_clip model, float32 on the CPU; its weights depend on ``seed`` alone.

    Args:
        arch: an open_clip configuration.
        seed: decides the weights.
        shareable: whether the temperature is a vector of length 1: what shares weights out among
            workers cannot cut a scalar. The numbers are the same.
    """
    torch = require("torch", "clip")
    model = require("open_clip.model", "clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = model.CustomTextCLIP if arch.get("custom_text") else model.CLIP
        settings = {key: value for key, value in arch.items() if key != "custom_text"}
        if shareable:
            settings["nonscalar_logit_scale"] = True
        return kind(**settings)


def training_flops(arch: dict[str, Any]) -> float:
    """Return the operations of one forward and backward pass, per sample."""
    known = next((n for name, n in _COUNTED.items() if arch == load_arch(name)), None)
    if known is not None:
        return known
    model, images, tokens = _on_meta(arch)

    def step() -> None:
        image_features, text_features, scale = model(images, tokens)
        (scale * image_features @ text_features.T).sum().backward()

    return _count(step)


def encoding_flops(arch: dict[str, Any]) -> tuple[float, float]:
    """Return the operations of embedding one image, and one text."""
    model, images, tokens = _on_meta(arch)
    with require("torch", "clip").no_grad():
        return _count(lambda: model.encode_image(images)), _count(lambda: model.encode_text(tokens))


class CountingEncoder:
    """Counts what evaluators ask for, and answers with random directions.

    Args:
        dimensions: of an embedding.
    """

    def __init__(self, dimensions: int) -> None:
        self.image_rows = 0
        self.text_rows = 0
        self._dimensions = dimensions
        self._rng = np.random.default_rng(0)
        self._images: dict[str, NDArray[np.float32]] = {}

    def images(self, data: EvaluationSet) -> NDArray[np.float32]:
        """Count the images of a set, once as :class:`ClipEncoder` embeds them once."""
        if data.id not in self._images:
            self._images[data.id] = self._directions(data.rows)
            self.image_rows += data.rows
        return self._images[data.id]

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Count texts."""
        self.text_rows += len(texts)
        return self._directions(len(texts))

    def _directions(self, rows: int) -> NDArray[np.float32]:
        points = self._rng.standard_normal((rows, self._dimensions)).astype(np.float32)
        unit: NDArray[np.float32] = points / np.linalg.norm(points, axis=1, keepdims=True)
        return unit


def _on_meta(arch: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return a model, and a batch of images and of tokens for it."""
    torch = require("torch", "clip")
    side, context = image_size(arch), int(arch["text_cfg"].get("context_length", 77))
    with torch.device("meta"):
        images = torch.empty(_BATCH, 3, side, side)
        tokens = torch.zeros(_BATCH, context, dtype=torch.int64)
        return build_model(arch, seed=0), images, tokens


def _count(work: Callable[[], Any]) -> float:
    counter = require("torch.utils.flop_counter", "clip").FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops()) / _BATCH
