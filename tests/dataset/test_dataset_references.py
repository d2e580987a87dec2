"""Videos that stay where they lie are read there, or it is said what has become of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from written_tables import written

from djsandbox_ray.dataset.media import Media, Place, VideosConfig
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.references import read_reference, referred
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Item, Rejection, Sample
from djsandbox_ray.errors import BadInput, Damaged

STAY = VideosConfig(store="reference")


@pytest.fixture
def clips(tmp_path: Path, video) -> Path:
    """Return a folder with three videos, a broken one, and lists of them."""
    folder = tmp_path / "data"
    (folder / "clips").mkdir(parents=True)
    for number in range(3):
        (folder / "clips" / f"{number}.mp4").write_bytes(video(number))
        (folder / "clips" / f"{number}.txt").write_text(f"clip {number}")
        os.utime(folder / "clips" / f"{number}.mp4", (1_000_000 + number,) * 2)
    (folder / "clips" / "3.mp4").write_bytes(video(0)[:200])
    (folder / "clips" / "3.txt").write_text("cut")
    names = [f"clips/{number}.mp4" for number in range(4)]
    (folder / "list.csv").write_text("\n".join(["video,text", *(f"{one},a" for one in names)]))
    lines = [{"text": "a", "videos": [name]} for name in names]
    (folder / "list.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def items(source: Any, videos: VideosConfig = STAY) -> list[Item]:
    return [item for shard in prepared(source, videos=videos) for item in shard.read()]


@pytest.mark.parametrize(
    ("type", "path"), [("folder", "clips"), ("csv", "list.csv"), ("jsonl", "list.jsonl")]
)
def test_videos_stay_where_they_lie(open_source, clips, video, tmp_path, type, path) -> None:
    source = open_source(type, path=str(clips / path), content="videos")
    *samples, broken = items(source)
    assert isinstance(broken, Rejection)
    assert broken.reason == "bad_video"
    table, manifest = written([*samples], tmp_path / "storage")
    stored = b"".join(file.read_bytes() for file in (tmp_path / "storage").rglob("data/*"))
    assert video(0)[100:140] not in stored
    assert table.media([2, 0, 2], "video") == [
        (Media("video", video(number)),) for number in (2, 0, 2)
    ]
    assert (manifest.modalities, manifest.accepted) == (["video"], 3)
    (listed,) = json.loads(table.column("media").to_pylist()[1])
    place = listed["place"]
    assert place["uri"] == str(clips / "clips" / "1.mp4")
    assert place["name"] == ("1.mp4" if type == "folder" else "clips/1.mp4")
    assert (place["size"], place["version"]) == (len(video(1)), "1000001.0")
    table.check(np.arange(3))


def test_what_is_copied_is_as_it_was_without_a_place(open_source, clips, video, tmp_path) -> None:
    source = open_source("folder", path=str(clips / "clips"), content="videos")
    copied = [item for item in items(source, VideosConfig()) if isinstance(item, Sample)]
    bare = [
        Sample(b"", item.text, item.source, item.meta, (Media("video", item.media[0].data),))
        for item in copied
    ]
    one, two = (written([*some], tmp_path / name) for name, some in (("1", copied), ("2", bare)))
    assert one[1].digest == two[1].digest
    assert one[0].column("media") == two[0].column("media")
    assert one[1].digest != written([*items(source)[:3]], tmp_path / "3")[1].digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.unlink(), "1.mp4 is not what was ingested: it is gone"),
        (lambda file: file.write_bytes(b"other"), "bytes, and has 5"),
        (lambda file: os.utime(file, (5, 5)), "it has changed: '5.0' is not '1000001.0'"),
    ],
)
def test_a_file_that_has_changed_fails_who_reads_it(
    open_source, clips, tmp_path, change, said
) -> None:
    source = open_source("folder", path=str(clips / "clips"), content="videos")
    table, _ = written([*items(source)[:3]], tmp_path / "storage")
    change(clips / "clips" / "1.mp4")
    assert len(table.media([0, 2])) == 2
    with pytest.raises(Damaged, match=said):
        table.media([0, 1])
    assert table.media([1], "image") == [()]


def test_digests_tell_name_size_and_version(open_source, clips, video) -> None:
    first = items(open_source("csv", path=str(clips / "list.csv"), content="videos"))[0]
    assert isinstance(first, Sample)
    digest = first.media[0].digest
    again = items(open_source("csv", path=str(clips / "list.csv"), content="videos"))[0]
    assert again.media[0].digest == digest
    os.utime(clips / "clips" / "0.mp4", (7, 7))
    later = items(open_source("csv", path=str(clips / "list.csv"), content="videos"))[0]
    assert later.media[0].digest != digest
    # Caches are found by these.
    place = Place("/anywhere/0.mp4", "0.mp4", 10, "1.0")
    assert Media("video", place=place).digest.hex() == "41892c0e18ce2ecf49c9837781eb58d9"


def test_images_are_copied_all_the_same(open_source, clips, jpeg, tmp_path) -> None:
    (clips / "0.jpg").write_bytes(jpeg(0))
    line = {"text": "a", "images": ["0.jpg"], "videos": ["clips/0.mp4"]}
    (clips / "both.jsonl").write_text(f"{json.dumps(line)}\n")
    source = open_source("jsonl", path=str(clips / "both.jsonl"), content="any")
    table, _ = written(items(source), tmp_path / "storage")
    (clips / "clips" / "0.mp4").unlink()
    assert table.media([0], "image") == [(Media("image", jpeg(0)),)]
    with pytest.raises(Damaged, match="gone"):
        table.media([0])


def test_captions_of_references_are_exchanged(open_source, clips) -> None:
    options = {"path": str(clips / "clips"), "content": "videos"}
    source = open_source("folder", **options, shuffle_captions={"fraction": 1.0})
    samples = [item for item in items(source) if isinstance(item, Sample)]
    assert all(item.media[0].is_reference for item in samples)
    assert [item.media[0].place.name for item in samples] == ["0.mp4", "1.mp4", "2.mp4"]
    assert sorted(item.text for item in samples) == ["clip 0", "clip 1", "clip 2"]


def test_what_lies_nowhere_cannot_stay_there(video, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"ingest.videos.store: reference needs"):
        referred(Media("video", video(0)))
    with pytest.raises(Damaged, match="it is gone"):
        read_reference(Place(str(tmp_path / "none.mp4"), "none.mp4", 1, "1.0"))


def test_a_table_finds_them_after_it_was_sent(open_source, clips, video, tmp_path) -> None:
    source = open_source("folder", path=str(clips / "clips"), content="videos")
    table, _ = written([*items(source)[:3]], tmp_path / "storage")
    assert SampleTable(table.uri).media([1])[0][0].data == video(1)


def test_a_path_that_no_table_can_hold_costs_its_row(open_source, clips, video) -> None:
    (clips / os.fsdecode(b"caf\xe9.mp4")).write_bytes(video(0))
    (clips / "list.csv").write_bytes(b"video,text\ncaf\xe9.mp4,a\nclips/1.mp4,b\n")
    source = open_source("csv", path=str(clips / "list.csv"), content="videos")
    first, second = items(source)
    assert isinstance(first, Rejection)
    assert (first.source, first.reason) == ("list.csv#1", "missing_video")
    assert "is no Unicode" in first.detail
    assert isinstance(second, Sample)
    assert [type(item) for item in items(source, VideosConfig())] == [Sample, Sample]


def test_no_secret_is_written_down_with_a_place(video) -> None:
    place = Place("https://user:hunter22@example.org/0.mp4", "0.mp4")
    with pytest.raises(BadInput, match="would write down the secret") as caught:
        referred(Media("video", video(0), place))
    assert "hunter22" not in str(caught.value)


def test_what_would_change_unseen_cannot_stay(video, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/references/0.mp4", video(0))
    info = {"name": "/references/0.mp4", "size": len(video(0)), "type": "file"}
    monkeypatch.setattr(type(memory), "info", lambda *_: info)  # as of a server that says no more
    with pytest.raises(BadInput, match="neither a hash nor a time"):
        referred(Media("video", video(0), Place("memory://references/0.mp4", "0.mp4")))


@pytest.mark.shared_data
def test_real_clips_are_read_from_where_they_lie(open_source, shared_data, tmp_path) -> None:
    folder = shared_data / "videos_open"
    source = open_source("jsonl", path=str(folder / "clips.jsonl"), content="videos")
    samples = items(source)
    table, manifest = written(samples, tmp_path)
    assert (manifest.accepted, manifest.reasons) == (114, {})
    names = [item.media[0].place.name for item in samples]
    for row in (0, 57, 113):
        ((clip,),) = table.media([row])
        assert clip.data == (folder / names[row]).read_bytes()
    assert sum(file.stat().st_size for file in tmp_path.rglob("data/*")) < 200_000
