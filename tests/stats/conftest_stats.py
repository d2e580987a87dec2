"""Samples for the tests of the statistics, some of them awkward."""

from __future__ import annotations

import io
import random

WORDS = ["a", "photo", "of", "small", "red", "dog", "cat", "tree", "house", "on", "the", "grass"]
SPECIAL = ["", "!!! ??? ### $$$", "dog dog dog dog dog dog dog dog", "Ünïcode — 漢字 text", "   "]


def captions(rows: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    made = [" ".join(rng.choices(WORDS, k=rng.randint(1, 20))) for _ in range(rows)]
    made[3 : 3 + len(SPECIAL)] = SPECIAL
    return made


def picture(width: int, height: int, seed: int, kind: str = "PNG") -> bytes:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pictures(rows: int) -> list[bytes]:
    shapes = [(32, 32), (48, 32), (20, 60), (33, 31)]
    return [
        picture(*shapes[i % len(shapes)], seed=i, kind="JPEG" if i % 2 else "PNG")
        for i in range(rows)
    ]
