from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from djsandbox_ray.dataset import coco
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.errors import BadInput


def items(source) -> list[Sample | Rejection]:
    return [item for shard in prepared(source) for item in shard.read()]


@pytest.fixture
def path(tmp_path: Path, jpeg) -> str:
    images = [{"id": n, "file_name": f"{n}.jpg", "license": 4, "width": 9} for n in range(4)]
    images += [{"id": 7}, "rubbish", {"id": [8], "file_name": "x"}, {"id": 9, "file_name": "../x"}]
    notes = [{"image_id": n, "caption": text} for n in (2, 0) for text in (f"{n} ", f"again {n}")]
    notes += [{"image_id": 3, "caption": 5}, {"image_id": 5, "caption": "x"}, "rubbish"]
    notes += [{"image_id": 9, "caption": "out"}, {"image_id": [0], "caption": "x"}]
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"images": images, "annotations": notes}))
    return str(file)


@pytest.mark.parametrize("size", [2, 4096])
def test_all_are_samples_or_told_of_once(open_source, path, monkeypatch, size) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.coco._SHARD_IMAGES", size)
    read = items(open_source("coco", path=path))
    good = [(item.text, item.source, item.meta) for item in read if isinstance(item, Sample)]
    assert good == [
        ("0", "captions.json#0", {"id": 0, "license": 4}),
        ("2", "captions.json#2", {"id": 2, "license": 4}),
    ]
    assert [(item.source, item.reason) for item in read if isinstance(item, Rejection)] == [
        ("captions.json#annotations/5", "missing_image"),
        ("captions.json#annotations/6", "missing_image"),
        ("captions.json#annotations/8", "missing_image"),
        ("captions.json#1", "bad_text"),
        ("captions.json#3", "bad_text"),
        ("captions.json#4", "missing_image"),
        ("captions.json#5", "bad_row"),
        ("captions.json#6", "bad_row"),
        ("captions.json#7", "escaping_path"),
    ]


def test_all_captions_of_an_image_are_samples(open_source, path) -> None:
    read = items(open_source("coco", path=path, captions="all"))
    texts = [item.text for item in read if isinstance(item, Sample)]
    assert texts == ["0", "again 0", "2", "again 2"]


def test_images_of_one_id_have_no_captions_of_their_own(open_source, path) -> None:
    """Each would have those of the other."""
    written = {
        "images": [{"id": n, "file_name": f"{place}.jpg"} for place, n in enumerate((1, 2, 1))],
        "annotations": [{"image_id": n, "caption": str(n)} for n in (1, 2, 1)],
    }
    Path(path).write_text(json.dumps(written))
    first, good, last = items(open_source("coco", path=path))
    assert good.text == "2"
    for item in (first, last):
        assert (item.reason, item.detail) == ("bad_row", "the id 1 stands for several images")


def test_a_process_reads_a_file_once_for_all_its_shards(open_source, path, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.coco._SHARD_IMAGES", 1)
    coco._annotated.cache_clear()
    shards = pickle.loads(pickle.dumps(prepared(open_source("coco", path=path))))
    assert len(shards) == 8
    assert len([item for shard in shards for item in shard.read()]) == 11
    assert coco._annotated.cache_info().misses == 1
    written = {"images": [{"id": 1, "file_name": "0.jpg"}], "annotations": []}
    Path(path).write_text(json.dumps(written))
    (item,) = items(open_source("coco", path=path))
    assert item.reason == "bad_text"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"images": []}', '{"images": 1, "annotations": 2}']
)
def test_another_layout_is_an_error(open_source, tmp_path, content) -> None:
    (tmp_path / "a.json").write_text(content)
    source = open_source("coco", path=str(tmp_path / "a.json"))
    with pytest.raises(BadInput, match=r"^a\.json"):
        prepared(source)
