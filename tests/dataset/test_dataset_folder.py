from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from djsandbox_ray.dataset import folder
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.errors import BadInput


def items(source) -> list[Sample | Rejection]:
    return [item for shard in prepared(source) for item in shard.read()]


def texts(source) -> list[tuple[str, str]]:
    return [(item.source, item.text) for item in items(source)]


def rejections(source) -> list[tuple[str, str]]:
    found = [item for item in items(source) if isinstance(item, Rejection)]
    return [(item.source, item.reason) for item in found]


@pytest.fixture
def write(tmp_path: Path, jpeg) -> Callable[..., str]:
    """Write images, by their names, and other files, by their names and contents."""

    def write(*images: str, **files: str) -> str:
        for number, name in enumerate(images):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(jpeg(number))
        for name, content in files.items():
            (tmp_path / name).write_text(content)
        return str(tmp_path)

    return write


def test_folders_are_labels_and_captions(open_source, write, jpeg) -> None:
    path = write("train/cat/1.jpg", "train/cat/2.JPG", "train/dog/1.png")
    read = items(open_source("folder", path=path, caption="a photo of a {label}"))
    assert [(item.text, item.meta, item.source) for item in read] == [
        ("a photo of a cat", {"label": "cat"}, "cat/1.jpg"),
        ("a photo of a cat", {"label": "cat"}, "cat/2.JPG"),
        ("a photo of a dog", {"label": "dog"}, "dog/1.png"),
    ]
    assert [item.image for item in read] == [jpeg(number) for number in range(3)]


def test_a_text_beside_an_image_is_its_caption(open_source, write) -> None:
    path = write("1.jpg", "2.jpg", **{"1.txt": "one\n", "README.txt": "about"})
    source = open_source("folder", path=path)
    one, two = items(source)
    assert (one.text, one.meta) == ("one", {})
    assert (two.source, two.reason) == ("2.jpg", "bad_text")
    assert "nor in 2.txt" in two.detail
    assert source.passed_over() == {"text beside no image": ["README.txt"]}


def test_a_text_that_is_none_is_rejected(open_source, write, tmp_path) -> None:
    path = write("1.jpg", "2.jpg", **{"2.txt": " "})
    (tmp_path / "1.txt").write_bytes(b"caf\xe9")
    assert rejections(open_source("folder", path=path)) == [
        ("1.jpg", "bad_text"),
        ("2.jpg", "empty_caption"),
    ]


def test_files_that_fill_the_memory_are_not_read(open_source, write, tmp_path) -> None:
    path = write("1.jpg", "2.jpg", "3.jpg", **{"1.txt": "a", "2.txt": "b", "3.txt": "c"})
    for name in ("1.jpg", "2.txt"):
        with (tmp_path / name).open("r+b") as file:
            file.truncate(1 << 40)
    assert rejections(open_source("folder", path=path)) == [
        ("1.jpg", "bad_image"),
        ("2.jpg", "bad_text"),
    ]


CSV = 'file_name,text,place\na/1.jpg,"a bike, red",Rome\na/2.jpg,"two\nlines",Bern\n'
JSONL = "".join(
    json.dumps({"file_name": f"a/{number}.jpg", "text": text, "place": place}) + "\n"
    for number, text, place in ((1, "a bike, red", "Rome"), (2, "two\nlines", "Bern"))
)


@pytest.mark.parametrize(("name", "content"), [("metadata.csv", CSV), ("metadata.jsonl", JSONL)])
def test_metadata_names_images(open_source, write, name, content) -> None:
    path = write("a/1.jpg", "a/2.jpg", "b/3.jpg", **{name: content})
    source = open_source("folder", path=path, caption="a {label}")
    assert [(item.text, item.meta) for item in items(source)] == [
        ("a bike, red", {"label": "a", "place": "Rome"}),
        ("two\nlines", {"label": "a", "place": "Bern"}),
        ("a b", {"label": "b"}),
    ]
    assert source.found() == (f"{name}: captions from 'text', images by 'file_name'",)


def test_several_rows_of_an_image_are_several_samples(open_source, write) -> None:
    path = write("1.jpg", **{"metadata.csv": "file_name,text\n1.jpg,one\n1.jpg,two\n"})
    assert texts(open_source("folder", path=path)) == [
        ("metadata.csv#1", "one"),
        ("metadata.csv#2", "two"),
    ]


