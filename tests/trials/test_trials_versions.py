"""What the version of CLIP stands for: golden numbers of a tiny training.

A change of the numbers means that trials known already must not be compared with new ones.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from djsandbox_ray.trials.clip import training
from djsandbox_ray.trials.clip.arch import Tokenizer, build_model, load_arch
from djsandbox_ray.trials.clip.family import ClipEncoder
from djsandbox_ray.trials.clip.samples import preprocess
from djsandbox_ray.trials.clip.training import DeviceArrays, Training, TrainingConfig

# Of other processors and other builds of torch; what it must tell apart moves them by more.
TOLERANCE = 2e-3
CLIP: dict[int, dict[str, Any]] = {
    1: {
        "losses": [2.88553, 2.74283, 2.59506],
        "text": [-0.0165, -0.1276, -0.0081, -0.0354],
        "weight": 7.8335,
        "pixels": [117.0, 107.5, 46.4],
        "tokens": [4512, 320, 1125, 539, 278, 736, 639, 590],
    }
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
        "losses": [round(loss, 5) for loss in losses],
        "text": [round(float(value), 4) for value in texts[0, :4]],
        "weight": round(float(run.whole().visual.proj.detach().norm()), 4),  # type: ignore[union-attr]
        "pixels": preprocess(buffer.getvalue(), 32).mean(axis=(0, 1)).round(1).tolist(),
        "tokens": tokens[7][:8].tolist(),
    }


def test_the_version_of_clip_stands_for_its_numbers(one_thread: None) -> None:
    found = _trained()
    known = CLIP.get(training.VERSION, {})
    advice = f"raise VERSION in trials/clip/training.py and record here, under it: {found}"
    assert known, advice
    for key in ("losses", "text", "weight"):
        assert found[key] == pytest.approx(known[key], rel=TOLERANCE, abs=TOLERANCE), advice
    assert found["pixels"] == pytest.approx(known["pixels"], abs=1), advice
    assert found["tokens"] == known["tokens"], advice
