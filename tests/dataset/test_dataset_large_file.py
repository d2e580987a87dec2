"""One file, however large, goes through its task sample by sample."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

PROGRAM = Path(__file__).with_name("large_file.py")
SIDE = 200
ROWS = (200, 2400)  # 23 MiB and 275 MiB


def images(rows: int) -> list[bytes]:
    chance, made = np.random.default_rng(rows), []
    for _ in range(rows):
        pixels = chance.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        made.append(file.getvalue())
    return made


def write_tar(path: Path, some: list[bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for row, image in enumerate(some):
            for extension, data in (("png", image), ("txt", b"caption %d" % row)):
                member = tarfile.TarInfo(f"{row:06d}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_row_group(path: Path, some: list[bytes]) -> None:
    """Write one row group, in pages of about a megabyte."""
    texts = [f"caption {row}" for row in range(len(some))]
    table = pa.table({"image": pa.array(some, pa.binary()), "text": texts})
    pq.write_table(table, path, row_group_size=len(some), use_dictionary=False, write_batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "write"), [("webdataset", write_tar), ("parquet", write_row_group)]
)
def test_memory_does_not_grow_with_the_file(kind: str, write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    paths = [tmp_path / f"{rows}.{'tar' if kind == 'webdataset' else kind}" for rows in ROWS]
    for path, rows in zip(paths, ROWS, strict=True):
        write(path, images(rows))
    command = [sys.executable, PROGRAM, kind, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, large = json.loads(done.stdout)
    more = paths[1].stat().st_size - paths[0].stat().st_size
    assert large < more / 2
