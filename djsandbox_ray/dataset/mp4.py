"""Frames as MP4 files with H.264: the same frames are the same bytes, made by the same encoder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import require

_PLAIN = {"threads": "1", "tune": "zerolatency"}
"""One thread, and none that looks ahead: with either, one clip in a hundred becomes another file
when it is made again."""
_FINEST = 1001
"""The greatest divisor of a rate of frames: that of NTSC."""


def encoded(
    frames: NDArray[np.uint8], *, rate: float, pixels: str, options: Mapping[str, str]
) -> bytes:
    """Return frames as an MP4 file, without any time or version of who wrote it.

    Args:
        frames: (frames, height, width, 3), RGB; of an even height and width, where the pixels share
            colours by twos (``yuv420p``).
        rate: frames a second.
        pixels: how they are stored, as FFmpeg calls it: ``yuv420p``, ``yuv444p``.
        options: of x264, such as ``crf``.

    Raises:
        MissingExtra: PyAV is not installed.
    """
    av = require("av", "video")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        exact = Fraction(rate).limit_denominator(_FINEST)
        stream = container.add_stream("libx264", rate=exact, options={**options, **_PLAIN})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.thread_count = 1
        stream.codec_context.gop_size = len(frames)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
