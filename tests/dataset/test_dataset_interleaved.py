"""Documents of OBELICS and MMC4: order is kept, and what was not downloaded is said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from djsandbox_ray.dataset.interleaved import NOT_DOWNLOADED
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Remark, Sample
from djsandbox_ray.errors import BadInput

TOKEN = "<__dj__image>"


@pytest.fixture
def folder(tmp_path: Path, jpeg) -> Path:
    """Three images in a folder of their own, beside that of the documents."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "docs").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(number))
    return tmp_path


@pytest.fixture
def read(open_source, folder) -> Callable[..., list[Any]]:
    """Write documents as lines and read them."""

    def read(*entries: Any, **options: Any) -> list[Any]:
        text = "".join(f"{json.dumps(entry)}\n" for entry in entries)
        (folder / "docs" / "a.jsonl").write_text(text)
        return opened(open_source, folder, **options)

    return read


def opened(open_source, folder: Path, **options: Any) -> list[Any]:
    options = {"path": str(folder / "docs"), "images": str(folder / "photos"), **options}
    source = open_source("interleaved", **options)
    return [item for shard in pickle.loads(pickle.dumps(prepared(source))) for item in shard.read()]


def mmc4(sentences: list[str], *pictures: tuple[str, int], **more: Any) -> dict[str, Any]:
    info = [
        {"image_name": name, "matched_text_index": place, "matched_sim": 0.3}
        for name, place in pictures
    ]
    return {"text_list": sentences, "image_info": info, "similarity_matrix": [[0.1]], **more}


def test_mmc4_has_images_before_their_sentences(read, jpeg) -> None:
    entry = mmc4(["a.", "b.", "c."], ("2.jpg", 2), ("0.jpg", 0), ("1.jpg", 2), url="http://x")
    (item,) = read(entry)
    assert item.text == f"{TOKEN} a. b. {TOKEN} {TOKEN} c."
    assert [one.data for one in item.media] == [jpeg(0), jpeg(2), jpeg(1)]
    assert (item.source, item.meta) == ("a.jsonl#0", {"url": "http://x"})


def test_obelics_keeps_its_order(read, jpeg) -> None:
    entry = {"texts": [None, "a", None, "b\n\nc"], "images": ["1.jpg", None, "0.jpg", None]}
    (item,) = read({**entry, "id": 3})
    assert item.text == f"{TOKEN}\na\n{TOKEN}\nb\n\nc"
    assert [one.data for one in item.media] == [jpeg(1), jpeg(0)]
    assert item.meta == {"id": 3}


@pytest.mark.parametrize(
    "missing",
    ["none.jpg", "http://host/1.jpg", None, {"bytes": None, "path": None}, {"path": "x.jpg"}],
)
def test_an_image_that_is_not_there_is_left_out_and_said(read, jpeg, missing) -> None:
    entry = {"texts": [None, "a", None, None], "images": ["1.jpg", None, missing, missing]}
    sample, remark = read(entry)
    assert (sample.text, [one.data for one in sample.media]) == (f"{TOKEN}\na", [jpeg(1)])
    assert isinstance(remark, Remark)
    assert (remark.source, remark.what, remark.count) == ("a.jsonl#0", NOT_DOWNLOADED, 2)


def test_a_document_without_any_of_its_images_is_set_aside(read) -> None:
    first, second, third = read(
        mmc4(["a."], ("none.jpg", 0)),
        {"texts": ["a", None], "images": [None, "http://host/1.jpg"]},
        mmc4(["only text."]),
    )
    assert [(one.source, one.reason) for one in (first, second)] == [
        ("a.jsonl#0", "not_downloaded"),
        ("a.jsonl#1", "not_downloaded"),
    ]
    assert "'http://host/1.jpg' is an address" in second.detail
    assert (third.text, third.media) == ("only text.", ())


