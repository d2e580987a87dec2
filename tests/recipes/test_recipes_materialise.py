"""Rows as files for outside trainers: read back by our own sources, resumed, refused."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from acceptance_world import picture, write_table
from PIL import Image

from djsandbox_ray.dataset.source import SOURCES, Rejection, Sample
from djsandbox_ray.dataset.writers.formats import Row, ShardFormat
from djsandbox_ray.dataset.writers.materialise import MARKER, materialise
from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage.store import Storage

FORMATS = ["jsonl", "parquet", "webdataset"]
ROWS = 700  # more than are read at once
CHOSEN = np.arange(ROWS)[::2]


@pytest.fixture
def dataset(storage: Storage) -> Dataset:
    images = [picture(8 + i % 5, 9, i, ("JPEG", "PNG", "WEBP")[i % 3]) for i in range(ROWS)]
    texts = [f"caption {i}: naïve 漢字\t\"quoted\" 'n' more" for i in range(ROWS)]
    metas = [{"label": i, "tags": ["x", None], "deep": {"a": i / 3}} for i in range(ROWS)]
    return write_table(storage, texts, images, metas)


def source(form: str, path: Path, **options: Any) -> list[Sample]:
    kind = SOURCES.get(form)
    shards = kind(kind.Config.model_validate({"type": form, "path": str(path), **options})).shards()
    items = [item for shard in shards for item in shard.read()]
    assert not [item for item in items if isinstance(item, Rejection)]
    return [item for item in items if isinstance(item, Sample)]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_our_own_source_reads_the_same_samples(
    storage: Storage, dataset: Dataset, tmp_path: Path, form: str
) -> None:
    calls: list[tuple[int, int]] = []
    done = materialise(
        storage,
        dataset,
        CHOSEN[::-1].copy(),
        str(tmp_path / "out"),
        form=form,
        rows_per_shard=150,
        progress=lambda *call: calls.append(call),
    )
    assert (done.rows, done.shards, done.written) == (350, 3, 3)
    assert calls == [(150, 350), (300, 350), (350, 350)]
    options = {"meta_columns": ("meta",)} if form == "parquet" else {}
    found = source(form, tmp_path / "out", **options)
    table = lance.dataset(storage.uri(dataset.table)).take(CHOSEN).to_pylist()
    assert len(found) == len(table)
    for sample, row in zip(found, table, strict=True):
        assert (sample.image, sample.text) == (row["image"], row["text"])
        meta = json.loads(sample.meta["meta"]) if form == "parquet" else sample.meta
        assert meta == json.loads(row["meta"])


@pytest.mark.parametrize("form", FORMATS)
def test_a_killed_call_is_resumed_and_gives_the_same_bytes(
    storage: Storage, dataset: Dataset, tmp_path: Path, form: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first = materialise(storage, dataset, CHOSEN, str(whole), form=form, rows_per_shard=100)

    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done == 200:
            raise Killed

    arguments: dict[str, Any] = {"form": form, "rows_per_shard": 100}
    with pytest.raises(Killed):
        materialise(storage, dataset, CHOSEN, str(killed), progress=kill, **arguments)
    assert json.loads((killed / MARKER).read_text())["complete"] is False
    again = materialise(storage, dataset, CHOSEN, str(killed), **arguments)
    assert (first.written, again.written, again.id) == (4, 2, first.id)
    assert contents(whole) == contents(killed)
    assert json.loads((killed / MARKER).read_text())["complete"] is True
    assert materialise(storage, dataset, CHOSEN, str(killed), **arguments).written == 0


class HalfWay(ShardFormat):
    """Breaks off in the middle of a shard."""

    suffix = "txt"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        with output.open_write(name) as file:
            for row in rows:
                file.write(row.text.encode())
                if row.row_id > 5:
                    raise OSError("the disk is full")


def test_half_a_shard_is_no_shard(storage: Storage, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk is full"):
        materialise(storage, dataset, CHOSEN, str(tmp_path / "out"), form=f"{__name__}:HalfWay")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MARKER]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"form": "parquet"}, "format 'jsonl' instead of 'parquet'"),
        ({"rows_per_shard": 5}, "rows_per_shard 10 instead of 5"),
        ({"rows": np.arange(1, 21)}, "rows_hash"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(
    storage: Storage, dataset: Dataset, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    given: dict[str, Any] = {"form": "jsonl", "rows_per_shard": 10, "rows": np.arange(20)}
    materialise(storage, dataset, output=str(tmp_path / "out"), **given)
    before = contents(tmp_path / "out")
    with pytest.raises(BadInput, match=why):
        materialise(storage, dataset, output=str(tmp_path / "out"), **{**given, **change})
    assert contents(tmp_path / "out") == before


def test_foreign_files_are_never_among_ours(
    storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        materialise(storage, dataset, CHOSEN, str(tmp_path), form="jsonl")
    for damaged in ("[", "[]", '{"id": "a", "checksum": "b"}'):
        (tmp_path / MARKER).write_text(damaged)
        with pytest.raises(BadInput, match=r"is damaged.*cannot be read; choose a new folder"):
            materialise(storage, dataset, CHOSEN, str(tmp_path), form="jsonl")
        assert (tmp_path / MARKER).read_text() == damaged


@pytest.mark.parametrize(
    ("rows", "options", "why"),
    [
        ([], {}, "no rows"),
        ([1, 1], {}, "more than once"),
        ([-1], {}, "row ids from -1"),
        ([ROWS], {}, f"the dataset has 0 to {ROWS - 1}"),
        ([1], {"rows_per_shard": 0}, "at least 1"),
        ([1], {"form": "csv"}, "unknown format 'csv'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    storage: Storage,
    dataset: Dataset,
    tmp_path: Path,
    rows: list[int],
    options: dict[str, Any],
    why: str,
) -> None:
    given = {"form": "jsonl", **options}
    with pytest.raises(BadInput, match=why):
        materialise(storage, dataset, np.array(rows, np.int64), str(tmp_path / "out"), **given)
    assert not (tmp_path / "out").exists()


def test_no_kind_of_image_ends_an_export(
    storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two = io.BytesIO()
    first, second = (Image.open(io.BytesIO(picture(8, 8, n))) for n in (2, 3))
    first.save(two, "MPO", save_all=True, append_images=[second])
    images = [picture(8, 8, 0), picture(8, 8, 1, "BMP"), two.getvalue()]
    dataset = write_table(storage, ["a", "b", "c"], images, [{}, {}, {}])
    rows = np.arange(3)
    for form in FORMATS:
        materialise(storage, dataset, rows, str(tmp_path / form), form=form)
        options = {"image": ("jpg", "bmp")} if form == "webdataset" else {}
        found = source(form, tmp_path / form, **options)
        assert [sample.image for sample in found] == images
    with tarfile.open(tmp_path / "webdataset" / "000000.tar") as archive:
        names = [name for name in archive.getnames() if not name.endswith(("txt", "json"))]
    assert names == ["000000000.jpg", "000000001.bmp", "000000002.jpg"]
    assert "000000.tar holds images of other kinds than jpg, jpeg, png, webp (1 bmp)" in caplog.text


@pytest.mark.parametrize("form", ["jsonl", "webdataset"])
def test_a_row_that_is_damaged_since_it_was_ingested_is_named(
    storage: Storage, tmp_path: Path, form: str
) -> None:
    dataset = write_table(storage, ["a", "b"], [picture(8, 8, 0), b"\xff\xd8\xffjunk"], [{}, {}])
    with pytest.raises(Damaged, match="row 1 of the sample table is damaged: its image cannot"):
        materialise(storage, dataset, np.arange(2), str(tmp_path / "out"), form=form)
    assert not list((tmp_path / "out").glob("000000.*"))


def test_file_names_lead_back_to_the_rows(
    storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    for form in FORMATS:
        materialise(storage, dataset, np.array([7, 12]), str(tmp_path / form), form=form)
    with tarfile.open(tmp_path / "webdataset" / "000000.tar") as archive:
        assert [member.name for member in archive] == [
            *("000000007.png", "000000007.txt", "000000007.json"),
            *("000000012.jpg", "000000012.txt", "000000012.json"),
        ]
    lines = (tmp_path / "jsonl" / "000000.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["images"] == ["images/000000/000000007.png"]
    assert json.loads(lines[0])["text"].startswith("<__dj__image> caption 7")
    read = pq.read_table(tmp_path / "parquet" / "000000.parquet")
    assert read["row_id"].to_pylist() == [7, 12]


def test_rows_are_read_a_few_at_a_time(
    storage: Storage, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from djsandbox_ray.dataset.sample_table import SampleTable

    sizes: list[int] = []
    take = SampleTable.take

    def counted(table: SampleTable, ids: Any, columns: list[str]) -> pa.Table:
        sizes.append(len(ids))
        return take(table, ids, columns)

    monkeypatch.setattr(SampleTable, "take", counted)
    done = materialise(storage, dataset, np.arange(ROWS), str(tmp_path / "out"), form="parquet")
    assert sizes == [256, 256, 188]
    assert astuple(done)[2:] == (ROWS, 1, 1)
