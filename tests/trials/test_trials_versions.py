"""What the version of CLIP stands for: golden numbers of a tiny training."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from recorded import check

from djsandbox_ray.trials.clip import training
from djsandbox_ray.trials.clip.arch import Tokenizer, build_model, load_arch
from djsandbox_ray.trials.clip.family import ClipEncoder
from djsandbox_ray.trials.clip.samples import preprocess
from djsandbox_ray.trials.clip.training import DeviceArrays, Training, TrainingConfig


def _trained() -> dict[str, Any]:
    """Train the tiny model for some steps; return losses and a few numbers on the way there."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
    arch = load_arch("tiny")
    tokens = Tokenizer(arch)([f"a photo of {number} red dots" for number in range(48)])
    model: Any = build_model(arch, 3, shareable=True)
    config = TrainingConfig(batch_size=16, learning_rate=2e-3, weight_decay=1.0, clip_norm=0.5)
    run = Training(model, DeviceArrays(images, tokens, 3, "cpu"), config, "cpu")
    losses = [state.loss for state in run.run([64, 128, 192])]
    texts = ClipEncoder(run.whole(), arch, {}, "cpu").texts(["a red dot", "two"])
    rows, columns = np.mgrid[0:40, 0:56]
    pixels = np.stack([rows * 6, columns * 4, rows + columns], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return {
        "losses": losses,
        "text": texts[0, :4].tolist(),
        "weight": float(run.whole().visual.proj.detach().norm()),  # type: ignore[union-attr]
        "pixels": (preprocess(buffer.getvalue(), 32).mean(axis=(0, 1)) / 255).tolist(),
        "tokens": tokens[7][:8].tolist(),
    }


def test_the_version_of_clip_stands_for_its_numbers(one_thread: None) -> None:
    check("clip", str(training.VERSION), "trials/clip/training.py", _trained())
