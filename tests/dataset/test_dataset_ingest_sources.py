"""Sources of conversations, documents and clips, each ingested on Ray as it reads without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.identity import document_digest, sample_digest
from djsandbox_ray.storage.store import Storage

Jpeg = Callable[..., bytes]


def _talks(folder: Path, jpeg: Jpeg) -> dict[str, Any]:
    """One list of talks: about an image, about none, and about one that is not there."""
    (folder / "photos").mkdir()
    (folder / "photos" / "0.jpg").write_bytes(jpeg(0))

    def talk(asked: str, **more: str) -> dict[str, Any]:
        said = [{"from": "human", "value": asked}, {"from": "gpt", "value": "A star."}]
        return {"conversations": said, **more}

    talks = [
        talk("<image> What?", image="0.jpg"),
        talk("Who?"),
        talk("<image> What?", image="9.jpg"),
    ]
    (folder / "talks.json").write_text(json.dumps(talks * 3))
    return {"type": "llava", "path": str(folder / "talks.json"), "images": str(folder / "photos")}


def _documents(folder: Path, jpeg: Jpeg) -> dict[str, Any]:
    """Two files of documents, with one image, with the same one twice, and with none."""
    (folder / "0.jpg").write_bytes(jpeg(0))
    for name in ("a", "b"):
        lines = [
            {"texts": [f"{name} before", None, "after"], "images": [None, "0.jpg", None]},
            {"texts": [None, f"{name} between", None], "images": ["0.jpg", None, "0.jpg"]},
            {"texts": [f"{name} alone", None], "images": [None, "9.jpg"]},
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return {"type": "interleaved", "path": str(folder)}


def _clips(folder: Path, jpeg: Jpeg) -> dict[str, Any]:
    return {"type": "clips", "samples": 12, "defects": {"static": 0.5}}


def _questions(folder: Path, jpeg: Jpeg) -> dict[str, Any]:
    return {"type": "shapes_questions", "samples": 20, "defects": {"mismatched": 0.5}}


def _digest(sample: Sample) -> bytes:
    if sample.is_pair:
        return sample_digest(sample.all_media[0].data, sample.text)
    media = [one.digest for one in sample.all_media]
    return document_digest(sample.text, media, [turn.plain() for turn in sample.turns])


@pytest.mark.parametrize(
    ("write", "rows", "rejected"),
    [(_talks, 6, 3), (_documents, 4, 2), (_clips, 12, 0), (_questions, 20, 0)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_it_is_ingested_as_it_is_read(
    ray_cluster: None, open_source, storage: Storage, jpeg: Jpeg, tmp_path, write, rows, rejected
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    source = open_source(**write(folder, jpeg))
    items = [item for shard in prepared(source) for item in shard.read()]
    samples = [item for item in items if isinstance(item, Sample)]
    bad = [(item.source, item.reason) for item in items if isinstance(item, Rejection)]
    assert (len(samples), len(bad)) == (rows, rejected)

    dataset = ingest(source, storage, max_rejected=0.5)
    assert (dataset.rows, dataset.rejected) == (rows, rejected)
    table = SampleTable(storage.uri(dataset.table))
    read = table.scan(0, rows, ["text", "source", "digest", "meta"]).to_pydict()
    assert read["text"] == [sample.text for sample in samples]
    assert read["source"] == [sample.source for sample in samples]
    assert read["digest"] == [_digest(sample) for sample in samples]
    assert [json.loads(meta) for meta in read["meta"]] == [sample.meta for sample in samples]
    assert table.turns(list(range(rows))) == [sample.turns for sample in samples]
    kept = [[one.data for one in media] for media in table.media(list(range(rows)))]
    assert kept == [[one.data for one in sample.all_media] for sample in samples]
    path = f"datasets/{dataset.id}/rejected.parquet"
    listed = storage.read_table(path).to_pylist() if rejected else []
    assert [(row["source"], row["reason"]) for row in listed] == bad
