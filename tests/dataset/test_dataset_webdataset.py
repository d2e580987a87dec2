from __future__ import annotations

from pathlib import Path

import pytest

from djsandbox_ray.dataset.source import Rejection, Sample


def items(source) -> list[Sample | Rejection]:
    return [item for shard in source.shards() for item in shard.read()]


def members(pairs) -> list[tuple[str, bytes]]:
    return [
        member
        for key, (image, text) in enumerate(pairs)
        for member in ((f"k{key}.jpg", image), (f"k{key}.txt", text.encode()))
    ]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_samples_come_in_order_of_the_tar(open_source, write_tar, pairs, name, mode) -> None:
    read = items(open_source("webdataset", path=write_tar(members(pairs), name, mode)))
    assert [(item.image, item.text) for item in read] == pairs
    assert read[3].source == f"{name}#k3"


def test_json_becomes_meta_and_other_members_are_left(open_source, write_tar, jpeg) -> None:
    path = write_tar(
        [
            ("folder/a.v1.PNG", b"first dot ends the key"),
            ("folder/b.JPG", jpeg(0)),
            ("folder/b.txt", b"b"),
            ("folder/b.json", b'{"label": 3}'),
            ("folder/b.mp3", b"sound"),
        ]
    )
    first, second = items(open_source("webdataset", path=path))
    assert (first.source, first.reason) == ("a.tar#folder/a", "missing_member")
    assert (second.text, second.meta) == ("b", {"label": 3})


def test_names_that_climb_out_are_harmless(open_source, write_tar, jpeg, tmp_path: Path) -> None:
    path = write_tar([("../../evil.jpg", jpeg(0)), ("../../evil.txt", b"caption")])
    (sample,) = items(open_source("webdataset", path=path))
    assert sample.text == "caption"
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["a.tar"]


@pytest.mark.parametrize(
    ("extra", "reason", "detail"),
    [
        ([("x.txt", b"text")], "missing_member", "no image .jpg, jpeg, png, webp.; it has .txt"),
        ([("x.jpg", b"image")], "missing_member", r"no .txt; it has .jpg"),
        ([("README", b"")], "missing_member", "no image"),
        ([("x.jpg", b""), ("x.png", b""), ("x.txt", b"")], "image_count", "jpg, png"),
        ([("x.jpg", b""), ("x.jpg", b""), ("x.txt", b"")], "duplicate_member", "jpg, jpg"),
        ([("x.jpg", b""), ("x.txt", b"\xff")], "bad_text", "utf-8"),
        ([("x.jpg", b""), ("x.txt", b"t"), ("x.json", b"[1]")], "bad_meta", "not an object"),
        ([("x.jpg", b""), ("x.txt", b"t"), ("x.json", b"{")], "bad_meta", "json member"),
    ],
)
def test_incomplete_samples_are_rejected_and_the_others_kept(
    open_source, write_tar, pairs, extra, reason, detail
) -> None:
    import re

    content = [*members(pairs[:2]), *extra, ("z.jpg", pairs[2][0]), ("z.txt", b"last")]
    read = items(open_source("webdataset", path=write_tar(content)))
    assert [type(item) for item in read] == [Sample, Sample, Rejection, Sample]
    assert read[2].reason == reason
    assert re.search(detail, read[2].detail)


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_a_truncated_tar_says_where_it_ends(open_source, write_tar, pairs, name, mode) -> None:
    path = Path(write_tar(members(pairs), name, mode))
    data = path.read_bytes()
    # In the middle of an image of the second half.
    path.write_bytes(data[: int(len(data) * 0.55)])
    read = items(open_source("webdataset", path=str(path)))
    assert 1 < len(read) < 10
    assert [type(item) for item in read[:-1]] == [Sample] * (len(read) - 1)
    assert read[-1].reason == "broken_shard"


def test_a_file_that_is_no_tar_is_a_broken_shard(open_source, tmp_path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    (item,) = items(open_source("webdataset", path=str(tmp_path)))
    assert (item.source, item.reason) == ("a.tar#", "broken_shard")
