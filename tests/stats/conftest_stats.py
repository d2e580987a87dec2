"""Samples for the tests of the statistics, some of them awkward."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from djsandbox_ray.records import Dataset
    from djsandbox_ray.storage.store import Storage

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


def wide_table(storage: Storage, texts: list[str], images: list[list[bytes]]) -> Dataset:
    """Write a table as an ingest does, without its digests, which nothing here reads."""
    import lance
    import numpy as np
    import pyarrow as pa

    from djsandbox_ray.dataset.media import Media
    from djsandbox_ray.dataset.sample_table import MEDIA_DATA
    from djsandbox_ray.records import Dataset

    media = [[Media("image", data) for data in files] for files in images]
    columns: dict[str, Any] = {
        "row_id": np.arange(len(texts)),
        "text": texts,
        "image": [b""] * len(texts),
        "media": [
            json.dumps(
                [
                    {"kind": one.kind, "size": len(one.data), "digest": one.digest.hex()}
                    for one in some
                ]
            )
            for some in media
        ],
        MEDIA_DATA: pa.array(
            [b"".join(one.data for one in some) for some in media], pa.large_binary()
        ),
    }
    blob = pa.field(MEDIA_DATA, pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    table = pa.table(columns)
    table = table.set_column(4, blob, table[MEDIA_DATA])
    dataset = Dataset("data-wide", "samples.lance", len(texts), 0, pairs=False)
    lance.write_dataset(table, storage.uri(dataset.table), data_storage_version="2.2")
    return dataset


def data_juicer_alone(
    folder: Path,
    operators: Sequence[tuple[str, Mapping[str, Any], bool]],
    rows: list[dict[str, Any]],
    videos: Sequence[dict[str, Any]] = (),
    nltk_data: str | None = None,
    **environment: str,
) -> list[Any]:
    """Return what ``op.run`` gives of each operator in a process without this project.

    Args:
        folder: what is written there is nobody's.
        operators: names, parameters, and whether texts have Data-Juicer's tokens.
        rows: the samples.
        videos: those of operators on videos.
        nltk_data: the folder that NLTK reads.
        environment: variables of the process.

    Returns:
        The statistics of every row, or, of an operator that failed, how.
    """
    request = {"nltk_data": nltk_data, "operators": [*operators], "rows": rows, "videos": [*videos]}
    (folder / "request.json").write_text(json.dumps(request))
    script = Path(__file__).with_name("data_juicer_alone.py")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "request.json"), str(folder / "answer.json")],
        cwd=folder,
        env={**os.environ, **offline, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [*json.loads((folder / "answer.json").read_text()).values()]
