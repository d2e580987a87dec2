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
from acceptance_world import clip, picture, write_documents, write_table
from damages import DAMAGES
from PIL import Image

from djsandbox_ray.dataset.media import Content, Media, Turn, tokens_in
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, Rejection, Sample
from djsandbox_ray.dataset.writers.formats import Row, ShardFormat
from djsandbox_ray.dataset.writers.materialise import MARKER, materialise
from djsandbox_ray.errors import BadInput, Damaged, SandboxError
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
    found = source(form, tmp_path / "out")
    table = lance.dataset(storage.uri(dataset.table)).take(CHOSEN).to_pylist()
    assert len(found) == len(table)
    for sample, row in zip(found, table, strict=True):
        assert (sample.image, sample.text) == (row["image"], row["text"])
        assert sample.meta == json.loads(row["meta"])


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


@pytest.mark.parametrize("form", FORMATS)
def test_a_shard_that_is_not_what_was_written_is_named_and_not_replaced(
    storage: Storage, dataset: Dataset, tmp_path: Path, form: str
) -> None:
    out, arguments = tmp_path / "out", {"form": form, "rows_per_shard": 100}
    materialise(storage, dataset, CHOSEN, str(out), **arguments)
    whole = contents(out)
    (shard,) = out.glob("000001.*")
    data = shard.read_bytes()
    for changed in (data[:-7], data[:50] + b"?" + data[51:]):
        shard.write_bytes(changed)
        with pytest.raises(BadInput, match=r"/000001\.\w+ .*is not replaced; remove it"):
            materialise(storage, dataset, CHOSEN, str(out), **arguments)
        assert shard.read_bytes() == changed
    shard.unlink()
    assert materialise(storage, dataset, CHOSEN, str(out), **arguments).written == 1
    assert contents(out) == whole


