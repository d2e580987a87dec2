from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import load_config
from djsandbox_ray.dataset.recognise import recognise
from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.foresight.plan import make_plan

ROWS = 240
WORDS = ["red", "green", "blue", "small", "large", "bright", "dark", "old", "new"]


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 12 + number % 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def caption(number: int) -> str:
    chance = np.random.default_rng(number)
    return f"a {' '.join(chance.choice(WORDS, 1 + number % 7))} thing, number {number}!"


def photos(folder: Path) -> list[str]:
    names = [f"{'even' if number % 2 == 0 else 'odd'}/{number:03}.jpg" for number in range(ROWS)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    return names


def folder(path: Path) -> None:
    photos(path)


def folder_with_texts(path: Path) -> None:
    for number, name in enumerate(photos(path)):
        (path / name).with_suffix(".txt").write_text(caption(number))


def imagefolder(path: Path) -> None:
    lines = [{"file_name": name, "text": caption(n)} for n, name in enumerate(photos(path))]
    (path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def csv_list(path: Path) -> None:
    rows = [(caption(number), name) for number, name in enumerate(photos(path))]
    with (path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("caption", "path"), *rows])


def jsonl(path: Path) -> None:
    lines = [{"text": caption(n), "images": [name]} for n, name in enumerate(photos(path))]
    (path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def parquet(path: Path) -> None:
    path.mkdir()
    table = {"jpg": map(picture, range(ROWS)), "title": map(caption, range(ROWS))}
    pq.write_table(
        pa.table({key: list(values) for key, values in table.items()}), path / "a.parquet"
    )


def webdataset(path: Path) -> None:
    path.mkdir()
    with tarfile.open(path / "00000.tar", "w") as archive:
        for number in range(ROWS):
            for ending, data in (("jpg", picture(number)), ("txt", caption(number).encode())):
                info = tarfile.TarInfo(f"{number:05}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    (path / "00000.parquet").write_bytes(b"img2dataset writes one beside each tar")


def huggingface(path: Path) -> None:
    images = [{"bytes": picture(number), "path": None} for number in range(ROWS)]
    columns = {"image": images, "text": [caption(number) for number in range(ROWS)]}
    kinds = {"image": datasets.Image(), "text": datasets.Value("string")}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    made.save_to_disk(path)


def coco(path: Path) -> None:
    names = photos(path / "val2017")
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    notes = [{"image_id": number, "caption": caption(number)} for number in range(ROWS)]
    written = {"info": {}, "images": images, "annotations": notes}
    (path / "captions.json").write_text(json.dumps(written))
    (path / "notes.json").write_text('{"other": 1}')


LAYOUTS = {
    coco: "coco",
    huggingface: "huggingface",
    folder: "folder",
    folder_with_texts: "folder",
    imagefolder: "folder",
    csv_list: "csv",
    jsonl: "jsonl",
    parquet: "parquet",
    webdataset: "webdataset",
}


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call ``djsandbox init`` in a folder; return what it says."""
    monkeypatch.chdir(tmp_path)

    def init(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["init", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return init


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_a_layout_is_recognised_and_its_configuration_accepted(init, tmp_path, write) -> None:
    write(tmp_path / "my data")
    said = init(str(tmp_path / "my data"))
    assert f"layout: {LAYOUTS[write]}\n" in said
    first = "a photo of a even" if write is folder else caption(0)
    assert f"first caption: {first!r}" in said
    config = load_config("my-data.yaml", (), str(tmp_path / "sandbox"))
    assert config.dataset.type == LAYOUTS[write]
    fifth, half = ROWS // 5, ROWS // 2
    # Where the names of two folders are the captions, the rows are as many of one as of the other.
    rows = (half - fifth // 2, half + fifth // 2) if write is folder else (0, fifth)
    assert config.evaluation.dataset.rows == rows
    (metric,) = config.evaluation.metrics
    assert metric.type == ("zero_shot" if write is folder else "retrieval")
    assert make_plan(config)


@pytest.mark.slow
@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_what_is_written_runs(ray_cluster: None, init, tmp_path, write) -> None:
    write(tmp_path / "data")
    init(str(tmp_path / "data"), "--output", "my.yaml")
    sets = ["trials.budget=64", "pools.controls=5", "confirm.top=0", "tracking.type=none"]
    arguments = ["run", "my.yaml", *(word for one in sets for word in ("--set", one))]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_nothing_is_overwritten(init, tmp_path) -> None:
    jsonl(tmp_path / "data")
    init(str(tmp_path / "data"))
    written = (tmp_path / "data.yaml").read_text()
    with pytest.raises(BadInput, match=r"'data\.yaml' exists and is not overwritten"):
        init(str(tmp_path / "data"))
    assert (tmp_path / "data.yaml").read_text() == written


def test_data_with_one_text_are_refused(init, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    for name in photos(tmp_path / "data"):
        (tmp_path / "data" / name).with_suffix(".txt").write_text("a thing")
    with pytest.raises(BadInput, match=r"all of the 240 rows .* have the text 'a thing'"):
        init(str(tmp_path / "data"))
    assert not list(tmp_path.glob("*.yaml"))


def test_a_list_that_belongs_to_no_tar_is_another_layout(init, tmp_path) -> None:
    webdataset(tmp_path / "data")
    (tmp_path / "data" / "test.parquet").write_bytes(b"of no tar")
    with pytest.raises(BadInput, match="holds several layouts, parquet, webdataset"):
        init(str(tmp_path / "data"))


def test_what_is_not_recognised_says_what_is(init, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.doc").write_text("x")
    with pytest.raises(BadInput, match=r"known are webdataset: \.tar"):
        init(str(tmp_path / "data"))
    (tmp_path / "data" / "a.csv").write_text("x")
    (tmp_path / "data" / "a.jsonl").write_text("{}")
    with pytest.raises(BadInput, match="holds several layouts, csv, jsonl"):
        init(str(tmp_path / "data"))
    with pytest.raises(BadInput, match=r"none of its first rows can be used: a\.jsonl#0: bad_text"):
        init(str(tmp_path / "data" / "a.jsonl"))
    assert not list(tmp_path.glob("*.yaml"))


def test_too_few_samples_are_an_error(init, tmp_path) -> None:
    (tmp_path / "data" / "one").mkdir(parents=True)
    (tmp_path / "data" / "one" / "1.jpg").write_bytes(picture(1))
    (tmp_path / "data" / "one" / "1.txt").write_text("one")
    with pytest.raises(BadInput, match="1 samples are too few"):
        init(str(tmp_path / "data"))


def _talk(number: int, who: str, what: str) -> list[dict[str, str]]:
    return [
        {who: "user", what: "<image>\nWhat is it?"},
        {who: "assistant", what: caption(number)},
    ]


def llava(path: Path) -> None:
    names = photos(path / "pictures")
    entries: list[dict[str, object]] = [
        {"image": name, "conversations": _talk(number, "from", "value")}
        for number, name in enumerate(names)
    ]
    (path / "instruct.json").write_text(json.dumps(entries))


def llava_lines(path: Path) -> None:
    llava(path)
    entries = json.loads((path / "instruct.json").read_text())
    (path / "instruct.json").unlink()
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (path / "instruct.jsonl").write_text(text)


def chats(path: Path) -> None:
    path.mkdir()
    table = {
        "images": [[picture(number)] for number in range(ROWS)],
        "messages": [_talk(number, "role", "content") for number in range(ROWS)],
    }
    pq.write_table(pa.table(table), path / "a.parquet")


def saved_chats(path: Path) -> None:
    made = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": picture(number), "path": None} for number in range(ROWS)],
            "messages": [_talk(number, "role", "content") for number in range(ROWS)],
        }
    )
    made.save_to_disk(path)


def mmc4(path: Path) -> None:
    lines = [
        {
            "text_list": [caption(number)],
            "image_info": [{"image_name": name, "matched_text_index": 0}],
        }
        for number, name in enumerate(photos(path / "pictures"))
    ]
    (path / "docs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def obelics(path: Path) -> None:
    path.mkdir()
    table = {
        "images": [[picture(number), None] for number in range(ROWS)],
        "texts": [[None, caption(number)] for number in range(ROWS)],
    }
    pq.write_table(pa.table(table), path / "a.parquet")


@pytest.mark.parametrize(
    ("write", "options", "row", "text"),
    [
        (llava, {"type": "llava", "images": "pictures"}, "2 turns, 1 media", "{}"),
        (llava_lines, {"type": "llava", "images": "pictures"}, "2 turns, 1 media", "{}"),
        (chats, {"type": "parquet", "content": "conversations"}, "2 turns, 1 media", "{}"),
        (saved_chats, {"type": "huggingface", "content": "conversations"}, "1 media", "{}"),
        (mmc4, {"type": "interleaved", "images": "pictures"}, "1 media", "<__dj__image> {}"),
        (obelics, {"type": "interleaved"}, "1 media", "<__dj__image>\n{}"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_conversations_and_documents_are_recognised(tmp_path, write, options, row, text) -> None:
    write(tmp_path / "data")
    found = recognise(str(tmp_path / "data"))
    if "images" in options:
        options = {**options, "images": str(tmp_path / "data" / options["images"])}
    assert found.options == {**options, "path": str(tmp_path / "data")}
    assert (found.usable, found.rejected) == (ROWS, 0)
    assert f"layout: {options['type']}" in found.lines
    assert any(line.startswith("each row: ") and line.endswith(f"{row})") for line in found.lines)
    assert f"first text: {text.format(caption(0))!r}" in found.lines


def test_what_nothing_is_trained_on_is_said_and_how_it_is_read(init, tmp_path) -> None:
    llava(tmp_path / "data")
    with pytest.raises(BadInput, match=r"train on pairs, not on conversations.*type: llava"):
        init(str(tmp_path / "data" / "instruct.json"))
    assert not list(tmp_path.glob("*.yaml"))


def test_of_several_lists_of_json_those_of_a_layout_are_named(init, tmp_path) -> None:
    llava(tmp_path / "data")
    (tmp_path / "data" / "captions.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(BadInput, match=r"there are captions\.json, instruct\.json"):
        init(str(tmp_path / "data"))


def test_other_json_among_images_is_no_layout(init, tmp_path) -> None:
    folder(tmp_path / "data")
    (tmp_path / "data" / "classes.json").write_text('["even", "odd"]')
    assert "layout: folder" in init(str(tmp_path / "data"))
