"""A small world of bold shapes on plain grounds, sentences about it, and what can be wrong there.

Eight shapes in eight colours, four textures, two sizes and five places, on six backgrounds. Colours
carry most of the signal, so that a model of a few thousand steps can learn to name them. Defects
are planted in a known share of the samples of every block of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (30, 80, 230),
    "yellow": (245, 220, 30),
    "orange": (245, 135, 20),
    "purple": (135, 40, 170),
    "pink": (250, 130, 190),
    "cyan": (40, 210, 215),
}
BACKGROUNDS = {
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
    "brown": (110, 70, 35),
    "beige": (225, 205, 160),
    "navy": (15, 25, 85),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "hexagon")
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = {"large": 0.42, "small": 0.3}
"""Radius as a fraction of the image."""
POSITIONS = {
    "in the center": (0.5, 0.5),
    "on the left": (0.38, 0.5),
    "on the right": (0.62, 0.5),
    "at the top": (0.5, 0.38),
    "at the bottom": (0.5, 0.62),
}
TEMPLATES = (
    "{look} on a {background} background",
    "a photo of {look} on {background}",
    "{sized} on a {background} background",
    "{look} {position} of a {background} picture",
    "a {background} picture with {look}",
    "a {background} background with {sized}",
    "{look}, {background} behind it",
    "there is {look} {position} on {background}",
)

_CHOICES = tuple(map(len, (SHAPES, COLOURS, BACKGROUNDS, TEXTURES, SIZES, POSITIONS)))
_JITTER = 16
_NOISE = 5.0


@dataclass(frozen=True)
class Scene:
    """What there is to see in an image."""

    shape: str
    colour: str
    background: str
    texture: str
    size: str
    position: str


def random_scene(rng: np.random.Generator) -> Scene:
    """Choose every attribute at random, each value equally likely."""
    names: tuple[Iterable[str], ...] = (
        SHAPES,
        COLOURS,
        BACKGROUNDS,
        TEXTURES,
        SIZES,
        POSITIONS,
    )
    picks = rng.integers(0, _CHOICES).tolist()
    return Scene(*(list(values)[pick] for values, pick in zip(names, picks, strict=True)))


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """Say what is in the image, in at most 12 words; colour, shape and background always."""
    words = [] if scene.texture == "plain" else [scene.texture]
    look = " ".join([*words, scene.colour, scene.shape])
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(
        look=with_article(look),
        sized=with_article(f"{scene.size} {look}"),
        background=scene.background,
        position=scene.position,
    )


def draw_scene(scene: Scene, rng: np.random.Generator, size: int) -> Image.Image:
    """Draw a scene as an RGB image of ``size`` x ``size`` pixels, with slight noise."""
    inside = _mask(scene.shape, scene.size, scene.position, size)
    tones = rng.integers(-_JITTER, _JITTER + 1, (2, 3))
    colour = np.add(COLOURS[scene.colour], tones[0])
    background = np.add(BACKGROUNDS[scene.background], tones[1]).astype(np.float32)
    surface = _shade(scene.texture, size)[..., None] * colour.astype(np.float32)
    pixels = np.where(inside[..., None], surface, background)
    pixels += _NOISE * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def with_article(words: str) -> str:
    """Put the article before some words that fits their first letter."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@lru_cache(maxsize=1024)
def _mask(shape: str, size: str, position: str, pixels: int) -> NDArray[np.bool_]:
    image = Image.new("1", (pixels, pixels))
    pen = ImageDraw.Draw(image)
    x, y = (pixels * share for share in POSITIONS[position])
    radius = pixels * SIZES[size]
    if shape in ("circle", "ring"):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
        if shape == "ring":
            hole = radius * 0.5
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    elif shape == "cross":
        arm = radius * 0.4
        pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=1)
        pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=1)
    else:
        pen.polygon([(x + radius * dx, y + radius * dy) for dx, dy in _corners(shape)], fill=1)
    return np.asarray(image)


def _corners(shape: str) -> list[tuple[float, float]]:
    """Return the corners of a polygon on (and, for the star, inside) the unit circle."""
    count, turn = {
        "square": (4, math.pi / 4),
        "triangle": (3, -math.pi / 2),
        "diamond": (4, 0.0),
        "star": (10, -math.pi / 2),
        "hexagon": (6, 0.0),
    }[shape]
    radii = [0.45 if shape == "star" and corner % 2 else 1.0 for corner in range(count)]
    angles = [turn + 2 * math.pi * corner / count for corner in range(count)]
    return [
        (radius * math.cos(angle), radius * math.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]


@lru_cache(maxsize=16)
def _shade(texture: str, pixels: int) -> NDArray[np.float32]:
    """Return the factor by which a texture darkens each pixel."""
    period = max(pixels // 8, 2)
    rows, columns = np.indices((pixels, pixels))
    upper, left = rows % period < period / 2, columns % period < period / 2
    dark = {
        "plain": np.zeros((pixels, pixels), dtype=bool),
        "striped": upper,
        "dotted": upper & left,
        "checked": upper ^ left,
    }[texture]
    return np.where(dark, np.float32(0.65), np.float32(1.0))


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


def plan_defects(
    fractions: dict[str, float],
    seed: int,
    block: int,
    independent: bool = False,
    names: Sequence[str] = DEFECTS,
) -> list[tuple[str, ...]]:
    """Return the defects of each of the 100 samples of a block; none for a clean one.

    Args:
        fractions: share of the samples per name, in whole percent; unless they are independent,
            the sum is at most 1.
        seed: of the world.
        block: number of the block.
        independent: whether each defect is planted without regard to the others, so that a sample
            may have several; else it has at most one.
        names: of all defects of the world; theirs is the order that counts.
    """
    # That of a configuration must not matter.
    counts = {name: round(BLOCK * fractions.get(name, 0.0)) for name in names}
    if not independent:
        planned = [(name,) for name, count in counts.items() for _ in range(count)]
        clean: list[tuple[str, ...]] = [()] * (BLOCK - len(planned))
        order = np.random.default_rng([seed, block, BLOCK]).permutation(BLOCK)
        return [[*planned, *clean][place] for place in order]
    hit = {
        name: set(np.random.default_rng([seed, block, BLOCK, number]).permutation(BLOCK)[:count])
        for number, (name, count) in enumerate(counts.items(), start=1)
    }
    return [tuple(name for name in names if place in hit[name]) for place in range(BLOCK)]
