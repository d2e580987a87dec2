"""Frames of videos as arrays: a window of each, the same wherever and whenever it is read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, SandboxError, require

_DECODED_WHOLE = 600
"""Frames of a video up to which all are decoded to look at some."""
Window = Callable[[int, int], int]
"""Given how many frames there are and how many one window spans, at most as many, returns where
it begins."""


def middle_window(count: int, span: int) -> int:
    """Begin so that as much is left out in front as behind."""
    return (count - span) // 2


@dataclass(frozen=True)
class ClipShape:
    """Which frames are taken of a video, and how large they are made."""

    frames: int
    """How many."""
    size: tuple[int, int]
    """Height and width in pixels."""
    stride: int = 1
    """Every so many frames of the video one is taken."""

    @property
    def span(self) -> int:
        """How many frames of a video are between the first and the last, both included."""
        return (self.frames - 1) * self.stride + 1


def clip_of(data: bytes, shape: ClipShape, window: Window = middle_window) -> NDArray[np.uint8]:
    """Return frames of a video, scaled until they cover the size and cut to it in the middle.

    Args:
        data: the file, as ingest has let it pass.
        shape: of the clip.
        window: where it begins.

    Returns:
        RGB, shape (frames, height, width, 3).

    Raises:
        BadInput: it cannot be decoded, or has fewer frames than the clip spans.
        MissingExtra: PyAV is not installed.
    """
    count = announced(data)
    while True:
        if count < shape.span:
            raise BadInput(
                f"the video has {count} frames, a clip of {shape.frames} with a stride of "
                f"{shape.stride} needs {shape.span}"
            )
        start = window(count, shape.span)
        wanted = range(start, start + shape.span, shape.stride)
        found = []
        reached = 0
        for place, frame in enumerate(_decoded(data)):
            reached = place + 1
            if place in wanted:
                found.append(_fitted(frame, shape.size))
            if place == wanted[-1]:
                return np.stack(found)
        # It has fewer frames than its packets announce: then what it has is the truth.
        count = min(reached, count - 1)


def glimpses(data: bytes, count: int, side: int) -> list[NDArray[np.uint8]]:
    """Return a few frames spread over a video, to look at.

    Of a long one only frames are taken that decode by themselves, which may be fewer.

    Args:
        data: the file.
        count: how many frames at most.
        side: what the longer side of a frame is scaled down to, in pixels; never up.

    Returns:
        RGB, shape (height, width, 3) each, one at least.

    Raises:
        BadInput: it cannot be decoded.
        MissingExtra: PyAV is not installed.
    """
    with _opened(data) as container:
        packets = container.demux(container.streams.video[0])
        is_key = [packet.is_keyframe for packet in packets if packet.size]
    whole = len(is_key) <= _DECODED_WHOLE
    there = len(is_key) if whole else sum(is_key)
    places = np.linspace(0, max(there - 1, 0), min(count, max(there, 1)))
    wanted = set(places.round().astype(int).tolist())
    found = [
        _scaled(frame, side)
        for place, frame in enumerate(islice(_decoded(data, whole), max(wanted) + 1))
        if place in wanted
    ]
    if not found:
        raise BadInput("a video cannot be decoded: it has no frame")
    return found


def announced(data: bytes) -> int:
    """Return how many packets a video has, each of which is a frame as a rule.

    Raises:
        BadInput: it cannot be read.
    """
    with _opened(data) as container:
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


def _decoded(data: bytes, whole: bool = True) -> Iterator[Any]:
    """Yield all frames, or those that decode by themselves."""
    with _opened(data) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        if not whole:
            stream.codec_context.skip_frame = "NONKEY"
        yield from container.decode(stream)


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """Open a video; what a decoder stumbles over is said in a sentence."""
    av = require("av", "video")
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            if not container.streams.video:
                raise BadInput("a video has no video stream")
            yield container
    except (SandboxError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder stumbles over
        raise BadInput(f"a video cannot be decoded: {error or type(error).__name__}") from error


def _fitted(frame: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a frame in RGB that covers a size, cut to it in the middle."""
    height, width = size
    scale = max(height / frame.height, width / frame.width)
    tall, wide = max(height, round(frame.height * scale)), max(width, round(frame.width * scale))
    scaled = frame.reformat(width=wide, height=tall, format="rgb24", interpolation="BICUBIC")
    pixels: NDArray[np.uint8] = scaled.to_ndarray()
    top, left = (tall - height) // 2, (wide - width) // 2
    return pixels[top : top + height, left : left + width]


def _scaled(frame: Any, side: int) -> NDArray[np.uint8]:
    """Return a frame in RGB whose longer side is at most so many pixels."""
    scale = min(1.0, side / max(frame.width, frame.height))
    wide, tall = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    scaled = frame.reformat(width=wide, height=tall, format="rgb24", interpolation="AREA")
    pixels: NDArray[np.uint8] = scaled.to_ndarray()
    return pixels
