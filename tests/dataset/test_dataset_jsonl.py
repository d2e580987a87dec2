from __future__ import annotations

from pathlib import Path

import pytest

from djsandbox_ray.dataset import json_files
from djsandbox_ray.dataset.faults import META_LEFT_OUT
from djsandbox_ray.dataset.prepare import prepared, split
from djsandbox_ray.dataset.source import Rejection, Remark, Sample
from djsandbox_ray.errors import BadInput, SandboxError


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
    monkeypatch.setattr("djsandbox_ray.dataset.json_files._SHARD_ENTRIES", 2)
    images = {f"images/{number}.jpg": jpeg(number) for number in range(5)}
    lines = [line(0), "", line(1), line(2), "  ", line(3), line(4), ""]
    source = open_source("jsonl", path=write_jsonl(lines, images))
    shards = prepared(source)
    assert [(shard.name, shard.rows) for shard in shards] == [
        ("a.jsonl#0", 2),
        ("a.jsonl#3", 2),
        ("a.jsonl#6", 1),
    ]
    assert [item.source for item in items(source)] == [f"a.jsonl#{n}" for n in (0, 2, 3, 5, 6)]
    assert [item for shard in shards for item in shard.read()] == items(source)


def test_only_a_split_reads_through_the_files(
    open_source, write_jsonl, jpeg, tmp_path, monkeypatch
) -> None:
    """What a start looks at before there are tasks costs no more for long files."""
    path = write_jsonl([line(0)] * 3, {"images/0.jpg": jpeg(0)})
    (tmp_path / "data" / "b.jsonl").write_text(Path(path).read_text())
    source = open_source("jsonl", path=str(Path(path).parent))
    opened: list[str] = []
    chunks = json_files._chunks
    monkeypatch.setattr(
        json_files, "_chunks", lambda file: opened.append(file.name) or chunks(file)
    )
    found = source.shards()
    assert [(shard.name, shard.rows) for shard in found] == [("a.jsonl", None), ("b.jsonl", None)]
    assert source.stamp()["shards"] == [[shard.name, shard.stamp] for shard in found]
    assert opened == []
    assert [part.name for shard in found for part in split(shard)] == ["a.jsonl#0", "b.jsonl#0"]
    assert opened == ["a.jsonl", "b.jsonl"]


def test_a_file_that_cannot_be_read_through_is_named(open_source, write_jsonl, jpeg) -> None:
    path = write_jsonl([line(0)], {"images/0.jpg": jpeg(0)})
    (shard,) = open_source("jsonl", path=path).shards()
    Path(path).unlink()
    with pytest.raises(SandboxError, match=r"^a\.jsonl cannot be read through: "):
        split(shard)


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
        ({"images": ["images/0.jpg"]}, "bad_text", "nothing is no text (the line has images)"),
        ({"text": 5, "images": ["images/0.jpg"]}, "bad_text", "int"),
        ({"text": "t"}, "image_count", "not nothing (the line has text)"),
        ({"text": "t", "images": {"a": 1}}, "image_count", "dict"),
        ('{"text": ' + "[" * 100_000, "bad_json", "RecursionError"),
        ({"text": "t", "images": ["i" * 5000]}, "missing_image", "(5000 characters)"),
        (
            {"text": "t", "images": ["data:image/png;base64," + "A" * 9000]},
            "missing_image",
            "itself",
        ),
        ({"text": "t", "images": ["images/0\0.jpg"]}, "missing_image", "null"),
        ({"text": "t", "images": ["images/0.jpg/1.jpg"]}, "missing_image", "images/0.jpg/1.jpg"),
        ({"text": "t", "images": ["images/\ud83d.jpg"]}, "missing_image", "surrogate"),
        ({"text": "t", "images": [""]}, "escaping_path", "leads out"),
        ({"text": "t", "images": []}, "image_count", "not 0"),
        ({"text": "t", "images": ["images/0.jpg"] * 2}, "image_count", "not 2"),
        ({"text": "t", "images": [None]}, "image_count", "not 1"),
        ({"text": "t", "images": ["../secret.jpg"]}, "escaping_path", "leads out"),
        ({"text": "t", "images": ["images/../../secret.jpg"]}, "escaping_path", "leads out"),
        ({"text": "t", "images": ["/etc/passwd"]}, "escaping_path", "leads out"),
        ({"text": "t", "images": ["images/none.jpg"]}, "missing_image", "images/none.jpg"),
        ({"text": "t", "images": ["images"]}, "missing_image", "images"),
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