@pytest.mark.parametrize("none", [None, "", {"bytes": None, "path": None}])
def test_what_is_empty_is_as_what_is_null(read, jpeg, none) -> None:
    text = none if none == "" else None
    one, two, remark = read(
        {"texts": ["a", text, "b"], "images": [none, "0.jpg", none]},
        mmc4(["a."], ("0.jpg", 0), (none, 0)),
    )
    assert one.text == f"a\n{TOKEN}\nb"
    assert two.text == f"{TOKEN} a."
    assert [medium.data for medium in (*one.media, *two.media)] == [jpeg(0)] * 2
    assert (remark.source, remark.count) == ("a.jsonl#1", 1)


@pytest.mark.parametrize(
    ("entry", "reason", "detail"),
    [
        ({}, "bad_row", "'texts' and 'images', or 'text_list' and 'image_info' (there are no keys"),
        ({"texts": "a"}, "bad_row", "'texts' is a list, not str"),
        ({"texts": ["a"]}, "bad_row", "'images' is a list, not nothing"),
        ({"texts": ["a"], "images": []}, "bad_row", "'texts' has 1 places, 'images' 0"),
        ({"texts": ["a"], "images": ["0.jpg"]}, "bad_row", "place 0 has both"),
        ({"texts": [5], "images": [None]}, "bad_text", "texts[0] is no text but int"),
        ({"texts": [" "], "images": [None]}, "empty_caption", ""),
        ({"texts": [f"{TOKEN} a"], "images": [None]}, "bad_tokens", "there is no media"),
        ({"texts": [None], "images": ["../docs/a.jsonl"]}, "escaping_path", "leads out"),
        ({"texts": [None, None], "images": ["0.jpg", "bad.jpg"]}, "bad_image", "medium 1: "),
        (mmc4(["a."], ("0.jpg", 1)), "bad_row", "image_info[0]: 'matched_text_index' is one of"),
        (mmc4(["a."], ("0.jpg", -1)), "bad_row", "not '-1'"),
        (mmc4(["a.", "b."], ("0.jpg", True)), "bad_row", "not 'True'"),
        ({"text_list": "a", "image_info": []}, "bad_text", "'text_list' is a list of texts"),
        ({"text_list": ["a"], "image_infos": []}, "bad_row", "has 'image_info' too"),
        ({"text_list": ["a"], "image_info": {"a": 1}}, "bad_row", "not dict"),
        ({"text_list": ["a"], "image_info": ["0.jpg"]}, "bad_row", "not 'None'"),
    ],
)
def test_what_is_no_document_is_set_aside(read, folder, entry, reason, detail) -> None:
    (folder / "photos" / "bad.jpg").write_bytes(b"no image")
    good = mmc4(["a."])
    first, second, third = read(good, entry, good)
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)
    assert isinstance(second, Rejection)
    assert (second.source, second.reason) == ("a.jsonl#1", reason)
    assert detail in second.detail


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
def test_tables_of_either_layout(open_source, folder, jpeg, form) -> None:
    value = {"bytes": jpeg(1), "struct": {"bytes": jpeg(1), "path": "x"}, "path": "1.jpg"}[form]
    rows = {
        "texts": [["a", None], [None, "b"], ["c"]],
        "images": [[None, value], [None, None], [None]],
        "url": ["x", "y", "z"],
    }
    pq.write_table(pa.table(rows), folder / "docs" / "a.parquet")
    first, second, third = opened(open_source, folder, meta_columns=["url"])
    assert (first.text, first.media[0].data, first.meta) == (f"a\n{TOKEN}", jpeg(1), {"url": "x"})
    assert second.reason == "not_downloaded"
    assert (third.text, third.source) == ("c", "a.parquet#2")


def test_lines_and_tables_are_not_read_at_once(open_source, folder, read) -> None:
    read(mmc4(["a."]))
    with pytest.raises(BadInput, match="of JSON Lines all keys are kept"):
        opened(open_source, folder, meta_columns=["url"])
    pq.write_table(pa.table({"a": [1]}), folder / "docs" / "a.parquet")
    with pytest.raises(BadInput, match="holds JSON Lines and Parquet"):
        opened(open_source, folder)
    with pytest.raises(BadInput, match=r"a\.parquet has no columns 'texts' and 'images', or"):
        opened(open_source, folder, path=str(folder / "docs" / "a.parquet"))
