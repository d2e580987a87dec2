"""How generated videos are named, written and read: as VBench has them, without loss of frames.

What encoding does to pixels it does to scores: flickering of .9702 becomes .9721 with colours
shared by twos, and .9779 at the usual quality. So a video is stored with all of its pixels, and
every evaluator reads the file, never the frames that it was made from.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset import mp4
from djsandbox_ray.dataset.media import CONTAINERS
from djsandbox_ray.errors import BadInput, SandboxError, require

Frames = NDArray[np.uint8]
"""(frames, height, width, 3), RGB."""

SUFFIX = ".mp4"
LONGEST = 240
"""Bytes of a prompt: a name of a file has 255, and ``-4.mp4`` follows."""
_LOSSLESS = {"crf": "0", "preset": "veryfast"}
_PIXELS = "yuv444p"


def file_name(prompt: str, number: int) -> str:
    """Return what VBench calls a video: ``<prompt>-<number>.mp4``.

    Args:
        prompt: that it was made from.
        number: of the video among those of this prompt, from 0 on.

    Raises:
        BadInput: no file can have that name.
    """
    size = len(prompt.encode())
    if not prompt.strip() or size > LONGEST:
        raise BadInput(
            f"the prompt {prompt!r:.60} has {size} bytes: videos are named after their prompts, "
            f"which have 1 to {LONGEST}"
        )
    if wrong := next((sign for sign in "/\0\n\r" if sign in prompt), None):
        raise BadInput(
            f"the prompt {prompt!r:.60} holds {wrong!r}: videos are named after their prompts, and "
            "no name of a file holds that"
        )
    return f"{prompt}-{number}{SUFFIX}"


def video_bytes(frames: Frames, fps: float) -> bytes:
    """Return frames as an MP4 file, the same bytes every time.

    Colours keep all pixels, at H.264's lossless quality: what is lost is rounding between RGB and
    YUV alone.

    Args:
        frames: two or more.
        fps: frames a second.

    Raises:
        BadInput: they are no frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) < 2:
        raise BadInput(
            f"a video is two or more frames of bytes, (frames, height, width, 3), not "
            f"{frames.dtype} {frames.shape}"
        )
    return mp4.encoded(frames, rate=fps, pixels=_PIXELS, options=_LOSSLESS)


def video_frames(data: bytes, name: str) -> Frames:
    """Return all frames of a video.

    Args:
        data: the file, of one of the containers that datasets may have.
        name: what it is called in messages.

    Raises:
        SandboxError: it is none, or damaged, or has fewer than two frames.
        MissingExtra: PyAV is not installed.
    """
    av = require("av", "video")
    found = []
    try:
        # Of the container alone, as in ``video_fault``.
        allowed = {"format_whitelist": ",".join(CONTAINERS)}
        with av.open(io.BytesIO(data), mode="r", container_options=allowed) as container:
            if not container.streams.video:
                raise SandboxError(f"{name}: it has no video stream")
            container.streams.video[0].codec_context.options = {"err_detect": "explode"}
            found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (MemoryError, SandboxError):
        raise
    except Exception as error:  # whatever a decoder stumbles over
        raise SandboxError(f"{name}: it cannot be decoded: {error or type(error).__name__}") from (
            error
        )
    if len(found) < 2:
        raise SandboxError(f"{name}: it has {len(found)} frames; at least 2 are needed")
    if len({frame.shape for frame in found}) > 1:
        raise SandboxError(f"{name}: its frames are of several sizes")
    return np.stack(found)