def test_media_may_lie_beside_the_folder_of_the_file_if_that_is_said(
    open_source, write_jsonl, jpeg, tmp_path: Path
) -> None:
    lines = [{"text": "t", "images": ["../images/0.jpg"]}, {"text": "t", "images": ["../../x.jpg"]}]
    path = write_jsonl(lines, {"../images/0.jpg": jpeg(0), "../../x.jpg": jpeg(1)})
    plain = open_source("jsonl", path=path)
    assert [item.reason for item in items(plain)] == ["escaping_path"] * 2
    rooted = open_source("jsonl", path=path, media_root=str(tmp_path))
    kept, rejected = items(rooted)
    assert kept.image == jpeg(0)
    assert rejected.reason == "escaping_path"
    assert rejected.detail.startswith("'../../x.jpg' leads out of ")
    # Where it lies is no part of what it is; that more can be used than without it is.
    assert plain.stamp().keys() | {"media_root"} == rooted.stamp().keys()
    assert "media_root" not in plain.stamp()["config"]


def test_videos_beside_the_folder_of_the_file_have_a_place(
    open_source, write_jsonl, tmp_path: Path
) -> None:
    lines = [{"text": "t", "videos": ["../clips/0.mp4"]}]
    path = write_jsonl(lines, {"../clips/0.mp4": b"video"})
    source = open_source("jsonl", path=path, content="videos", media_root=str(tmp_path))
    (sample,) = items(source)
    (video,) = sample.media
    assert video.place is not None
    assert video.place.uri == str(tmp_path / "clips" / "0.mp4")


@pytest.mark.parametrize(
    ("folder", "said"),
    [("nosuch", "'.*nosuch' is no folder"), ("other", r"a\.jsonl does not lie in '.*other'")],
)
def test_a_root_is_a_folder_around_the_file(
    open_source, write_jsonl, jpeg, tmp_path: Path, folder: str, said: str
) -> None:
    (tmp_path / "other").mkdir()
    path = write_jsonl([line(0)], {"images/0.jpg": jpeg(0)})
    with pytest.raises(BadInput, match=f"media_root: {said}"):
        open_source("jsonl", path=path, media_root=str(tmp_path / folder)).shards()


def test_no_more_of_a_file_is_read_than_is_asked_for(
    open_source, write_jsonl, jpeg, monkeypatch
) -> None:
    path = write_jsonl([line(0)] * 3000, {"images/0.jpg": jpeg(0)})
    seen = []
    chunks = json_files._chunks
    monkeypatch.setattr(
        json_files, "_chunks", lambda file: (seen.append(one) or one for one in chunks(file))
    )
    (shard,) = open_source("jsonl", path=path).shards()
    assert isinstance(next(shard.read()), Sample)
    assert len(seen) == 1
    assert len(split(shard)) == 3


@pytest.mark.parametrize(
    ("more", "meta"),
    [
        ({"meta": 1, "a": 2}, {"a": 2}),
        ({"meta": {"a": 1, "b": 3}, "a": 2}, {"a": 2, "b": 3}),
    ],
)
def test_side_data_never_cost_a_pair(open_source, write_jsonl, jpeg, more, meta) -> None:
    path = write_jsonl([line(0, **more)], {"images/0.jpg": jpeg(0)})
    sample, remark = items(open_source("jsonl", path=path))
    assert sample.meta == meta
    assert isinstance(remark, Remark)
    assert (remark.source, remark.what) == ("a.jsonl#0", META_LEFT_OUT)


