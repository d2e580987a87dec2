"""Small real files in every layout, and sources over them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from djsandbox_ray.dataset.source import SOURCES, Source

Pair = tuple[bytes | None, str | None]


def _jpeg(seed: int, side: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    return _jpeg


@cache
def _video(seed: int, form: str = "mp4", frames: int = 8, faststart: bool = False) -> bytes:
    """Make a small video that moves, with a frame of its own to begin at every 12 frames."""
    rng = np.random.default_rng(seed)
    options = {"movflags": "+faststart"} if faststart else {}
    codec = {"gif": "gif", "webm": "libvpx", "avi": "mpeg4"}.get(form, "libx264")
    with (
        NamedTemporaryFile() as file,  # what comes first is moved there in a second pass
        av.open(file.name, "w", format=form, options=options) as container,
    ):
        stream = container.add_stream(codec, rate=12)
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "rgb8" if form == "gif" else "yuv420p"
        stream.codec_context.gop_size = 12
        for _ in range(frames):
            pixels = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        container.close()
        return Path(file.name).read_bytes()


@pytest.fixture(scope="session")
def video() -> Callable[..., bytes]:
    return _video


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """Ten good samples."""
    return [(_jpeg(number), f"caption number {number}") for number in range(10)]


@pytest.fixture(scope="session")
def open_source() -> Callable[..., Source]:
    def build(type: str, **options: Any) -> Source:
        cls = SOURCES.get(type)
        return cls(cls.Config.model_validate({"type": type, **options}))

    return build


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., str]:
    def write(pairs: list[Pair], name: str = "data/a.parquet", **options: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "image": pa.array([image for image, _ in pairs], pa.binary()),
                "text": pa.array([text for _, text in pairs], pa.string()),
                "label": np.arange(len(pairs)),
            }
        )
        pq.write_table(table, path, **options)
        return str(path)

    return write


@pytest.fixture
def write_tar(tmp_path: Path) -> Callable[..., str]:
    def write(members: list[tuple[str, bytes]], name: str = "data/a.tar", mode: str = "w") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return str(path)

    return write


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., str]:
    """Write lines (objects, or text as it is) and image files beside them."""

    def write(lines: list[Any], images: dict[str, bytes], name: str = "data/a.jsonl") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for image, data in images.items():
            (path.parent / image).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / image).write_bytes(data)
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("".join(f"{line}\n" for line in text))
        return str(path)

    return write
