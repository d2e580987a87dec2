from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from pathlib import Path

import pytest

from djsandbox_ray.dataset import tars
from djsandbox_ray.dataset.media import Media
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Remark, Sample


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
            ("folder/a.v1.PNG", b"no text has this name"),
            ("folder/b.JPG", jpeg(0)),
            ("folder/b.txt", b"b"),
            ("folder/b.json", b'{"label": 3}'),
            ("folder/b.mp3", b"sound"),
        ]
    )
    first, second = items(open_source("webdataset", path=path))
    assert (first.source, first.reason) == ("a.tar#folder/a.v1", "missing_member")
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
        ([("x.v1.jpg", b""), ("x.mp3", b"")], "missing_member", "no .txt; it has .v1.jpg, .mp3"),
        ([("x.jpg", b""), ("x.png", b""), ("x.txt", b"")], "image_count", "jpg, png"),
        ([("x.jpg", b""), ("x.jpg", b""), ("x.txt", b"")], "duplicate_member", "jpg, jpg"),
        ([("x.jpg", b""), ("x.txt", b"\xff")], "bad_text", "utf-8"),
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


@pytest.mark.parametrize("name", ["a.tar", "cut.tar"])
def test_a_tar_that_there_is_no_room_for_is_not_called_damaged(
    open_source, write_tar, pairs, monkeypatch, name
) -> None:
    """Nor is what follows the damage of one that is cut counted by the memory there is."""
    path = Path(write_tar(members(pairs), name))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if name == "cut.tar" else data)
    (shard,) = open_source("webdataset", path=str(path)).shards()
    place = "_headers" if name == "cut.tar" else "read"

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tars._Stream, place, fail)
    with pytest.raises(MemoryError):
        list(shard.read())


