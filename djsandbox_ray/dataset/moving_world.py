"""A small world of shapes that move over plain grounds, and what can be wrong with videos of it.

Two shapes in six colours on three grounds move in four directions, a twentieth of the picture per
frame. A picture has no edges: what leaves it on one side comes back on the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.world import BACKGROUNDS, COLOURS

Frames = NDArray[np.uint8]
"""(frames, size, size, 3), RGB."""

SHAPES = ("circle", "square")
SHADES = ("red", "green", "blue", "yellow", "purple", "cyan")
GROUNDS = ("white", "black", "gray")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
"""Of x and y."""

_CHOICES = tuple(map(len, (SHAPES, SHADES, GROUNDS, DIRECTIONS)))
_RADIUS = 0.16
_STEP = 0.05
"""Both as a fraction of the picture; 1.6 of 32 pixels per frame."""
_FAST = 4
"""Times the usual step."""
_JITTER = 12
_NOISE = 60.0
"""Standard deviation of the noise, of 255."""


@dataclass(frozen=True)
class MovingScene:
    """What there is to see in a video."""

    shape: str
    colour: str
    background: str
    direction: str


def random_scene(rng: np.random.Generator) -> MovingScene:
    """Choose every attribute at random, each value equally likely."""
    shape, colour, ground, direction = rng.integers(0, _CHOICES).tolist()
    return MovingScene(SHAPES[shape], SHADES[colour], GROUNDS[ground], list(DIRECTIONS)[direction])


def describe(scene: MovingScene) -> str:
    """Say what is in the video: ``a red circle moves left on white``."""
    return f"a {scene.colour} {scene.shape} moves {scene.direction} on {scene.background}"


def mismatched(scene: MovingScene, rng: np.random.Generator) -> MovingScene:
    """Return another scene, whose colour, ground and direction all differ."""
    while True:
        other = random_scene(rng)
        if (
            other.colour != scene.colour
            and other.background != scene.background
            and other.direction != scene.direction
        ):
            return other


def draw_frames(
    scene: MovingScene, rng: np.random.Generator, size: int, count: int, *, fast: bool = False
) -> Frames:
    """Draw a scene.

    Args:
        scene: to draw.
        rng: chooses where the shape begins, and shades a little off.
        size: pixels of each side.
        count: of the frames.
        fast: whether it moves four times as fast.
    """
    start = rng.random(2)
    tones = rng.integers(-_JITTER, _JITTER + 1, (2, 3))
    colour = np.add(COLOURS[scene.colour], tones[0]).astype(np.float32)
    ground = np.add(BACKGROUNDS[scene.background], tones[1]).astype(np.float32)
    step = _STEP * (_FAST if fast else 1)
    centres = start + step * np.arange(count)[:, None] * DIRECTIONS[scene.direction]
    places = (np.arange(size) + 0.5) / size
    away = np.abs((places[None, None] - centres[..., None] + 0.5) % 1 - 0.5)
    x, y = away[:, 0, None, :], away[:, 1, :, None]
    distance = np.hypot(x, y) if scene.shape == "circle" else np.maximum(x, y)
    inside = np.clip((_RADIUS - distance) * size + 0.5, 0, 1)[..., None]  # edges are soft
    pixels = inside * colour + (1 - inside) * ground
    drawn: Frames = pixels.clip(0, 255).round().astype(np.uint8)
    return drawn


def _static(frames: Frames, scene: MovingScene, rng: np.random.Generator) -> Frames:
    """Show the first frame all the time."""
    return np.repeat(frames[:1], len(frames), axis=0)


def _noise(frames: Frames, scene: MovingScene, rng: np.random.Generator) -> Frames:
    """Add noise to every pixel, another in each frame."""
    noise = _NOISE * rng.standard_normal(frames.shape, dtype=np.float32)
    return (frames + noise).clip(0, 255).astype(np.uint8)


def _cut(frames: Frames, scene: MovingScene, rng: np.random.Generator) -> Frames:
    """Go over to another scene in the middle."""
    count, size = frames.shape[:2]
    other = draw_frames(mismatched(scene, rng), rng, size, count)
    return np.concatenate([frames[: count // 2], other[count // 2 :]])


VIDEO_DEFECTS: dict[str, Callable[[Frames, MovingScene, np.random.Generator], Frames]] = {
    "cut": _cut,
    "static": _static,
    "noise": _noise,
}
DEFECTS = ("mismatched", "fast", *VIDEO_DEFECTS)
"""Beside those of the finished frames, two of how the video is made: its caption, and its speed."""