def test_a_shard_of_which_the_marker_does_not_know_is_written_again(
    storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    """The call was killed between the two."""
    arguments: dict[str, Any] = {"form": "jsonl", "rows_per_shard": 100}
    materialise(storage, dataset, CHOSEN, str(tmp_path / "out"), **arguments)
    whole, out = contents(tmp_path / "out"), Storage(str(tmp_path / "out"))
    marker = out.read_sealed(MARKER)
    left = {name: seal for name, seal in marker["files"].items() if name != "000003.jsonl"}
    out.write_sealed(MARKER, {**marker, "complete": False, "files": left})
    out.write_bytes("000003.jsonl", b"another")
    assert materialise(storage, dataset, CHOSEN, out.url, **arguments).written == 1
    assert contents(tmp_path / "out") == whole
    # Of an earlier version, a marker names no shards: those that are there count as they are.
    out.write_sealed(MARKER, {key: value for key, value in marker.items() if key != "files"})
    assert materialise(storage, dataset, CHOSEN, out.url, **arguments).written == 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", ["images/000001/*", "videos/000001/*", "materialised/000001*"])
def test_a_file_beside_the_lines_is_sealed_too(
    storage: Storage, tmp_path: Path, place: str, damage: str
) -> None:
    dataset = write_documents(storage, [*DOCUMENTS["any"], *DOCUMENTS["videos"]])
    out, arguments = tmp_path / "out", {"form": "jsonl", "rows_per_shard": 3}
    materialise(storage, dataset, np.arange(7), str(out), **arguments)
    whole = contents(out)
    file = next(out.glob(place))
    DAMAGES[damage](file)
    changed = contents(out)
    if damage != "gone":
        with pytest.raises(BadInput, match=rf"/{file.name} .*is not replaced; remove it, and the"):
            materialise(storage, dataset, np.arange(7), str(out), **arguments)
        assert contents(out) == changed
        file.unlink()
    assert materialise(storage, dataset, np.arange(7), str(out), **arguments).written == 1
    assert contents(out) == whole
    assert materialise(storage, dataset, np.arange(7), str(out), **arguments).written == 0


def test_what_an_earlier_version_has_written_beside_the_lines_counts_as_it_is(
    storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    out, arguments = Storage(str(tmp_path / "out")), {"form": "jsonl", "rows_per_shard": 100}
    materialise(storage, dataset, CHOSEN, out.url, **arguments)
    marker = out.read_sealed(MARKER)
    shards = {name: seal for name, seal in marker["files"].items() if "/" not in name}
    assert len(shards) == 4 < len(marker["files"])
    out.write_sealed(MARKER, {**marker, "files": shards})
    out.remove("materialised")
    next((tmp_path / "out" / "images" / "000001").iterdir()).unlink()
    assert materialise(storage, dataset, CHOSEN, out.url, **arguments).written == 0


class Forgetful(ShardFormat):
    """Writes another file than it was told to."""

    suffix = "txt"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        output.write_bytes(f"my-{name}", b"")


def test_a_format_that_does_not_write_its_shard_is_named(
    storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SandboxError, match=r"/000000\.txt: its format has not written this file"):
        materialise(storage, dataset, CHOSEN, str(tmp_path / "out"), form=f"{__name__}:Forgetful")


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


# What is no pair


def image(seed: int) -> Media:
    return Media("image", picture(8, 9, seed, "PNG"))


def video(seed: int, form: str = "mp4") -> Media:
    return Media("video", clip(seed, form))


ASKED = (
    Turn("user", "<__dj__image> what is <__dj__video> this?"),
    Turn("assistant", "a star"),
    Turn("user", "and <__dj__image>?"),
    Turn("assistant", "a 太陽"),
)
DOCUMENTS: dict[Content, list[Sample]] = {
    "texts": [Sample(b"", text, "", {"label": 1}) for text in ("one", "two 漢字", "three")],
    "videos": [
        Sample(b"", "a clip", "", media=(video(1),)),
        Sample(b"", "another", "", {"fps": 12}, (video(2, "webm"),)),
        Sample(b"", "a third", "", media=(video(3, "avi"),)),
    ],
    "any": [
        Sample(b"", "no media", ""),
        Sample(b"", "one image", "", media=(image(0),)),
        Sample(b"", "several, no tokens", "", media=(image(1), image(2), video(1))),
        Sample(
            b"",
            "<__dj__video> first <|__dj__eoc|> <__dj__image> then <__dj__video>",
            "",
            {"deep": {"a": [1, None]}},
            (video(1), image(3), video(2, "matroska")),
        ),
    ],
    "conversations": [
        Sample(b"", "a star\na 太陽", "", {"id": "x"}, (image(4), video(4), image(5)), ASKED),
        Sample(b"", "yes", "", turns=(Turn("user", "no?"), Turn("assistant", "yes"))),
    ],
}


def digests(storage: Storage, dataset: Dataset) -> list[bytes]:
    found: list[bytes] = SampleTable(storage.uri(dataset.table)).column("digest").to_pylist()
    return found


@pytest.mark.parametrize(
    ("form", "content"),
    [
        *(("jsonl", content) for content in ("texts", "videos", "any", "conversations")),
        *(("parquet", content) for content in ("texts", "videos")),
        *(("webdataset", content) for content in ("texts", "videos")),
    ],
)
def test_what_is_no_pair_is_read_back(
    storage: Storage, tmp_path: Path, form: str, content: Content
) -> None:
    samples = DOCUMENTS[content]
    if content == "any":
        samples = [*samples, *DOCUMENTS["conversations"]]
    dataset = write_documents(storage, samples)
    out = tmp_path / "out"
    done = materialise(
        storage, dataset, np.arange(len(samples)), str(out), form=form, rows_per_shard=2
    )
    assert done.rows == len(samples)
    found = source(form, out, content=content)
    assert digests(storage, write_documents(storage, found)) == digests(storage, dataset)
    for sample, given in zip(found, samples, strict=True):
        assert (sample.text, sample.turns, sample.meta) == (given.text, given.turns, given.meta)
        assert [one.digest for one in sample.media] == [one.digest for one in given.media]


def test_a_text_that_says_something_else_is_kept(tmp_path: Path) -> None:
    """Of a conversation as meta data; of anything, it is a text with turns for meta data."""
    line = {
        "text": "a title",
        "text_with_tokens": "<__dj__image> a headline",
        "turns": [turn.plain() for turn in ASKED[2:]],
        "images": ["a.png"],
    }
    (tmp_path / "a.png").write_bytes(picture(8, 8, 0, "PNG"))
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    (talk,) = source("jsonl", tmp_path, content="conversations")
    assert talk.meta == {"text": "a title", "text_with_tokens": "<__dj__image> a headline"}
    assert (talk.text, talk.turns) == ("a 太陽", ASKED[2:])
    (document,) = source("jsonl", tmp_path, content="any")
    assert (document.text, document.turns, {*document.meta}) == (
        *("a title", ()),
        {"turns", "text_with_tokens"},
    )


def test_meta_data_of_parquet_that_is_asked_for_is_the_column(
    storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    materialise(storage, dataset, np.arange(2), str(tmp_path / "out"), form="parquet")
    found = source("parquet", tmp_path / "out", meta_columns=("meta",))
    assert [json.loads(one.meta["meta"])["label"] for one in found] == [0, 1]


def test_json_lines_keep_the_turns_of_a_conversation(storage: Storage, tmp_path: Path) -> None:
    samples = DOCUMENTS["conversations"]
    dataset = write_documents(storage, samples)
    out = tmp_path / "out"
    materialise(storage, dataset, np.arange(len(samples)), str(out), form="jsonl")
    lines = [json.loads(line) for line in (out / "000000.jsonl").read_text().splitlines()]
    found = []
    for line, sample in zip(lines, samples, strict=True):
        turns = tuple(Turn(**turn) for turn in line["turns"])
        assert (turns, line["text"], line["meta"]) == (sample.turns, sample.text, sample.meta)
        paths = {"image": iter(line["images"]), "video": iter(line["videos"])}
        order = tokens_in("".join(turn.text for turn in turns))
        media = [Media(kind, (out / next(paths[kind])).read_bytes()) for kind in order]
        found.append(Sample(b"", line["text"], "again", line["meta"], tuple(media), turns))
    assert digests(storage, write_documents(storage, found)) == digests(storage, dataset)
    tokens = "<__dj__image> <__dj__video> <__dj__image>"
    assert lines[0]["text_with_tokens"] == f"{tokens} a star\na 太陽 <|__dj__eoc|>"
    assert "text_with_tokens" not in lines[1]


def test_images_behind_videos_keep_their_order(storage: Storage, tmp_path: Path) -> None:
    dataset = write_documents(storage, [Sample(b"", "two", "", media=(video(1), image(1)))])
    materialise(storage, dataset, np.arange(1), str(tmp_path / "out"), form="jsonl")
    (found,) = source("jsonl", tmp_path / "out", content="any")
    assert [one.digest for one in found.media] == [video(1).digest, image(1).digest]
    assert found.text == "<__dj__video> <__dj__image> two <|__dj__eoc|>"


def test_files_of_a_document_are_numbered_and_named_by_content(
    storage: Storage, tmp_path: Path
) -> None:
    dataset = write_documents(storage, [*DOCUMENTS["any"], *DOCUMENTS["videos"]])
    materialise(storage, dataset, np.arange(7), str(tmp_path / "out"), form="jsonl")
    files = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("out/*/*/*")}
    assert files == {
        *("images/000000/000000001.png", "images/000000/000000002-0.png"),
        *("images/000000/000000002-1.png", "videos/000000/000000002-2.mp4"),
        *("videos/000000/000000003-0.mp4", "images/000000/000000003-1.png"),
        *("videos/000000/000000003-2.mkv", "videos/000000/000000004.mp4"),
        *("videos/000000/000000005.webm", "videos/000000/000000006.avi"),
    }


def test_tars_hold_videos_and_texts(storage: Storage, tmp_path: Path) -> None:
    for content in ("videos", "texts"):
        dataset = write_documents(storage, DOCUMENTS[content])
        rows = np.arange(dataset.rows)
        materialise(storage, dataset, rows, str(tmp_path / content), form="webdataset")
    with tarfile.open(tmp_path / "videos" / "000000.tar") as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert list(files)[:4] == [
        *("000000000.mp4", "000000000.txt", "000000000.json"),
        "000000001.webm",
    ]
    assert files["000000001.webm"] == clip(2, "webm")
    assert files["000000001.txt"] == b"another"
    with tarfile.open(tmp_path / "texts" / "000000.tar") as archive:
        assert archive.getnames()[:2] == ["000000000.txt", "000000000.json"]


def test_parquet_holds_videos_and_texts(storage: Storage, tmp_path: Path) -> None:
    for content, media in (("videos", ["video"]), ("texts", [])):
        dataset = write_documents(storage, DOCUMENTS[content])
        rows = np.arange(dataset.rows)
        materialise(storage, dataset, rows, str(tmp_path / content), form="parquet")
        table = pq.read_table(tmp_path / content / "000000.parquet")
        assert table.schema.names == ["row_id", *media, "text", "meta"]
        assert table["text"].to_pylist() == [sample.text for sample in DOCUMENTS[content]]
        for name in media:
            assert table[name].to_pylist() == [s.media[0].data for s in DOCUMENTS[content]]


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([2], "row 2 has 3 media"),
        ([0, 1], "row 1 has one image, where those before it have no media"),
        ([4], "row 4 is a conversation"),
        ([6], "row 6 is a document with a medium inside of its text"),
    ],
)
def test_a_sample_that_a_format_cannot_hold_is_named(
    storage: Storage, tmp_path: Path, form: str, rows: list[int], said: str
) -> None:
    inside = Sample(b"", "a <__dj__image> b", "", media=(image(1),))
    samples = [*DOCUMENTS["any"], *DOCUMENTS["conversations"], inside]
    dataset = write_documents(storage, samples)
    with pytest.raises(BadInput, match=f"{said}.*jsonl holds any samples"):
        materialise(storage, dataset, np.array(rows), str(tmp_path / "out"), form=form)
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
