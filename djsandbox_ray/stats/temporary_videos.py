"""Videos as Data-Juicer reads them: from files, which are there while one sample is computed.

The operators open a video in three ways: most through PyAV, some through a reader of Data-Juicer's
own, and those of motion through OpenCV. What is open is shared among the operators of a sample that
open it in the same way; under one key, one would find what another cannot use.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from djsandbox_ray.errors import StorageFailed, require
from djsandbox_ray.stats import inspection
from djsandbox_ray.storage.own import own_folder, scratch

SHARED_MEMORY = Path("/dev/shm")
"""Where videos lie where there is room: they need not go to a disk."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_KEPT_FREE = 16 << 20
"""Bytes of shared memory that are left to others."""

Opened = dict[Any, dict[str, Any]]
"""What operators keep of a sample, by the way they open videos: Data-Juicer's contexts."""


class TemporaryVideos:
    """A folder for the videos of one sample at a time; it is gone afterwards.

    What a killed process left of its own is removed by the next one on the node.

    Args:
        places: where the folder may be made, the best first.
    """

    def __init__(self, places: Sequence[Path] | None = None) -> None:
        self._places = [SHARED_MEMORY, Path(tempfile.gettempdir())] if places is None else places
        self._folders: dict[Path, Path] = {}
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @contextmanager
    def written(self, videos: Sequence[bytes]) -> Iterator[list[str]]:
        """Write the videos of a sample into files, which are removed at the end.

        Args:
            videos: encoded; they need as many bytes of room as they have.

        Returns:
            Their paths, in order; two that are alike have two.

        Raises:
            StorageFailed: there is no room for them anywhere.
        """
        size = sum(map(len, videos))
        for place in self._places:
            if not _has_room(place, size):
                continue
            folder = self._folder(place)
            paths = [folder / f"{index}.video" for index in range(len(videos))]
            try:
                if _are_written(paths, videos):
                    yield [str(path) for path in paths]
                    return
            finally:
                for path in paths:
                    path.unlink(missing_ok=True)
        listed = " nor in ".join(map(str, self._places))
        raise StorageFailed(
            f"{size} bytes of videos have no room in {listed}; set TMPDIR to a folder with room"
        )

    def _folder(self, place: Path) -> Path:
        if place not in self._folders:
            root = own_folder("videos", within=place)
            self._folders[place] = self._held.enter_context(scratch(root))
        return self._folders[place]


def _has_room(place: Path, size: int) -> bool:
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    return os.access(place, os.W_OK) and found.f_bavail * found.f_frsize >= size + _KEPT_FREE


def _are_written(paths: Sequence[Path], videos: Sequence[bytes]) -> bool:
    """Write files; False where others have taken the room meanwhile."""
    try:
        for path, video in zip(paths, videos, strict=True):
            path.write_bytes(video)
    except OSError as error:
        if error.errno not in _FULL:
            raise StorageFailed(f"{paths[0].parent} cannot be written: {error}") from error
        return False
    return True


@contextmanager
def opened() -> Iterator[Opened]:
    """Give what operators keep of a sample, and close it at the end."""
    contexts: Opened = defaultdict(dict)
    try:
        yield contexts
    finally:
        for context in contexts.values():
            forget(context)


def forget(context: dict[str, Any]) -> None:
    """Close what operators keep in a context: an operator that failed leaves it half read.

    Data-Juicer's reader closes the decoder of every stream first and fails where one has none, as
    in a broken file; what it reads from is closed all the same.
    """
    kept = [*context.values()]
    context.clear()
    for value in kept:
        for held in (value, getattr(value, "container", None)):
            if callable(close := getattr(held, "close", None)):
                with suppress(AttributeError):
                    close()


def named(reason: str, paths: Sequence[str]) -> str:
    """Return what an error says with the places of videos in their sample for temporary paths."""
    for place, path in enumerate(paths):
        reason = reason.replace(path, f"video {place}")
    return reason


def way_of_opening(cls: type, values: dict[str, Any]) -> tuple[Any, ...]:
    """Return what operators have in common that can share an open video.

    Args:
        cls: the filter.
        values: all its parameters.
    """
    readers = {"load_video", "create_video_reader"}
    named = {name for module in inspection.modules(cls) for name in readers & {*vars(module)}}
    return *sorted(named), values.get("video_backend")


class _Flow:
    """An optical flow that is gone once it is read.

    Data-Juicer keeps those of a whole video and turns them into lists of numbers, whether anybody
    wants them or not: 1.5 GB for 22 seconds.
    """

    def __init__(self, flow: Any) -> None:
        self._parts = {axis: flow[..., axis] for axis in range(2)}

    def __getitem__(self, place: Any) -> Any:
        return self._parts.pop(place[-1])


def bound_motion(operator: Any) -> None:
    """Have an operator of motion keep one flow at a time, and fail on a video without any.

    Of a video that cannot be read it would say -1, as if that were less motion than none. It jumps
    from frame to frame, which in a damaged file may lead back for ever.
    """
    left = 0
    flow_of, score_of = operator.compute_flow, operator._compute_motion_scores_from_video

    def compute_flow(before: Any, frame: Any) -> tuple[Any, Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("the frames of the video do not come to an end")
        flow, frame = flow_of(before, frame)
        return (None if flow is None else _Flow(flow)), frame

    def score(path: str) -> tuple[Any, Any]:
        nonlocal left
        left = _most_frames(path)
        found, flows = score_of(path)
        if found < 0:
            raise ValueError("no two frames of the video can be read")
        return found, flows

    if not operator.if_output_optical_flow:
        operator.compute_flow = compute_flow
    operator._compute_motion_scores_from_video = score


def _most_frames(path: str) -> int:
    """Return more frames than a video has, by what its header says, or else by its size."""
    cv2 = require("cv2", "video")
    capture = cv2.VideoCapture(path)
    try:
        told = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    size = Path(path).stat().st_size  # a frame has a byte at least, whatever is told
    return min(2 * told + 16, size) if told > 1 else size


def plain_video() -> bytes:
    """Return a video of four frames of 32 x 32 pixels, in which a bright square moves."""
    import numpy as np

    av = require("av", "video")
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for place in range(4, 20, 4):
            pixels = np.full((32, 32, 3), 60, dtype=np.uint8)
            pixels[8:24, place : place + 12] = 220
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
