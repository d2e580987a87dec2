from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.errors import BadInput


def items(source) -> list[Sample | Rejection]:
    return [item for shard in prepared(source) for item in shard.read()]


@pytest.fixture
def write(tmp_path: Path, jpeg) -> Callable[..., str]:
    """Write a list, and five images, ``photos/0.jpg`` and so on."""

    def write(content: str | bytes, name: str = "list.csv") -> str:
        (tmp_path / "photos").mkdir(exist_ok=True)
        for number in range(5):
            (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(number))
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def test_captions_and_paths_are_found_and_the_rest_is_kept(open_source, write, jpeg) -> None:
    path = write('\ufeffurl,image_path,Caption\nhttp://a,photos/0.jpg,"a, b\nc ""d"""\n\n')
    source = open_source("csv", path=path)
    (sample,) = items(source)
    assert (sample.image, sample.text) == (jpeg(0), 'a, b\nc "d"')
    assert (sample.meta, sample.source) == ({"url": "http://a"}, "list.csv#1")
    assert source.found() == ("captions from the column 'Caption', images from 'image_path'",)


def test_a_list_without_names_and_with_its_images_elsewhere(open_source, write, tmp_path) -> None:
    path = write('"a quote\t0.jpg\nb\t1.jpg\n', "list.tsv")
    options = {"columns": ["caption", "path"], "quotes": False}
    source = open_source("csv", path=path, images=str(tmp_path / "photos"), **options)
    assert [item.text for item in items(source)] == ['"a quote', "b"]


def test_shards_are_rows_whatever_lines_they_have(open_source, write, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.delimited._SHARD_ROWS", 2)
    rows = [f'"caption\n{number} é",photos/{number}.jpg' for number in range(5)]
    source = open_source("csv", path=write("\n".join(["text,path", *rows, ""])))
    shards = prepared(source)
    assert [shard.name for shard in shards] == ["list.csv#0", "list.csv#5", "list.csv#9"]
    assert [item.text for item in items(source)] == [f"caption\n{n} é" for n in range(5)]
    assert [item.source for item in items(source)] == [f"list.csv#{n}" for n in (1, 3, 5, 7, 9)]
    assert items(source) == [item for shard in source.shards() for item in shard.read()]


def test_one_column_may_be_text_and_path(open_source, write) -> None:
    path = write("name,id\nphotos/0.jpg,7\n")
    source = open_source("csv", path=path, text_column="name", image_column="name")
    (item,) = items(source)
    assert (item.text, item.meta) == ("photos/0.jpg", {"id": "7"})


def test_bad_rows_are_rejected_and_the_others_kept(open_source, write) -> None:
    rows = [
        *(b"one,photos/0.jpg", b"two", b"three,photos/1.jpg,x", b"four,photos/9.jpg", b"five,"),
        *(b"six,../secret.jpg", b"seven,/etc/passwd", b"caf\xe9,photos/1.jpg", b",photos/1.jpg"),
        *(b"ten,http://a/b.jpg", b"eleven,\0.jpg", b"twelve,photos/2.jpg", b'"thirteen,x', b"y"),
    ]
    read = items(open_source("csv", path=write(b"\n".join([b"text,path", *rows]))))
    assert [item.text for item in read if isinstance(item, Sample)] == ["one", "twelve"]
    found = [(item.source, item.reason, item.lost) for item in read if isinstance(item, Rejection)]
    assert found == [
        ("list.csv#2", "bad_row", 1),
        ("list.csv#3", "bad_row", 1),
        ("list.csv#4", "missing_image", 1),
        ("list.csv#5", "missing_image", 1),
        ("list.csv#6", "escaping_path", 1),
        ("list.csv#7", "escaping_path", 1),
        ("list.csv#8", "bad_text", 1),
        ("list.csv#9", "empty_caption", 1),
        ("list.csv#10", "missing_image", 1),
        ("list.csv#11", "missing_image", 1),
        ("list.csv#13", "bad_row", 2),
    ]


def test_a_quote_that_is_never_closed_costs_what_it_covers(open_source, write, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.tables._LONGEST", 60)
    rows = ['"open,photos/0.jpg', *["a,photos/1.jpg"] * 6]
    read = items(open_source("csv", path=write("\n".join(["text,path", *rows]))))
    (lost,) = [item.lost for item in read if isinstance(item, Rejection)]
    assert 1 < lost < 7
    assert lost + sum(isinstance(item, Sample) for item in read) == 7


def test_a_quote_that_is_closed_too_early_makes_no_value_of_many_rows(open_source, write) -> None:
    """Without strictness, the caption of the first row would hold the next two rows."""
    rows = ['"one,photos/0.jpg', "two,photos/1.jpg", '"three, 3",photos/2.jpg', "four,photos/3.jpg"]
    read = items(open_source("csv", path=write("\n".join(["text,path", *rows]))))
    lost, sample = read
    assert (lost.reason, lost.lost, sample.text) == ("bad_row", 3, "four")
    assert "a quote may not be closed, or too early" in lost.detail


def test_rows_whose_line_ends_are_damaged_are_counted(open_source, write) -> None:
    rows = ["one,photos/0.jpg,0_two,photos/1.jpg,1_three,photos/2.jpg,2", "four,photos/3.jpg,3"]
    read = items(open_source("csv", path=write("\n".join(["text,path,id", *rows, "five, a,x,5"]))))
    assert [getattr(item, "lost", 0) for item in read] == [3, 0, 1]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", {}, "is empty"),
        ("caption,url\n", {}, "let img2dataset fetch them"),
        ("caption,text,path\n", {}, "'caption' and 'text' may hold the texts: text_column"),
        ("caption,path,image\n", {}, "'path' and 'image' may hold the images: image_column"),
        ("a,path\n", {}, "has no column of a usual name for texts"),
        ("text,path\n", {"image_column": "img"}, r"has no column 'img' \(it has text, path\)"),
        ("text,path\n", {"images": "nowhere"}, "images: 'nowhere' is no folder"),
    ],
)
def test_what_is_ambiguous_is_an_error(open_source, write, content, options, said) -> None:
    with pytest.raises(BadInput, match=said):
        open_source("csv", path=write(content), **options).shards()


