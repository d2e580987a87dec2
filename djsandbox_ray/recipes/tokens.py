"""Data-Juicer's special tokens: how a text says where its image belongs."""

from __future__ import annotations

from djsandbox_ray.dataset.jsonl import SPECIAL_TOKENS


def tagged(text: str) -> str:
    """Return a caption as an operator that looks for images needs it: one image, then the text.

    The statistics are computed of the same (:mod:`djsandbox_ray.stats.fused`).
    """
    image, end = SPECIAL_TOKENS
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "").strip()
    return f"{image} {text} {end}"