def test_numbers_that_are_none_become_null(open_source, write_jsonl, jpeg) -> None:
    entry = '{"text": "t", "images": ["images/0.jpg"], "a": NaN, "meta": {"b": [-Infinity, 1]}}'
    (sample,) = items(open_source("jsonl", path=write_jsonl([entry], {"images/0.jpg": jpeg(0)})))
    assert sample.meta == {"a": None, "b": [None, 1]}


def test_half_a_character_is_no_text_and_is_spelled_in_meta(open_source, write_jsonl, jpeg) -> None:
    lines = [
        {"text": "half \ud800", "images": ["images/0.jpg"]},
        line(0, **{"k\ud800": "v\udfff"}),
    ]
    (shard,) = prepared(open_source("jsonl", path=write_jsonl(lines, {"images/0.jpg": jpeg(0)})))
    first, second = shard.read()
    assert first.reason == "bad_text"
    assert second.meta == {"k\\ud800": "v\\udfff"}


def test_a_path_alone_is_a_list_of_one(open_source, write_jsonl, pairs) -> None:
    images = {f"images/{number}.jpg": image for number, (image, _) in enumerate(pairs)}
    lines = [{"caption": text, "image": f"images/{n}.jpg"} for n, (_, text) in enumerate(pairs)]
    path = write_jsonl(lines, images)
    read = items(open_source("jsonl", path=path, text="caption", images="image"))
    assert [(item.image, item.text) for item in read] == pairs
    assert "the line has caption, image" in items(open_source("jsonl", path=path))[0].detail


def test_a_mark_before_the_first_line_is_no_fault(open_source, tmp_path, jpeg) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "t", "images": ["a.jpg"]}\r\n')
    (sample,) = items(open_source("jsonl", path=str(tmp_path / "a.jsonl")))
    assert isinstance(sample, Sample)


@pytest.mark.parametrize("indent", [None, 1])
def test_one_list_is_refused_with_its_remedy(open_source, tmp_path, indent) -> None:
    import json

    entries = [{"id": str(n), "image": f"{n}.jpg", "conversations": []} for n in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(entries, indent=indent))
    with pytest.raises(BadInput, match=r"one JSON list.*jq -c.*id, image, conversations"):
        open_source("jsonl", path=str(tmp_path / "a.json")).shards()


def test_two_entries_on_one_line_are_two(open_source, write_jsonl, jpeg) -> None:
    import json

    path = write_jsonl([json.dumps(line(0)) + " " + json.dumps(line(0))], {"images/0.jpg": jpeg(0)})
    (item,) = items(open_source("jsonl", path=path))
    assert (item.reason, item.lost) == ("bad_json", 2)


def test_a_pipe_is_no_image(open_source, write_jsonl, tmp_path) -> None:
    import os

    path = Path(write_jsonl([line(0)], {}))
    (path.parent / "images").mkdir()
    os.mkfifo(path.parent / "images" / "0.jpg")
    (item,) = items(open_source("jsonl", path=str(path)))
    assert item.reason == "missing_image"


def test_a_link_to_itself_is_no_image(open_source, write_jsonl, jpeg) -> None:
    path = Path(write_jsonl([line(0), line(1)], {"images/0.jpg": jpeg(0)}))
    (path.parent / "images" / "1.jpg").symlink_to("1.jpg")
    first, second = items(open_source("jsonl", path=str(path)))
    assert isinstance(first, Sample)
    assert (second.source, second.reason) == ("a.jsonl#1", "missing_image")


def test_a_file_that_fills_the_memory_is_not_read(open_source, write_jsonl, jpeg) -> None:
    path = Path(write_jsonl([line(0), line(1)], {"images/0.jpg": jpeg(0)}))
    with (path.parent / "images" / "1.jpg").open("wb") as file:
        file.truncate(1 << 40)
    first, second = items(open_source("jsonl", path=str(path)))
    assert isinstance(first, Sample)
    assert (second.source, second.reason) == ("a.jsonl#1", "bad_image")
    assert "has 1099511627776 bytes" in second.detail


