"""Damaged at random, small files of every source: never a traceback, never a silent loss.

With one change in a file (a bit, some bytes put in, the end cut off) the samples that are read and
those that are counted as lost are at least as many as were there: all of them, or those that begin
before the cut. With several changes at once nothing but an answer is asked for.
"""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from djsandbox_ray.dataset.fragments import REJECTED_SCHEMA, _Tally
from djsandbox_ray.dataset.images import decode
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.errors import BadInput

PAIRS = 5


def sizes(quick: int = 1_000, slow: int = 50_000, *, layouts: int = 1) -> list[Any]:
    """Return how many copies of a source's files are damaged, shared by its layouts."""
    return [
        pytest.param(quick // layouts, id=f"{quick}"),
        pytest.param(slow // layouts, id=f"{slow}", marks=pytest.mark.slow),
    ]


@dataclass(frozen=True)
class Change:
    data: bytes
    kind: str
    place: int
    """Where the file ends, if it was cut."""


def changed(data: bytes, chance: random.Random) -> Change:
    place = chance.randrange(len(data))
    kind = chance.choice(("flip", "flip", "flip", "insert", "cut"))
    if kind == "cut":
        return Change(data[:place], kind, place)
    if kind == "insert":
        size = chance.choice((1, 2, 7, 512, 1000))
        return Change(data[:place] + chance.randbytes(size) + data[place:], kind, place)
    flipped = data[place] ^ (1 << chance.randrange(8))
    return Change(data[:place] + bytes([flipped]) + data[place + 1 :], kind, place)


def changes(data: bytes, count: int, seed: int) -> Iterator[Change]:
    """Yield damaged copies; every fourth is damaged in many places."""
    chance = random.Random(seed)
    for number in range(count):
        change = changed(data, chance)
        if number % 4 == 3:
            for _ in range(chance.randrange(1, 20)):
                change = changed(change.data or data, chance)
            change = Change(change.data, "many", 0)
        yield change


def picture(number: int) -> bytes:
    return b"P6 4 3 255\n" + bytes((number * 7 + at * 13) % 256 for at in range(36))


def caption(number: int) -> bytes:
    return f"caption number {number} \u00e9".encode()


def counted(source) -> tuple[int, int]:
    """Return how many samples there are, and how many were lost; all of it could be written."""
    samples = lost = 0
    for shard in prepared(source):
        tally = _Tally()
        rows = sum(batch.num_rows for batch in tally.batches(shard.read()))
        assert rows == tally.accepted
        written = pa.Table.from_pylist(tally.rejected, REJECTED_SCHEMA)
        assert sum(written["lost"].to_pylist()) == tally.reasons.total()
        samples += tally.accepted
        lost += tally.reasons.total()
    return samples, lost


def run(
    open_source: Callable[..., object],
    file: Path,
    data: bytes,
    count: int,
    expected: Callable[[Change, int], int],
    least: int | None = None,
    **options: object,
) -> None:
    """Damage a file again and again; ``expected`` says how many samples must be accounted for.

    At least so many are read over all, else nothing but rubbish was tried: one for each change, if
    ``least`` is not given.
    """
    intact = 0
    for number, change in enumerate(changes(data, count, seed=1)):
        file.write_bytes(change.data)
        try:
            samples, lost = counted(open_source(**{"path": str(file), **options}))
        except BadInput:
            continue
        told = f"change {number}: {change.kind} at {change.place}: {samples} + {lost}"
        intact += samples
        if change.kind != "many":
            assert samples + lost >= expected(change, samples), told
    assert intact > (count if least is None else least)


def tar(mode: str) -> tuple[bytes, list[int]]:
    """Return a tar, and where each pair begins, with its first header."""
    file, begins = io.BytesIO(), []
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for number in range(PAIRS):
            begins.append(archive.offset)
            for ending, content in (
                ("jpg", picture(number)),
                ("json", json.dumps({"label": number}).encode()),
                ("txt", caption(number)),
            ):
                member = tarfile.TarInfo(f"f/{number:05d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue(), begins


@pytest.mark.parametrize("count", sizes(layouts=2))
def test_tars(open_source, tmp_path: Path, count: int) -> None:
    data, begins = tar("w")

    def expected(change: Change, _: int) -> int:
        if change.kind != "cut":
            return PAIRS
        return max(1, sum(begin + tarfile.BLOCKSIZE <= change.place for begin in begins))

    run(open_source, tmp_path / "a.tar", data, count, expected, type="webdataset")


@pytest.mark.parametrize("count", sizes(layouts=2))
def test_compressed_tars(open_source, tmp_path: Path, count: int) -> None:
    data, _ = tar("w:gz")

    def expected(change: Change, samples: int) -> int:
        # Where a damaged stream seems to end, the rest is unseen: as much again counts as lost.
        return 1 if change.kind == "cut" else min(PAIRS, max(1, 2 * samples))

    run(open_source, tmp_path / "a.tar.gz", data, count, expected, type="webdataset")


@pytest.mark.parametrize("count", sizes())
def test_json_lines(open_source, tmp_path: Path, count: int) -> None:
    (tmp_path / "i").mkdir()
    lines = []
    for number in range(PAIRS):
        (tmp_path / "i" / f"{number}.ppm").write_bytes(picture(number))
        entry = {"text": caption(number).decode(), "images": [f"i/{number}.ppm"], "label": number}
        lines.append(json.dumps(entry).encode() + b"\n")
    begins = np.cumsum([0, *map(len, lines[:-1])])

    def expected(change: Change, _: int) -> int:
        return sum(begins < change.place) if change.kind == "cut" else PAIRS

    run(open_source, tmp_path / "a.jsonl", b"".join(lines), count, expected, type="jsonl")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("count", sizes(layouts=3))
def test_lists_of_conversations(open_source, tmp_path: Path, count: int, indent) -> None:
    (tmp_path / "i").mkdir()
    entries = []
    for number in range(PAIRS):
        (tmp_path / "i" / f"{number}.ppm").write_bytes(picture(number))
        talk = [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": caption(number).decode()},
        ]
        entries.append({"id": number, "image": f"i/{number}.ppm", "conversations": talk})
    data = json.dumps(entries, indent=indent).encode()
    # An entry begins to count with its key: one that is cut before it is not seen.
    begins = [data.index(b'"id": %d,' % number) + 60 for number in range(PAIRS)]

    def expected(change: Change, _: int) -> int:
        if change.kind == "cut":
            return max(1, sum(begin <= change.place for begin in begins))
        return PAIRS

    run(open_source, tmp_path / "a.json", data, count, expected, type="llava")


@pytest.mark.parametrize("count", sizes(layouts=2))
def test_parquet(open_source, tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.parquet"
    table = {
        "image": [picture(number) for number in range(PAIRS)],
        "text": [caption(number).decode() for number in range(PAIRS)],
        "label": list(range(PAIRS)),
    }
    pq.write_table(pa.table(table), path, row_group_size=3)

    def expected(change: Change, samples: int) -> int:
        return PAIRS if samples else 1  # of a file without a footer nothing is seen

    options = {"type": "parquet", "meta_columns": ["label"]}
    run(open_source, path, path.read_bytes(), count, expected, **options)


@pytest.mark.parametrize("count", sizes(layouts=3))
@pytest.mark.parametrize(
    ("ending", "content"), [("csv", "pairs"), ("tsv", "pairs"), ("csv", "texts")]
)
def test_lists(open_source, tmp_path: Path, ending: str, content: str, count: int) -> None:
    """Captions with separators, quotes and line breaks, all of them in quotes, and plain ones."""
    (tmp_path / "i").mkdir()
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="\t" if ending == "tsv" else ",", lineterminator="\n")
    writer.writerow(["text", "path", "label"])
    begins = []
    for number in range(PAIRS):
        (tmp_path / "i" / f"{number}.ppm").write_bytes(picture(number))
        begins.append(len(file.getvalue().encode()))
        more = ("", ", and\tmore", ' "said"', "\nbelow")[number % 4]
        writer.writerow([caption(number).decode() + more, f"i/{number}.ppm", number])
    data = file.getvalue().encode()

    def expected(change: Change, _: int) -> int:
        if change.kind == "cut":
            return sum(begin < change.place for begin in begins)
        # A damaged end of the line of names makes the first row some more names.
        return PAIRS - (change.place == begins[0] - 1)

    options = {"type": "csv", "content": content}
    run(open_source, tmp_path / f"a.{ending}", data, count, expected, **options)


@pytest.mark.parametrize("count", sizes(layouts=2))
@pytest.mark.parametrize("indent", [None, 1])
def test_annotations_of_coco(open_source, tmp_path: Path, indent: int | None, count: int) -> None:
    """What is no JSON any more is an error of the file: nothing of it is read."""
    for number in range(PAIRS):
        (tmp_path / f"{number}.ppm").write_bytes(picture(number))
    written = {
        "images": [{"id": 70 + n, "file_name": f"{n}.ppm", "license": 1} for n in range(PAIRS)],
        "annotations": [
            {"id": n, "image_id": 70 + n, "caption": caption(n).decode()} for n in range(PAIRS)
        ],
    }
    data = json.dumps(written, indent=indent).encode()
    run(open_source, tmp_path / "a.json", data, count, lambda *_: PAIRS, least=1, type="coco")


@pytest.mark.parametrize("count", sizes(layouts=2))
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_captions_of_a_folder(open_source, tmp_path: Path, name: str, count: int) -> None:
    """Every picture is a sample or set aside, whatever becomes of its row."""
    rows = []
    for number in range(PAIRS):
        (tmp_path / f"{number}.ppm").write_bytes(picture(number))
        said = caption(number).decode() + ("", ", and more")[number % 2]
        rows.append({"file_name": f"{number}.ppm", "text": said, "label": number})
    if name.endswith("csv"):
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        data = file.getvalue().encode()
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    options = {"type": "folder", "path": str(tmp_path)}
    run(open_source, tmp_path / name, data, count, lambda *_: PAIRS, least=1, **options)


def documents(layout: str, folder: Path) -> list[dict[str, Any]]:
    """Return documents of two pictures each, which lie in a folder, in OBELICS' layout or MMC4's"""
    (folder / "i").mkdir()
    entries = []
    for number in range(PAIRS):
        names = [f"i/{number}-{place}.ppm" for place in range(2)]
        for place, name in enumerate(names):
            (folder / name).write_bytes(picture(number + place))
        texts = [caption(number).decode(), "more"]
        if layout == "OBELICS":
            images = [None, names[0], None, names[1]]
            entry = {"texts": [texts[0], None, texts[1], None], "images": images}
        else:
            info = [{"image_name": one, "matched_text_index": n} for n, one in enumerate(names)]
            entry = {"text_list": texts, "image_info": info}
        entries.append({**entry, "url": f"http://host/{number}"})
    return entries


@pytest.mark.parametrize("layout", ["OBELICS", "MMC4"])
@pytest.mark.parametrize("count", sizes(layouts=4))
def test_documents_on_lines(open_source, tmp_path: Path, count: int, layout: str) -> None:
    written = [json.dumps(entry).encode() + b"\n" for entry in documents(layout, tmp_path)]
    begins = np.cumsum([0, *map(len, written[:-1])])

    def expected(change: Change, _: int) -> int:
        return sum(begins < change.place) if change.kind == "cut" else PAIRS

    path = tmp_path / "a.jsonl"
    run(open_source, path, b"".join(written), count, expected, type="interleaved")


@pytest.mark.parametrize("layout", ["OBELICS", "MMC4"])
@pytest.mark.parametrize("count", sizes(layouts=4))
def test_documents_in_parquet(open_source, tmp_path: Path, count: int, layout: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(documents(layout, tmp_path)), path, row_group_size=3)

    def expected(change: Change, samples: int) -> int:
        return PAIRS if samples else 1

    options = {"type": "interleaved", "meta_columns": ["url"]}
    run(open_source, path, path.read_bytes(), count, expected, **options)


def conversations(folder: Path) -> list[dict[str, Any]]:
    """Return conversations about pictures, which lie in a folder."""
    (folder / "i").mkdir()
    entries = []
    for number in range(PAIRS):
        (folder / "i" / f"{number}.ppm").write_bytes(picture(number))
        talk = [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": caption(number).decode()},
        ]
        entries.append({"id": number, "image": f"i/{number}.ppm", "conversations": talk})
    return entries


@pytest.mark.parametrize("kind", ["llava", "jsonl"])
@pytest.mark.parametrize("count", sizes(layouts=3))
def test_conversations_on_lines(open_source, tmp_path: Path, count: int, kind: str) -> None:
    entries = conversations(tmp_path)
    if kind == "jsonl":
        entries = [{**entry, "images": entry.pop("image")} for entry in entries]
    written = [json.dumps(entry).encode() + b"\n" for entry in entries]
    begins = np.cumsum([0, *map(len, written[:-1])])

    def expected(change: Change, _: int) -> int:
        return sum(begins < change.place) if change.kind == "cut" else PAIRS

    options = {"type": kind, "content": "conversations"}
    run(open_source, tmp_path / "a.jsonl", b"".join(written), count, expected, **options)


@pytest.mark.parametrize("count", sizes(layouts=2))
def test_conversations_in_parquet(open_source, tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(conversations(tmp_path)), path, row_group_size=3)

    def expected(change: Change, samples: int) -> int:
        return PAIRS if samples else 1

    options = {"type": "parquet", "content": "conversations", "meta_columns": ["id"]}
    run(open_source, path, path.read_bytes(), count, expected, **options)


def saved(content: str, folder: Path) -> datasets.Dataset:
    """Return rows as Hugging Face's library holds them."""
    if content == "conversations":
        rows = [
            {**entry, "image": {"bytes": picture(number)}}
            for number, entry in enumerate(conversations(folder))
        ]
        return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    rows = [
        {"text": caption(number).decode(), "label": number, "image": {"bytes": picture(number)}}
        for number in range(PAIRS)
    ]
    kinds: dict[str, Any] = {
        "text": datasets.Value("string"),
        "label": datasets.Value("int64"),
        "image": datasets.Image(),
    }
    return datasets.Dataset.from_list(rows, features=datasets.Features(kinds))


@pytest.mark.parametrize("content", ["pairs", "texts", "conversations"])
@pytest.mark.parametrize("count", sizes(layouts=5))
def test_saved_datasets(open_source, tmp_path: Path, count: int, content: str) -> None:
    """Three batches in a file; of one whose first batch is damaged nobody knows how many follow."""
    folder = tmp_path / "x"
    rows = saved(content, tmp_path)
    rows.save_to_disk(folder)
    (path,) = folder.glob("*.arrow")
    table = rows.data.table.combine_chunks()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)

    def expected(change: Change, samples: int) -> int:
        return PAIRS if samples and change.kind != "cut" else 1

    options = {"type": "huggingface", "path": str(folder), "content": content}
    run(open_source, path, path.read_bytes(), count, expected, **options)


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
@pytest.mark.parametrize("count", sizes(layouts=5))
def test_what_is_said_of_saved_datasets(open_source, tmp_path: Path, count: int, name: str) -> None:
    folder = tmp_path / "x"
    rows = saved("texts", tmp_path)
    options = {"type": "huggingface", "path": str(folder), "content": "texts"}
    if name == "state.json":
        rows.save_to_disk(folder)
    else:
        datasets.DatasetDict({"a": rows, "another": rows}).save_to_disk(folder)
        options["split"] = "a"
    data = (folder / name).read_bytes()
    run(open_source, folder / name, data, count, lambda *_: PAIRS, least=1, **options)


@pytest.mark.parametrize("form", ["mp4", "gif", "webm", "avi", "mpegts"])
@pytest.mark.parametrize("count", sizes(100, 5_000))
def test_videos_in_a_folder(open_source, tmp_path: Path, video, count: int, form: str) -> None:
    path = tmp_path / f"a.{'ts' if form == 'mpegts' else form}"
    (tmp_path / "a.txt").write_text("a video")
    options = {"type": "folder", "path": str(tmp_path), "content": "videos"}
    data = video(0, form=form, frames=16)
    run(open_source, path, data, count, lambda *_: 1, least=1, **options)


@pytest.mark.parametrize("form", ["mp4", "gif"])
@pytest.mark.parametrize("count", sizes(100, 5_000))
def test_videos_in_parquet(open_source, tmp_path: Path, video, count: int, form: str) -> None:
    path = tmp_path / "a.parquet"
    table = {
        "video": [video(number, form=form) for number in range(4)],
        "text": [caption(number).decode() for number in range(4)],
    }
    pq.write_table(pa.table(table), path, row_group_size=3)

    def expected(change: Change, samples: int) -> int:
        return 4 if samples else 1

    options = {"type": "parquet", "content": "videos"}
    run(open_source, path, path.read_bytes(), count, expected, **options)


def encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if form == "MPO":
        options = {"save_all": True, "append_images": [image]}
    image.save(file, form, exif=exif, **options)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", sizes())
@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_pictures(form: str, count: int) -> None:
    read = 0
    for change in changes(encoded(form), count // 5, seed=2):
        try:
            image = decode(change.data)
        except ValueError:
            continue
        assert image.mode == "RGB"
        read += 1
    assert read