@pytest.mark.parametrize("options", [{"separator": '"'}, {"separator": ""}, {"columns": ["a"] * 2}])
def test_what_cannot_be_meant_is_refused(open_source, options) -> None:
    with pytest.raises(ValueError, match=r"separator|columns"):
        open_source("csv", path="x", **options)


@pytest.fixture
def clips(tmp_path: Path, video) -> str:
    """Return a folder with two videos, as who fetches WebVid's list writes them."""
    for number, page in enumerate(("000001_000050", "000051_000100")):
        (tmp_path / "clips" / page).mkdir(parents=True)
        (tmp_path / "clips" / page / f"{number}.mp4").write_bytes(video(number))
    return str(tmp_path / "clips")


def test_paths_of_videos_are_read(open_source, clips, video, tmp_path) -> None:
    rows = ["000001_000050/0.mp4,one", "000051_000100/1.mp4,two", "none.mp4,three", ",four"]
    (tmp_path / "list.csv").write_text("\n".join(["video,caption", *rows]))
    source = open_source("csv", path=str(tmp_path / "list.csv"), content="videos", videos=clips)
    first, second, third, fourth = items(source)
    assert [(item.text, item.media[0].data) for item in (first, second)] == [
        ("one", video(0)),
        ("two", video(1)),
    ]
    assert [item.reason for item in (third, fourth)] == ["missing_video"] * 2
    assert source.found() == ("captions from the column 'caption', videos from 'video'",)


def test_the_list_of_webvid_says_where_its_videos_lie(open_source, clips, video, tmp_path) -> None:
    rows = [
        "0,one,000001_000050,http://a/0.mp4",
        "1,two,000051_000100,http://a/1.mp4",
        "2,three,000051_000100,http://a/2.mp4",
        ",four,000051_000100,http://a/3.mp4",
    ]
    path = tmp_path / "results_2M_train.csv"
    path.write_text("\n".join(["videoid,name,page_dir,contentUrl", *rows]))
    source = open_source("csv", path=str(path), content="videos", videos=clips)
    first, second, *others = items(source)
    assert [(item.text, item.media[0].data) for item in (first, second)] == [
        ("one", video(0)),
        ("two", video(1)),
    ]
    assert second.meta == {
        "videoid": "1",
        "page_dir": "000051_000100",
        "contentUrl": "http://a/1.mp4",
    }
    assert [item.reason for item in others] == ["missing_video", "missing_video"]
    said = "captions from the column 'name', videos from 'page_dir' and 'videoid' (a list of"
    assert source.found() == (f"{said} WebVid's)",)


def test_texts_need_no_paths(open_source, write) -> None:
    source = open_source("csv", path=write("text,image\na,none.jpg\n"), content="texts")
    (sample,) = items(source)
    assert (sample.text, sample.meta, sample.all_media) == ("a", {"image": "none.jpg"}, ())
    assert source.found() == ("texts from the column 'text'",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"videos": "clips"}, "videos: no videos are read for content: pairs"),
        ({"content": "videos", "image_column": "a"}, "image_column: no images are read for"),
        ({"content": "texts", "images": "a", "image_column": "b"}, "image_column and images: no"),
    ],
)
def test_what_is_of_no_use_is_an_error(open_source, options, said) -> None:
    with pytest.raises(ValueError, match=said):
        open_source("csv", path="list.csv", **options)


def test_a_list_with_addresses_of_videos_only_says_what_to_do(open_source, write) -> None:
    source = open_source("csv", path=write("caption,url\na,http://a/b.mp4\n"), content="videos")
    with pytest.raises(BadInput, match="let video2dataset fetch them"):
        source.shards()