def test_a_failing_disk_is_no_fault_of_a_row(open_source, write_jsonl, jpeg, monkeypatch) -> None:
    import errno

    from fsspec.implementations.local import LocalFileSystem

    def fail(self, path, **options):
        raise OSError(errno.EIO, "Input/output error")

    path = write_jsonl([line(0)], {"images/0.jpg": jpeg(0)})
    monkeypatch.setattr(LocalFileSystem, "cat_file", fail)
    with pytest.raises(SandboxError, match=r"images/0.jpg.*a\.jsonl.*Input/output"):
        items(open_source("jsonl", path=path))


def documents(open_source, path: str, content: str) -> list[Sample | Rejection]:
    (shard,) = prepared(open_source("jsonl", path=path, content=content))
    return list(shard.read())


def test_documents_keep_the_order_of_their_media(open_source, write_jsonl, jpeg, video) -> None:
    files = {"0.jpg": jpeg(0), "1.jpg": jpeg(1), "0.mp4": video(0)}
    text = "<__dj__image> one <__dj__video> two <__dj__image> three <|__dj__eoc|>"
    both = {"images": ["0.jpg", "1.jpg"], "videos": "0.mp4"}
    lines = [{"text": text, **both, "id": 7}, {"text": "none", **both}, {"text": "only text"}]
    first, second, third = documents(open_source, write_jsonl(lines, files), "any")
    image, other, clip = files.values()
    assert (first.text, first.meta) == (text, {"id": 7})
    assert [one.data for one in first.media] == [image, clip, other]
    assert [one.kind for one in first.media] == ["image", "video", "image"]
    assert [one.data for one in second.media] == [image, other, clip]
    assert (third.text, third.all_media) == ("only text", ())


def test_videos_have_captions_without_tokens(open_source, write_jsonl, video) -> None:
    line = {"text": "<__dj__video> a caption <|__dj__eoc|>", "videos": ["clips/0.mp4"]}
    (item,) = documents(open_source, write_jsonl([line], {"clips/0.mp4": video(0)}), "videos")
    assert (item.text, item.media[0].data) == ("a caption", video(0))


@pytest.mark.parametrize(
    ("line", "content", "reason"),
    [
        ({"text": "a", "videos": ["none.mp4"]}, "videos", "missing_video"),
        ({"text": "a", "videos": ["../0.mp4"]}, "videos", "escaping_path"),
        ({"text": "a", "videos": ["0.jpg"]}, "videos", "bad_video"),
        ({"text": "a", "videos": 5}, "videos", "media_count"),
        ({"text": "a", "videos": [5]}, "any", "media_count"),
        ({"text": "a"}, "videos", "media_count"),
        ({"text": "a", "images": "0.jpg"}, "texts", "media_count"),
        ({"text": "<__dj__image> a", "images": ["0.jpg"] * 2}, "any", "bad_tokens"),
        ({"text": "<__dj__video> a", "images": ["0.jpg"]}, "any", "bad_tokens"),
        ({"text": " "}, "texts", "empty_caption"),
        ({"images": "0.jpg"}, "any", "bad_text"),
    ],
)
def test_lines_that_are_something_else_are_rejected(
    open_source, write_jsonl, jpeg, line, content, reason
) -> None:
    path = write_jsonl([line], {"0.jpg": jpeg(0)})
    (item,) = documents(open_source, path, content)
    assert isinstance(item, Rejection)
    assert item.reason == reason


def test_a_pair_keeps_its_text_and_side_data(open_source, write_jsonl, jpeg) -> None:
    """What videos have brought must not change what was ingested before."""
    line = {"text": "<__dj__image> a <__dj__video>", "images": "0.jpg", "videos": ["0.mp4"]}
    (item,) = documents(open_source, write_jsonl([line], {"0.jpg": jpeg(0)}), "pairs")
    assert (item.text, item.meta) == ("a <__dj__video>", {"videos": ["0.mp4"]})
