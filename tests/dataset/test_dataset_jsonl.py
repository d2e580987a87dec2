from __future__ import annotations

from pathlib import Path

import pytest

from djsandbox_ray.dataset.source import Rejection, Sample


def items(source) -> list[Sample | Rejection]:
    return [item for shard in source.shards() for item in shard.read()]


def line(number: int, **more: object) -> dict[str, object]:
    text = f"<__dj__image> caption number {number} <|__dj__eoc|>"
    return {"text": text, "images": [f"images/{number}.jpg"], **more}


def test_tokens_are_stripped_and_paths_relative(open_source, write_jsonl, pairs) -> None:
    images = {f"images/{number}.jpg": image for number, (image, _) in enumerate(pairs)}
    lines = [line(number, id=number, meta={"label": -number}) for number in range(10)]
    read = items(open_source("jsonl", path=write_jsonl(lines, images)))
    assert [(item.image, item.text) for item in read] == pairs
    assert read[4].source == "a.jsonl#4"
    assert read[4].meta == {"id": 4, "label": -4}


def test_shards_are_lines_and_blank_lines_do_not_count(
    open_source, write_jsonl, jpeg, monkeypatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.jsonl._SHARD_ROWS", 2)
    images = {f"images/{number}.jpg": jpeg(number) for number in range(5)}
    lines = [line(0), "", line(1), line(2), "  ", line(3), line(4), ""]
    source = open_source("jsonl", path=write_jsonl(lines, images))
    shards = source.shards()
    assert [(shard.name, shard.rows) for shard in shards] == [
        ("a.jsonl#0", 2),
        ("a.jsonl#3", 2),
        ("a.jsonl#6", 1),
    ]
    assert [item.source for item in items(source)] == [f"a.jsonl#{n}" for n in (0, 2, 3, 5, 6)]


def test_an_absolute_path_inside_the_folder_is_fine(
    open_source, write_jsonl, jpeg, tmp_path
) -> None:
    path = str(tmp_path / "data" / "images" / "0.jpg")
    source = open_source(
        "jsonl", path=write_jsonl([line(0) | {"images": [path]}], {"images/0.jpg": jpeg(0)})
    )
    assert isinstance(items(source)[0], Sample)


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ("{broken", "bad_json", "Expecting"),
        ("[1, 2]", "bad_json", "not list"),
        ({"images": ["images/0.jpg"]}, "bad_text", "NoneType"),
        ({"text": 5, "images": ["images/0.jpg"]}, "bad_text", "int"),
        ({"text": "t"}, "image_count", "NoneType"),
        ({"text": "t", "images": "images/0.jpg"}, "image_count", "str"),
        ({"text": "t", "images": []}, "image_count", "not 0"),
        ({"text": "t", "images": ["images/0.jpg"] * 2}, "image_count", "not 2"),
        ({"text": "t", "images": [None]}, "image_count", "not 1"),
        ({"text": "t", "images": ["../secret.jpg"]}, "escaping_path", "leads out"),
        ({"text": "t", "images": ["images/../../secret.jpg"]}, "escaping_path", "leads out"),
        ({"text": "t", "images": ["/etc/passwd"]}, "escaping_path", "leads out"),
        ({"text": "t", "images": ["images/none.jpg"]}, "missing_image", "images/none.jpg"),
        ({"text": "t", "images": ["images"]}, "missing_image", "images"),
        ({"text": "t", "images": ["images/0.jpg"], "meta": 1}, "bad_meta", "object"),
        ({"text": "t", "images": ["images/0.jpg"], "a": 1, "meta": {"a": 2}}, "bad_meta", "a"),
    ],
)
def test_bad_lines_are_rejected_and_the_others_kept(
    open_source, write_jsonl, jpeg, tmp_path: Path, bad, reason, detail
) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(9))
    images = {"images/0.jpg": jpeg(0)}
    first, second, third = items(
        open_source("jsonl", path=write_jsonl([line(0), bad, line(0)], images))
    )
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)
    assert (second.source, second.reason) == ("a.jsonl#1", reason)
    assert detail in second.detail


def test_bytes_that_are_not_unicode_are_rejected(open_source, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xff"}\n')
    (item,) = items(open_source("jsonl", path=str(tmp_path / "a.jsonl")))
    assert item.reason == "bad_json"


def test_a_link_that_leads_out_of_the_folder_is_rejected(
    open_source, write_jsonl, jpeg, tmp_path: Path
) -> None:
    path = Path(write_jsonl([line(0), line(1)], {"images/0.jpg": jpeg(0)}))
    outside = tmp_path.parent / f"{tmp_path.name}-secret.jpg"
    outside.write_bytes(jpeg(1))
    (path.parent / "images" / "1.jpg").symlink_to(outside)
    kept, rejected = items(open_source("jsonl", path=str(path)))
    assert isinstance(kept, Sample)
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "escaping_path"
