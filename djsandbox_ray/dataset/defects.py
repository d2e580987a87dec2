"""What can be wrong with a sample of the generated world, and which samples it is planted in."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from djsandbox_ray.dataset.world import Scene, describe, random_scene

CLEAN = "clean"
BLOCK = 100
"""Every so many samples, counted from the first, hold the exact number of each defect."""

BOILERPLATE = (
    "click here to see more pictures like this one and subscribe to our newsletter today",
    "all rights reserved, no part of this image may be copied without written permission",
    "buy now with free shipping on all orders, best price guaranteed, limited time offer only",
    "image may be subject to copyright, visit our website for more information and terms of use",
)
_SPECIAL = "#@%&*~^|<>$=+{}"


def _mismatched(scene: Scene, caption: str, rng: np.random.Generator) -> str:
    """Caption another image, whose colour and background both differ."""
    while True:
        other = random_scene(rng)
        if other.colour != scene.colour and other.background != scene.background:
            return describe(other, rng)


def _boilerplate(scene: Scene, caption: str, rng: np.random.Generator) -> str:
    return BOILERPLATE[rng.integers(len(BOILERPLATE))]


def _repeated_words(scene: Scene, caption: str, rng: np.random.Generator) -> str:
    """Repeat one word of the caption 8 to 12 times."""
    words = caption.split()
    word = words[rng.integers(len(words))]
    return " ".join([word] * int(rng.integers(8, 13)))


def _special_characters(scene: Scene, caption: str, rng: np.random.Generator) -> str:
    """Replace six of ten characters."""
    letters = list(caption)
    for place in rng.permutation(len(letters))[: math.ceil(0.6 * len(letters))]:
        letters[place] = _SPECIAL[rng.integers(len(_SPECIAL))]
    return "".join(letters)


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(image.width / 7))


def _low_contrast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Fade to a twelfth of the contrast around some grey."""
    grey = Image.new("RGB", image.size, (int(rng.integers(80, 176)),) * 3)
    return Image.blend(grey, image, 1 / 12)


def _odd_size(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Stretch four times, in one direction or the other."""
    width, height = image.size
    odd = (4 * width, height) if rng.integers(2) else (width, 4 * height)
    return image.resize(odd, Image.Resampling.BILINEAR)


TEXT_DEFECTS: dict[str, Callable[[Scene, str, np.random.Generator], str]] = {
    "mismatched": _mismatched,
    "boilerplate": _boilerplate,
    "repeated_words": _repeated_words,
    "special_characters": _special_characters,
}
IMAGE_DEFECTS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "blur": _blur,
    "low_contrast": _low_contrast,
    "odd_size": _odd_size,
}
DEFECTS = (*TEXT_DEFECTS, *IMAGE_DEFECTS)


def plan(
    fractions: dict[str, float], seed: int, block: int, independent: bool = False
) -> list[tuple[str, ...]]:
    """Return the defects of each of the 100 samples of a block; none for a clean one.

    Args:
        fractions: share of the samples per name of :data:`DEFECTS`, in whole percent; unless
            they are independent, the sum is at most 1.
        seed: of the world.
        block: number of the block.
        independent: whether each defect is planted without regard to the others, so that a sample
            may have several; else it has at most one.
    """
    # In the order of DEFECTS: that of a configuration must not matter.
    counts = {name: round(BLOCK * fractions.get(name, 0.0)) for name in DEFECTS}
    if not independent:
        planned = [(name,) for name, count in counts.items() for _ in range(count)]
        clean: list[tuple[str, ...]] = [()] * (BLOCK - len(planned))
        order = np.random.default_rng([seed, block, BLOCK]).permutation(BLOCK)
        return [[*planned, *clean][place] for place in order]
    hit = {
        name: set(np.random.default_rng([seed, block, BLOCK, number]).permutation(BLOCK)[:count])
        for number, (name, count) in enumerate(counts.items(), start=1)
    }
    return [tuple(name for name in DEFECTS if place in hit[name]) for place in range(BLOCK)]
