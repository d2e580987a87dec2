"""Floating-point operations of a training step, counted by torch on a model without storage."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.errors import require
from djsandbox_ray.trials.clip.arch import build_model, image_size

_BATCH = 8


def training_flops(arch: dict[str, Any]) -> float:
    """Return the operations of one forward and backward pass, per sample.

    Counted on the meta device: on a CPU the counter misses fused attention.
    """
    torch = require("torch", "clip")
    counter = require("torch.utils.flop_counter", "clip").FlopCounterMode(display=False)
    side = image_size(arch)
    with torch.device("meta"):
        model = build_model(arch, seed=0)
        images = torch.empty(_BATCH, 3, side, side)
        tokens = torch.zeros(
            _BATCH, int(arch["text_cfg"].get("context_length", 77)), dtype=torch.int64
        )
    with counter:
        image_features, text_features, scale = model(images, tokens)
        (scale * image_features @ text_features.T).sum().backward()
    return float(counter.get_total_flops()) / _BATCH