def test_a_file_that_is_no_tar_is_a_broken_shard(open_source, tmp_path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    (item,) = items(open_source("webdataset", path=str(tmp_path)))
    assert (item.source, item.reason) == ("a.tar#", "broken_shard")
    (tmp_path / "b.tar").write_bytes(b"x" * 10_000_000)
    _, item = items(open_source("webdataset", path=str(tmp_path)))
    assert item.lost > 500  # small pictures, as far as can be told


# What is lost is counted


def damaged(path: str, at: int, data: bytes = b"") -> str:
    """Flip a bit of a file, or put data in."""
    content = bytearray(Path(path).read_bytes())
    if data:
        content[at:at] = data
    else:
        content[at] ^= 1
    Path(path).write_bytes(content)
    return path


def tiny(count: int, name: str = "{:06d}") -> list[tuple[str, bytes]]:
    return members_named([(b"image", f"caption {number}") for number in range(count)], name)


def members_named(pairs, name: str) -> list[tuple[str, bytes]]:
    return [
        member
        for number, (image, text) in enumerate(pairs)
        for member in (
            (f"{name.format(number)}.jpg", image),
            (f"{name.format(number)}.txt", text.encode()),
        )
    ]


@pytest.mark.parametrize("member", [0, 1], ids=["image", "text"])
@pytest.mark.parametrize("number", [0, 1, 100, 299])
def test_a_damaged_header_loses_the_rest_and_counts_it(
    open_source, write_tar, number, member
) -> None:
    path = write_tar(tiny(300))
    read = items(open_source("webdataset", path=damaged(path, (2 * number + member) * 1024 + 150)))
    assert [type(item) for item in read] == [Sample] * number + [Rejection]
    assert (read[-1].reason, read[-1].lost) == ("broken_shard", 300 - number)
    assert "the next header is damaged" in read[-1].detail or number + member == 0


def test_data_put_into_a_tar_lose_what_follows(open_source, write_tar) -> None:
    path = damaged(write_tar(tiny(300)), 100 * 2048 + 700, b"seven b")
    read = items(open_source("webdataset", path=path))
    samples = [item for item in read if isinstance(item, Sample)]
    assert len(samples) + read[-1].lost == 300
    assert len(samples) in (100, 101)


def test_two_tars_in_one_file_are_not_one(open_source, write_tar, tmp_path) -> None:
    first, second = Path(write_tar(tiny(30))), Path(write_tar(tiny(50), "b.tar"))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    read = items(open_source("webdataset", path=str(first)))
    assert len(read) == 31
    assert (read[-1].reason, read[-1].lost) == ("broken_shard", 50)
    assert "after its end mark" in read[-1].detail


def test_a_tar_that_is_cut_counts_as_much_again(open_source, write_tar) -> None:
    path = Path(write_tar(tiny(300)))
    path.write_bytes(path.read_bytes()[: 100 * 2048 + 600])
    *samples, last = items(open_source("webdataset", path=str(path)))
    assert (len(samples), last.reason) == (100, "broken_shard")
    assert last.lost >= 100


def test_a_tar_without_its_end_mark_counts_as_one(open_source, write_tar) -> None:
    path = Path(write_tar(tiny(50)))
    path.write_bytes(path.read_bytes()[: 50 * 2048])
    *samples, last = items(open_source("webdataset", path=str(path)))
    assert (len(samples), last.reason, last.lost) == (50, "broken_shard", 1)
    assert "end mark" in last.detail


def test_a_wrong_checksum_of_a_compressed_tar_is_found(open_source, write_tar, pairs) -> None:
    path = Path(write_tar(members(pairs), "a.tar.gz", "w:gz"))
    read = items(open_source("webdataset", path=damaged(str(path), path.stat().st_size - 6)))
    assert [type(item) for item in read] == [Sample] * 10 + [Rejection]
    assert (read[-1].reason, read[-1].lost) == ("broken_shard", 1)


def test_damage_in_the_middle_of_a_compressed_tar_counts_the_rest(open_source, write_tar) -> None:
    import random

    chance = random.Random(0)
    content = [
        (name, chance.randbytes(2000).hex().encode() if name.endswith("jpg") else data)
        for name, data in tiny(100)
    ]
    path = Path(write_tar(content, "a.tar.gz", "w:gz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 200] = bytes(200)
    path.write_bytes(data)
    read = items(open_source("webdataset", path=str(path)))
    samples = sum(isinstance(item, Sample) for item in read)
    lost = sum(item.lost for item in read if isinstance(item, Rejection))
    assert 0 < samples < 100
    assert 100 <= samples + lost < 250


def test_zeros_that_are_damage_are_no_end_of_a_compressed_tar(open_source, write_tar) -> None:
    """What follows them breaks, or has another length than is announced: the rest is lost."""
    tar = gzip.decompress(Path(write_tar(tiny(40), "a.tar.gz", "w:gz")).read_bytes())
    zeros = tar[: 10 * 2 * 1024] + bytes(len(tar) - 10 * 2 * 1024)
    broken = bytearray(gzip.compress(zeros[:-20_000]) + gzip.compress(tar[-20_000:], 0))
    broken[-10_000] ^= 0xFF
    other = gzip.compress(zeros + bytes(4096))
    longer = other[:-8] + zlib.crc32(tar).to_bytes(4, "little") + len(tar).to_bytes(4, "little")
    path = Path(write_tar(tiny(1), "b.tar.gz", "w:gz"))
    for data in (bytes(broken), longer):
        path.write_bytes(data)
        read = items(open_source("webdataset", path=str(path)))
        assert [type(item) for item in read] == [Sample] * 10 + [Rejection]
        assert read[-1].reason == "broken_shard"
        assert 30 <= read[-1].lost <= 45


@pytest.mark.parametrize("place", [10 * 2048, 10 * 2048 + 700, 0])
def test_zeros_in_place_of_the_rest_of_a_tar_are_lost_samples(
    open_source, write_tar, place: int
) -> None:
    """As a disk leaves a file that had its room before its content."""
    path = Path(write_tar(tiny(40)))
    path.write_bytes(path.read_bytes()[:place].ljust(40 * 2048, b"\0"))
    *samples, last = items(open_source("webdataset", path=str(path)))
    assert len(samples) == place // 2048
    assert last.reason == "broken_shard"
    assert len(samples) + last.lost >= (40 if place else 1)


@pytest.mark.parametrize("records", [0, 1])
def test_the_zeros_that_fill_a_record_up_are_no_loss(open_source, write_tar, records: int) -> None:
    path = Path(write_tar(tiny(40)))
    written = path.read_bytes().rstrip(b"\0")
    size = -(-len(written) // 512) * 512
    path.write_bytes(written.ljust(size + 1024 + records * (10_240 - 512), b"\0"))
    assert len(items(open_source("webdataset", path=str(path)))) == 40


# What belongs to a sample


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_sample_of_links_is_lost_and_counted(open_source, tmp_path, jpeg, kind: bytes) -> None:
    """What has the same content may be stored as a hard link: there are no data to read."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for key in ("a", "b", "c"):
            for ending, data in (("jpg", jpeg(0)), ("json", b"{}"), ("txt", b"one caption")):
                member = tarfile.TarInfo(f"{key}.{ending}")
                if key == "b" or (key, ending) == ("c", "json"):
                    member.type, member.linkname = kind, f"a.{ending}"
                member.size = len(data) if member.isreg() else 0
                archive.addfile(member, io.BytesIO(data))
    first, lost, third, remark = items(open_source("webdataset", path=str(tmp_path)))
    assert (first.text, third.text) == ("one caption", "one caption")
    assert (lost.source, lost.reason, lost.lost) == ("a.tar#b", "missing_member", 1)
    assert "links, which have no data: jpg, txt" in lost.detail
    assert (remark.source, "link" in remark.detail) == ("a.tar#c", True)


def test_marks_of_the_byte_order_are_no_part_of_texts(open_source, write_tar, jpeg) -> None:
    content = [("a.jpg", jpeg(0)), ("a.txt", "a caption".encode("utf-8-sig"))]
    content.append(("a.json", '{"label": 1}'.encode("utf-8-sig")))
    (sample,) = items(open_source("webdataset", path=write_tar(content)))
    assert (sample.text, sample.meta) == ("a caption", {"label": 1})


def test_dots_in_names_are_no_end_of_the_key(open_source, write_tar, jpeg) -> None:
    content = members_named([(jpeg(0), f"text {n}") for n in range(150)], "s/scan_v1.5_{:06d}")
    read = items(open_source("webdataset", path=write_tar(content)))
    assert [item.text for item in read] == [f"text {n}" for n in range(150)]
    assert read[7].source == "a.tar#s/scan_v1.5_000007"


def test_an_incomplete_pair_among_dotted_names_is_one_rejection(open_source, write_tar) -> None:
    content = members_named([(b"image", f"text {n}") for n in range(20)], "v1.{}")
    del content[11]  # the text of number 5
    read = items(open_source("webdataset", path=write_tar(content)))
    bad = [item for item in read if isinstance(item, Rejection)]
    assert [(item.source, item.reason, item.lost) for item in bad] == [
        ("a.tar#v1.5", "missing_member", 1)
    ]
    assert len(read) == 20


@pytest.mark.parametrize(
    "order", [("jpg", "seg.png", "txt"), ("depth.png", "edge.png", "jpg", "seg.png", "txt")]
)
def test_extensions_of_two_parts_belong_to_the_sample(open_source, write_tar, order) -> None:
    content = [(f"{key}.{end}", b"data") for key in ("a", "v1.5_b", "c") for end in order]
    read = items(open_source("webdataset", path=write_tar(content)))
    assert [item.source for item in read] == ["a.tar#a", "a.tar#v1.5_b", "a.tar#c"]
    assert all(isinstance(item, Sample) for item in read)


def test_a_key_with_many_images_is_still_one_sample(open_source, write_tar) -> None:
    frames = [(f"a.{number:03d}.png", b"frame") for number in range(200)]
    pair = [("a.jpg", b"image"), ("a.txt", b"text")]
    for content in (frames + pair, pair + frames):
        (sample,) = items(open_source("webdataset", path=write_tar(content)))
        assert isinstance(sample, Sample)


def test_pairs_that_all_have_one_name_are_counted(open_source, write_tar) -> None:
    read = items(open_source("webdataset", path=write_tar(tiny(300, "image"))))
    assert all(isinstance(item, Rejection) for item in read)
    assert {item.reason for item in read} == {"duplicate_member"}
    assert sum(item.lost for item in read) == 300


def test_images_first_and_texts_behind_are_counted_in_little_time(open_source, write_tar) -> None:
    pairs = members_named([(b"image", "text")] * 3000, "v1.{:06d}")
    path = write_tar([*pairs[::2], *pairs[1::2]])
    read = items(open_source("webdataset", path=path))
    assert {item.reason for item in read} == {"missing_member"}
    assert sum(item.lost for item in read) == 3000


def test_side_data_of_all_are_no_sample(open_source, write_tar) -> None:
    content = [("v1.json", b"{}"), *members_named([(b"i", "t")] * 3, "v1.{}")]
    *samples, remark = items(open_source("webdataset", path=write_tar(content)))
    assert [item.source for item in samples] == [f"a.tar#v1.{n}" for n in range(3)]
    assert (remark.count, remark.source) == (1, "a.tar#v1.json")


def test_an_extension_of_two_parts_can_be_asked_for(open_source, write_tar) -> None:
    content = [("a.jpg", b"i"), ("a.long.txt", b"long"), ("a.txt", b"short")]
    (sample,) = items(open_source("webdataset", path=write_tar(content), text="long.txt"))
    assert sample.text == "long"


def test_a_member_that_links_to_itself_is_no_second_one(open_source, write_tar, tmp_path) -> None:
    """As GNU's tar has files that it is given twice."""
    write_tar(tiny(3))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in tiny(3) * 2:
            member = tarfile.TarInfo(name)
            if name in archive.getnames():
                member.type, member.linkname = tarfile.LNKTYPE, name
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    *samples, remark = items(open_source("webdataset", path=str(tmp_path / "a.tar")))
    assert [type(one) for one in samples] == [Sample] * 3
    assert "names of members before them" in remark.detail


# What is no sample is passed over, and said


def test_what_is_no_sample_is_passed_over_and_counted(open_source, tmp_path) -> None:
    others = [
        ".DS_Store",
        "._a.jpg",
        "__MACOSX/._a.jpg",
        "PaxHeaders.123/a.jpg",
        "README",
        "README.txt",
        "notes.md",
        ".ipynb_checkpoints/a.jpg",
        "Thumbs.db",
    ]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.jpg", *others, "b.jpg", "b.txt"):
            if name == "a.jpg":
                folder = tarfile.TarInfo("folder")
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
                continue
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"data"))
    sample, remark = items(open_source("webdataset", path=str(tmp_path)))
    assert isinstance(sample, Sample)
    assert isinstance(remark, Remark)
    assert (remark.what, remark.count) == ("members passed over", len(others) + 1)
    assert remark.source == "a.tar#folder"
    for said in ("hidden", "left by a tool", "without an extension", "folders"):
        assert said in remark.detail


def test_names_that_are_no_text_do_no_harm(open_source, write_tar, jpeg) -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    (sample,) = items(
        open_source("webdataset", path=write_tar([(f"{name}.jpg", jpeg(0)), (f"{name}.txt", b"t")]))
    )
    assert sample.text == "t"


@pytest.mark.parametrize(
    ("meta", "kept", "remarks"),
    [
        (b'{"a": NaN, "b": [Infinity, 1], "c": 1e999}', {"a": None, "b": [None, 1], "c": None}, 0),
        (b"null", {}, 0),
        (b"[1]", {}, 1),
        (b"{", {}, 1),
        (b"\xff", {}, 1),
        (b"[" * 100_000, {}, 1),
        (b'{"a": ' * 900 + b"1" + b"}" * 900, None, 0),
        (b'{"\\ud800": "\\udc00"}', {"\\ud800": "\\udc00"}, 0),
    ],
)
def test_side_data_never_cost_a_pair(open_source, write_tar, jpeg, meta, kept, remarks) -> None:
    content = [("a.jpg", jpeg(0)), ("a.json", meta), ("a.txt", b"text")]
    path = write_tar(content)
    sample, *others = items(open_source("webdataset", path=path))
    assert isinstance(sample, Sample)
    if kept is not None:
        assert sample.meta == kept
        assert [item.what for item in others] == [
            "samples without some of their meta data"
        ] * remarks


def test_what_img2dataset_could_not_fetch_is_rejected(open_source, write_tar, jpeg) -> None:
    members = []
    for number, status in enumerate(["success", "failed_to_download"]):
        meta = {"key": str(number), "url": "u", "status": status, "error_message": "404"}
        members += [
            (f"{number}.jpg", jpeg(number)),
            (f"{number}.txt", b"caption"),
            (f"{number}.json", json.dumps(meta).encode()),
        ]
    (shard,) = open_source("webdataset", path=write_tar(members)).shards()
    good, bad = shard.read()
    assert good.meta["url"] == "u"
    assert (bad.source, bad.reason) == ("a.tar#1", "not_downloaded")


def test_videos_are_read_by_their_endings(open_source, write_tar, video, jpeg) -> None:
    failed = {"key": "c", "url": "http://a/c", "status": "failed_to_download"}
    fetched = {**failed, "key": "a", "status": "success"}
    path = write_tar(
        [
            ("a.MP4", video(0)),
            ("a.jpg", jpeg(0)),
            ("a.txt", b"one"),
            ("a.json", json.dumps({**fetched, "error_message": None}).encode()),
            ("b.webm", video(1, "webm")),
            ("b.txt", b"two"),
            ("c.txt", b"three"),
            ("c.json", json.dumps({**failed, "error_message": "HTTP 404"}).encode()),
            ("d.mp4", video(0)),
            ("d.mkv", video(0)),
            ("d.txt", b"four"),
            ("e.jpg", jpeg(0)),
            ("e.txt", b"five"),
            ("f.mp4", b"no video"),
            ("f.txt", b"six"),
        ]
    )
    options = {"path": path, "content": "videos"}
    first, second, *others = items_of(open_source("webdataset", **options))
    assert (first.text, first.all_media) == ("one", (Media("video", video(0)),))
    assert first.meta["key"] == "a"
    assert (second.text, second.all_media) == ("two", (Media("video", video(1, "webm")),))
    assert [(item.source, item.reason) for item in others if isinstance(item, Rejection)] == [
        ("a.tar#c", "not_downloaded"),
        ("a.tar#d", "media_count"),
        ("a.tar#e", "missing_member"),
        ("a.tar#f", "bad_video"),
    ]
    assert "no video (mp4, m4v," in others[2].detail
    options["video"] = ["webm"]
    samples = [
        item for item in items_of(open_source("webdataset", **options)) if isinstance(item, Sample)
    ]
    assert [item.text for item in samples] == ["two"]


def test_texts_are_read_whatever_lies_beside(open_source, write_tar, jpeg) -> None:
    failed = {"key": "b", "url": "u", "status": "failed_to_download", "error_message": "404"}
    path = write_tar(
        [
            ("README.txt", b"about"),
            ("a.jpg", jpeg(0)),
            ("a.txt", b"one"),
            ("b.txt", b"two"),
            ("b.json", json.dumps(failed).encode()),
            ("c.jpg", jpeg(0)),
            ("scan.v1.txt", b"three"),
        ]
    )
    found = items_of(open_source("webdataset", path=path, content="texts"))
    samples = [item for item in found if isinstance(item, Sample)]
    assert [(item.text, item.all_media) for item in samples] == [
        ("one", ()),
        ("two", ()),
        ("three", ()),
    ]
    (remark,) = [item for item in found if isinstance(item, Remark)]
    assert (remark.count, remark.detail) == (2, "1 about the data, 1 of another kind")


def items_of(source) -> list[Sample | Rejection | Remark]:
    """Read as an ingest does, with its checks."""
    return [item for shard in prepared(source) for item in shard.read()]
