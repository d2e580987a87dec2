"""Every example of ``docs/data.md`` reads a small real layout of its kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Sample

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
EXAMPLES = [
    yaml.safe_load(block)["dataset"]
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
]


def _animals(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    for number, name in enumerate(("cat/1.jpg", "cat/2.jpg", "dog/3.jpg")):
        (folder / "animals" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "animals" / name).write_bytes(jpeg(number))


def _lists(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    for name in ("lists", "photos"):
        (folder / name).mkdir()
    (folder / "lists" / "train.tsv").write_text("one\t1.jpg\ntwo\t2.jpg\n")
    for number in (1, 2):
        (folder / "photos" / f"{number}.jpg").write_bytes(jpeg(number))


def _saved(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    columns = {
        "image": [{"bytes": jpeg(0), "path": None}],
        "text": ["one"],
        "label": [0],
    }
    kinds = {
        "image": datasets.Image(),
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["cat"]),
    }
    saved = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(folder / "saved")


def _fetched(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    rows = {
        "key": ["0", "1"],
        "url": ["http://a/0", "http://a/1"],
        "caption": ["zero", "one"],
        "status": ["success", "failed_to_resize"],
        "error_message": [None, "image decoding error"],
        "jpg": [jpeg(0), None],
    }
    (folder / "fetched").mkdir()
    pq.write_table(pa.table(rows), folder / "fetched" / "00000.parquet")


def _pairs(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "pairs").mkdir()
    rows = {"image": [jpeg(0)], "text": ["one"], "label": ["cat"]}
    pq.write_table(pa.table(rows), folder / "pairs" / "a.parquet")


def _clips(folder: Path, video: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "clips").mkdir()
    (folder / "clips" / "1.mp4").write_bytes(video(0))
    clips = [{"bytes": video(1), "path": None}, {"bytes": None, "path": "1.mp4"}]
    rows = {"clip": clips, "text": ["one", "two"]}
    pq.write_table(pa.table(rows), folder / "clips" / "a.parquet")


def _tars(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    for number in range(2):
        members = [("0.jpg", jpeg(number)), ("0.txt", b"one"), ("0.json", b'{"label": "cat"}')]
        write_tar(members, f"data/tars/{number:05}.tar")


def _videotars(folder: Path, video: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    members = [("0.mp4", video(0)), ("0.txt", b"one"), ("1.txt", b"two"), ("1.webm", video(1))]
    write_tar(members, "data/videotars/00000.tar")


def _webvid(folder: Path, video: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "webvid" / "videos" / "000001_000050").mkdir(parents=True)
    (folder / "webvid" / "videos" / "000001_000050" / "7.mp4").write_bytes(video(0))
    rows = "videoid,name,page_dir,contentUrl\n7,one,000001_000050,http://a/7.mp4\n"
    (folder / "webvid" / "train.csv").write_text(rows)


def _actions(folder: Path, video: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    for name in ("jump/1.mp4", "run/1.mp4"):
        (folder / "actions" / name).parent.mkdir(parents=True)
        (folder / "actions" / name).write_bytes(video(0))


def _juicer(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "juicer").mkdir()
    (folder / "juicer" / "1.jpg").write_bytes(jpeg(0))
    line = {"text": "<__dj__image> one <|__dj__eoc|>", "images": ["1.jpg"], "label": "cat"}
    (folder / "juicer" / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "juicer" / "texts").mkdir()
    beside = json.dumps({**line, "images": ["../1.jpg"]})
    (folder / "juicer" / "texts" / "pairs.jsonl").write_text(beside + "\n")


def _coco(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "coco" / "val2017").mkdir(parents=True)
    (folder / "coco" / "val2017" / "1.jpg").write_bytes(jpeg(0))
    written = {
        "images": [{"id": 9, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 9, "caption": text} for text in ("one", "another")],
    }
    (folder / "coco" / "captions.json").write_text(json.dumps(written))


ASKED, SAID = "<image>\nWhat is it?", "a star"


def _talks(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "talks").mkdir()
    (folder / "talks" / "1.jpg").write_bytes(jpeg(0))
    talk = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    lines = [
        {"messages": talk, "images": ["1.jpg"]},
        {"query": "who?", "response": "you", "history": [["what?", "that"]]},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "talks" / "messages.jsonl").write_text(text)


def _llava(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "llava" / "photos").mkdir(parents=True)
    (folder / "llava" / "photos" / "1.jpg").write_bytes(jpeg(0))
    talk = [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]
    entries = [
        {"id": "1", "image": "1.jpg", "conversations": talk},
        {"id": "2", "conversations": talk},
    ]
    (folder / "llava" / "instruct.json").write_text(json.dumps(entries))


def _chats(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "chats").mkdir()
    talk = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    plain = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "you"}]
    rows = {"images": [[{"bytes": jpeg(0), "path": None}], None], "messages": [talk, plain]}
    pq.write_table(pa.table(rows), folder / "chats" / "a.parquet")


def _mmc4(folder: Path, jpeg: Callable[..., bytes], write_tar: Callable[..., str]) -> None:
    (folder / "mmc4" / "images").mkdir(parents=True)
    (folder / "mmc4" / "images" / "1.jpg").write_bytes(jpeg(0))
    lines = [
        {
            "text_list": ["One.", "Two."],
            "image_info": [{"image_name": name, "matched_text_index": 1}],
        }
        for name in ("1.jpg", "2.jpg")
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "mmc4" / "docs.jsonl").write_text(text)


WRITERS = {
    "mmc4": (_mmc4, ["One. <__dj__image> Two.", "not_downloaded"]),
    "chats": (_chats, [SAID, "you"]),
    "talks": (_talks, [SAID, "that\nyou"]),
    "llava": (_llava, [SAID, "bad_tokens"]),
    "coco": (_coco, ["one", "another"]),
    "animals": (_animals, ["a photo of a cat", "a photo of a cat", "a photo of a dog"]),
    "actions": (_actions, ["someone who does jump", "someone who does run"]),
    "webvid": (_webvid, ["one"]),
    "lists": (_lists, ["one", "two"]),
    "saved": (_saved, ["one"]),
    "fetched": (_fetched, ["zero", "not_downloaded"]),
    "pairs": (_pairs, ["one"]),
    "clips": (_clips, ["one", "two"]),
    "tars": (_tars, ["one", "one"]),
    "videotars": (_videotars, ["one", "two"]),
    "juicer": (_juicer, ["one"]),
}


@pytest.mark.parametrize("options", EXAMPLES, ids=lambda options: options["path"])
def test_the_example_reads(options, open_source, jpeg, video, write_tar, tmp_path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write, expected = WRITERS[options["path"].split("/")[2]]
    write(folder, video if options.get("content") == "videos" else jpeg, write_tar)
    options = {
        key: value.replace("/data/", f"{folder}/") if isinstance(value, str) else value
        for key, value in options.items()
    }
    items = [item for shard in prepared(open_source(**options)) for item in shard.read()]
    assert all(isinstance(item, Sample | Rejection) for item in items)
    told = [item.text if isinstance(item, Sample) else item.reason for item in items]
    assert told == expected


def test_every_layout_has_an_example() -> None:
    assert {options["path"].split("/")[2] for options in EXAMPLES} == set(WRITERS)
