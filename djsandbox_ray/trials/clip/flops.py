"""Floating-point operations, counted by torch on a model without storage.

Counted on the meta device: on a CPU the counter misses fused attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import require
from djsandbox_ray.evaluation.split import Split
from djsandbox_ray.trials.clip.arch import build_model, image_size

_BATCH = 8


def training_flops(arch: dict[str, Any]) -> float:
    """Return the operations of one forward and backward pass, per sample."""
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

    def images(self, split: Split) -> NDArray[np.float32]:
        """Count the images of a split, once as :class:`ClipEncoder` embeds them once."""
        if split.id not in self._images:
            self._images[split.id] = self._directions(len(split.texts))
            self.image_rows += len(split.texts)
        return self._images[split.id]

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
