"""How fast this machine trains a CLIP: a few steps, on samples that mean nothing."""

from __future__ import annotations

import time

import numpy as np

from djsandbox_ray.trials.clip.arch import Tokenizer, build_model, image_size, load_arch
from djsandbox_ray.trials.clip.family import ClipConfig
from djsandbox_ray.trials.clip.training import DeviceArrays, Training
from djsandbox_ray.trials.family import device_for

_WARM = 2
"""Steps that do not count: the first ones make what the others use."""
_STEPS = 50
_SECONDS = 3.0
"""After so long the steps that were made must do."""


def samples_per_second(config: ClipConfig, cpus: float, gpus: float) -> float:
    """Return how many samples one worker trains on in a second.

    Args:
        config: the model, and the size of its batches.
        cpus: of the worker.
        gpus: of the worker.
    """
    arch = load_arch(config.arch)
    device = device_for(cpus, gpus)
    rng, rows, side = np.random.default_rng(0), config.batch_size, image_size(arch)
    images = rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8)
    tokens = Tokenizer(arch)([f"sample {number}" for number in range(rows)])
    draw = DeviceArrays(images, tokens, 0, device)
    training = Training(build_model(arch, 0).to(device), draw, config, device)
    # Whoever is told of a loss has waited for the step: on a GPU, too.
    steps = training.run([rows * (step + 1) for step in range(_WARM + _STEPS)])
    for _ in range(_WARM):
        next(steps)
    start, seen = time.perf_counter(), 0
    for _ in steps:
        seen += rows
        if time.perf_counter() - start > _SECONDS:
            break
    return seen / (time.perf_counter() - start)
