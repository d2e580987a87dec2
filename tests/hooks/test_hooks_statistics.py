"""Statistics of data sets that are no pairs, through the jobs of a run, on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pytest
from planted_world import context_of

from djsandbox_ray.hooks.ingest import Ingest
from djsandbox_ray.hooks.statistics import ComputeStatistics
from djsandbox_ray.stats.parts import load_column
from djsandbox_ray.storage.store import Storage

pytestmark = pytest.mark.usefixtures("ray_cluster")


def write(folder: Path, rows: list[Any]) -> str:
    path = folder / "samples.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines))
    return str(path)


def computed(
    storage: Storage, path: str, content: str, operators: list[Any]
) -> tuple[dict[str, list[float]], str]:
    """Read a file and compute its statistics; return the columns, and what was said."""
    context, said = context_of(
        storage,
        dataset={"type": "jsonl", "path": path, "content": content},
        ingest={"max_rejected": 0.5},
        operators=operators,
        statistics={"actors": 1},
    )
    dataset = Ingest(context).run()
    found = ComputeStatistics(context).run(dataset, None)
    columns = {
        statistic.name: load_column(storage, statistic, dataset.rows).tolist()
        for statistic in found.statistics
    }
    return columns, said.getvalue()


def test_texts_alone(storage: Storage, tmp_path: Path) -> None:
    texts = ["one line", "two words and more", "the last of them"]
    rows = [{"text": texts[0]}, "{no JSON", {"text": texts[1]}, {"text": texts[2]}]
    columns, said = computed(
        storage, write(tmp_path, rows), "texts", ["text_length_filter", "words_num_filter"]
    )
    assert columns["text_len"] == [*map(len, texts)]
    assert columns["num_words"] == [len(text.split()) for text in texts]
    assert "1 rejected" in said


def clip(width: int, form: str) -> bytes:
    av = pytest.importorskip("av", reason="the extra 'video' is not installed")
    with NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=form) as container:
            stream = container.add_stream("libvpx" if form == "webm" else "mpeg4", rate=4)
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
            for shade in (0, 80, 160, 240):
                pixels = np.full((32, width, 3), shade, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()


def test_videos_and_what_one_of_them_lacks(storage: Storage, tmp_path: Path) -> None:
    """WebM does not say how long a stream is, so that this sample has no duration."""
    rows = []
    for place, (width, form) in enumerate([(32, "mp4"), (64, "webm"), (96, "mp4")]):
        (tmp_path / f"{place}.{form}").write_bytes(clip(width, form))
        rows.append({"text": "<__dj__video> a clip", "videos": [f"{place}.{form}"]})
    operators = ["video_duration_filter", "video_aspect_ratio_filter", "text_length_filter"]
    columns, said = computed(storage, write(tmp_path, rows), "videos", operators)
    assert columns["video_aspect_ratios"] == [1, 2, 3]
    assert columns["text_len"] == [len("a clip")] * 3
    np.testing.assert_array_equal(columns["video_duration"], [1, np.nan, 1])
    assert "video_duration_filter failed on 1 of 3 samples" in said