def test_every_row_is_told_of_once(open_source, write, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.folder._SHARD_MEDIA", 1)
    rows = ["1.jpg,one", "0.jpg,none", "9.jpg,none", "../x.jpg,out", ",no path", "3.jpg", "2.jpg,"]
    content = "\n".join(["file_name,text", *rows, "a/b.jpg,other", ""])
    path = write("1.jpg", "2.jpg", "a/b.jpg", **{"metadata.csv": content})
    (Path(path) / "a" / "metadata.jsonl").write_text('{"file_name": "b.jpg", "title": "b"}\n{x\n')
    source = open_source("folder", path=path)
    read = items(source)
    assert {item.source: item.text for item in read if isinstance(item, Sample)} == {
        "metadata.csv#1": "one",
        "a/metadata.jsonl#0": "b",
    }
    assert sorted(rejections(source)) == [
        ("a/metadata.jsonl#1", "bad_row"),
        ("metadata.csv#2", "missing_image"),
        ("metadata.csv#3", "missing_image"),
        ("metadata.csv#4", "escaping_path"),
        ("metadata.csv#5", "missing_image"),
        ("metadata.csv#6", "bad_row"),
        ("metadata.csv#7", "bad_text"),
        ("metadata.csv#8", "bad_row"),
    ]


def test_shards_are_stamped_with_all_that_they_are_made_of(open_source, write, tmp_path) -> None:
    path = write("1.jpg", **{"1.txt": "one"})
    source = open_source("folder", path=path)
    before = source.stamp()
    (tmp_path / "1.txt").write_text("another")
    assert source.stamp() != before
    assert [shard.rows for shard in source.shards()] == [1]


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ({"metadata.csv": "name,text\n"}, {}, "metadata.csv has no column 'file_name'"),
        ({"metadata.csv": "file_name,label\n"}, {}, "text_column chooses one"),
        ({"metadata.csv": "file_name,text,Caption\n"}, {}, "'text' and 'Caption' may hold"),
        ({"metadata.csv": "file_name,a,a\n"}, {}, "names a twice"),
        ({"metadata.csv": ""}, {}, "is empty"),
        ({"metadata.csv": "file_name,text\n"}, {"text_column": "title"}, "no column 'title'"),
        (
            {"metadata.csv": "file_name,text\n", "metadata.jsonl": JSONL},
            {},
            "metadata.csv and metadata.jsonl lie in one folder",
        ),
        ({}, {"caption": "a {label}"}, "lie in one"),
    ],
)
def test_what_is_ambiguous_is_an_error(open_source, write, files, options, said) -> None:
    source = open_source("folder", path=write("1.jpg", **files), **options)
    with pytest.raises(BadInput, match=said):
        source.shards()


def test_a_folder_without_images_is_an_error(open_source, write) -> None:
    with pytest.raises(BadInput, match="holds no images"):
        open_source("folder", path=write(**{"1.txt": "one"})).shards()


def test_folders_of_videos_are_read_as_those_of_images(open_source, video, jpeg, tmp_path) -> None:
    for name, data in {
        "run/1.mp4": video(0),
        "run/2.WEBM": video(1, "webm"),
        "jump/1.avi": video(2, "avi"),
        "jump/poster.jpg": jpeg(0),
        "jump/2.mp4": b"no video",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "run" / "1.txt").write_text("someone runs")
    (tmp_path / "metadata.csv").write_text(
        "file_name,caption,fps\njump/1.avi,someone jumps,12\njump/3.mp4,nobody,12\n"
    )
    options = {"path": str(tmp_path), "content": "videos", "caption": "to {label}"}
    source = open_source("folder", **options)
    read = items(source)
    assert [(item.source, item.reason) for item in read if isinstance(item, Rejection)] == [
        ("jump/2.mp4", "bad_video"),
        ("metadata.csv#2", "missing_video"),
    ]
    samples = [item for item in read if isinstance(item, Sample)]
    assert [(item.text, item.meta, item.image) for item in samples] == [
        ("someone jumps", {"label": "jump", "fps": "12"}, b""),
        ("someone runs", {"label": "run"}, b""),
        ("to run", {"label": "run"}, b""),
    ]
    assert [item.media[0].data for item in samples] == [
        video(2, "avi"),
        video(0),
        video(1, "webm"),
    ]
    assert source.found() == ("metadata.csv: captions from 'caption', videos by 'file_name'",)


def test_a_folder_without_videos_is_an_error(open_source, write) -> None:
    path = write("1.jpg", **{"1.txt": "one"})
    with pytest.raises(BadInput, match=r"holds no videos \(.mp4, "):
        open_source("folder", path=path, content="videos").shards()


def test_a_process_reads_captions_once_for_all_shards(open_source, write, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.folder._SHARD_MEDIA", 2)
    names = ["3.jpg", "x.jpg", "0.jpg", "2.jpg", "1.jpg", "w.jpg", "4.jpg", "0.jpg"]
    lines = [{"file_name": name, "text": f"of {name}"} for name in names]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"file_name": 5}])
    path = write(*(f"{number}.jpg" for number in range(5)), **{"metadata.jsonl": text})
    folder._all_rows.cache_clear()
    shards = pickle.loads(pickle.dumps(prepared(open_source("folder", path=path))))
    assert len(shards) == 3
    read = [item for shard in shards for item in shard.read()]
    assert folder._all_rows.cache_info().misses == 1
    assert [item.text for item in read if isinstance(item, Sample)] == [
        f"of {number}.jpg" for number in (0, 0, 1, 2, 3, 4)
    ]
    # What names no image is told in the order of the rows.
    assert [item.source for item in read if isinstance(item, Rejection)] == [
        f"metadata.jsonl#{line}" for line in (8, 1, 5)
    ]
