from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from djsandbox_ray.dataset.faults import META_LEFT_OUT, as_json
from djsandbox_ray.dataset.media import Media
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.errors import BadInput


def items(source) -> list[Sample | Rejection]:
    return [item for shard in source.shards() for item in shard.read()]


def test_rows_come_in_order_over_files_and_row_groups(open_source, write_parquet, pairs) -> None:
    write_parquet(pairs[:7], "data/x/b.parquet", row_group_size=3)
    path = write_parquet(pairs[7:], "data/a.parquet")
    source = open_source("parquet", path=str(Path(path).parent), meta_columns=["label"])
    read = items(source)
    assert [(item.image, item.text) for item in read] == pairs[7:] + pairs[:7]
    assert [item.source for item in read][2:5] == [
        "a.parquet#2",
        "x/b.parquet#0",
        "x/b.parquet#1",
    ]
    assert [item.meta for item in read][:4] == [{"label": i} for i in (0, 1, 2, 0)]


def test_row_groups_are_joined_up_to_a_fixed_size_and_never_split(open_source, tmp_path) -> None:
    path, schema = tmp_path / "a.parquet", pa.schema({"text": pa.string()})

    def shards(groups: list[int]) -> list[int]:
        with pq.ParquetWriter(path, schema) as writer:
            for rows in groups:
                writer.write_table(pa.table({"text": ["x"] * rows}))
        source = open_source("parquet", path=str(path), content="texts")
        return [shard.rows for shard in source.shards()]

    assert shards([1000, 1000, 1000, 5000, 10, 2038, 1]) == [2000, 1000, 5000, 2048, 1]
    assert shards([]) == []


def test_shards_know_their_rows(open_source, write_parquet, pairs, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.parquet._SHARD_ROWS", 4)
    source = open_source("parquet", path=write_parquet(pairs, row_group_size=2))
    shards = source.shards()
    assert [(shard.name, shard.rows) for shard in shards] == [
        ("a.parquet#0", 4),
        ("a.parquet#4", 4),
        ("a.parquet#8", 2),
    ]
    assert [item.text for item in items(source)] == [text for _, text in pairs]


def test_hugging_face_structs_and_dictionary_text(open_source, tmp_path, pairs) -> None:
    table = pa.table(
        {
            "picture": pa.array([{"bytes": image, "path": None} for image, _ in pairs]),
            "caption": pa.array([text for _, text in pairs]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "hf.parquet")
    path = str(tmp_path / "hf.parquet")
    read = items(open_source("parquet", path=path, image="picture", text="caption"))
    assert [(item.image, item.text) for item in read] == pairs


def test_nulls_and_bad_unicode_are_rejected_one_by_one(open_source, tmp_path, jpeg) -> None:
    image = jpeg(0)
    table = pa.table(
        {
            "image": pa.array([image, None, image, image], pa.binary()),
            "text": pa.array([b"good", b"no image", None, b"\xff\xfe"], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    read = items(open_source("parquet", path=str(tmp_path / "a.parquet")))
    assert isinstance(read[0], Sample)
    assert [(item.source, item.reason) for item in read[1:]] == [
        ("a.parquet#1", "missing_image"),
        ("a.parquet#2", "bad_text"),
        ("a.parquet#3", "bad_text"),
    ]


def test_a_file_that_is_not_parquet_is_a_broken_shard(open_source, tmp_path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but no more")
    (item,) = items(open_source("parquet", path=str(tmp_path)))
    assert (item.source, item.reason) == ("a.parquet#0", "broken_shard")


def test_a_file_without_a_footer_counts_by_its_size(open_source, write_parquet, pairs) -> None:
    path = Path(write_parquet(pairs, "data/b.parquet"))
    write_parquet(pairs, "data/a.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    read = items(open_source("parquet", path=str(path.parent)))
    assert [type(item) for item in read] == [Sample] * 10 + [Rejection]
    assert 8 <= read[-1].lost <= 12


def test_no_damage_of_a_footer_ends_the_process(open_source, tmp_path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"x"] * 4, "text": ["a", "b", "c", "d"]}), path)
    data = path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    for place in range(len(data) - 8 - size, len(data) - 8):
        for bit in (1, 4, 8, 128):
            changed = bytes([data[place] ^ bit])
            path.write_bytes(data[:place] + changed + data[place + 1 :])
            try:
                shards = open_source("parquet", path=str(path)).shards()
            except BadInput:
                continue
            assert sum(shard.rows for shard in shards) >= 1


def test_damage_inside_loses_a_row_group_and_says_so(open_source, write_parquet, pairs) -> None:
    path = Path(write_parquet(pairs, row_group_size=4, compression="none", use_dictionary=False))
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data[column.data_page_offset : column.data_page_offset + 40] = bytes(40)
    path.write_bytes(data)
    read = items(open_source("parquet", path=str(path)))
    assert [type(item) for item in read] == [Sample] * 4 + [Rejection] + [Sample] * 2
    assert (read[4].source, read[4].reason, read[4].lost) == ("a.parquet#4", "broken_shard", 4)
    assert "rows 4 to 7" in read[4].detail


def test_a_file_that_vanishes_is_an_error_and_not_a_rejection(
    open_source, write_parquet, pairs
) -> None:
    path = write_parquet(pairs)
    (shard,) = open_source("parquet", path=path).shards()
    Path(path).unlink()
    with pytest.raises(FileNotFoundError):
        list(shard.read())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "img"}, "no column 'img' .it has image, text, label"),
        ({"image": "label"}, "image column 'label' is of type int64"),
        ({"text": "label"}, "text column 'label' is of type int64, not string"),
        ({"meta_columns": ["lable"]}, "no column 'lable'"),
        ({"meta_columns": ["image"]}, "'image' holds bytes"),
    ],
)
def test_wrong_columns_are_said_before_anything_is_read(
    open_source, write_parquet, pairs, options, message
) -> None:
    with pytest.raises(BadInput, match=message):
        open_source("parquet", path=write_parquet(pairs), **options).shards()


def test_meta_values_become_plain_json() -> None:
    value = {"day": date(2026, 1, 2), "d": Decimal("1.5"), "x": [float("nan"), 1.0, None, True]}
    assert as_json(value) == {"day": "2026-01-02", "d": "1.5", "x": [None, 1.0, None, True]}
    with pytest.raises(TypeError, match="bytes"):
        as_json(b"raw")


def test_a_column_name_twice_is_refused(open_source, tmp_path) -> None:
    table = pa.table([[b"x"], ["a"], ["b"]], names=["image", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="2 columns 'text'"):
        open_source("parquet", path=str(tmp_path)).shards()


def test_values_beyond_python_are_left_out_and_said(open_source, tmp_path, jpeg) -> None:
    far = pa.array([3_000_000_000, 1], pa.int64())
    table = pa.table(
        {
            "image": pa.array([jpeg(0)] * 2),
            "text": ["a", "b"],
            "day": pa.array([2_000_000_000, 1], pa.int32()).cast(pa.date32()),
            "when": pa.array([2**62, 1], pa.int64()).cast(pa.timestamp("us")),
            "lasts": far.cast(pa.duration("s")),
            "longer": pa.array([2**62, 1], pa.int64()).cast(pa.duration("s")),
            "exact": pa.array(["1.5", "2.5"]).cast(pa.decimal128(38, 10)),
            "raw": pa.array([[b"x"], []]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", store_schema=True)
    columns = ["day", "when", "lasts", "longer", "exact", "raw"]
    first, remark, second = items(
        open_source("parquet", path=str(tmp_path / "a.parquet"), meta_columns=columns)
    )
    assert (first.meta["day"], first.meta["when"], first.meta["longer"]) == (None, None, None)
    assert (first.meta["lasts"], first.meta["raw"]) == (3e9, None)
    assert (remark.source, remark.what) == ("a.parquet#0", META_LEFT_OUT)
    assert "'day'" in remark.detail
    assert second.meta["day"] == "1970-01-02"
    assert second.meta["exact"] == "2.5000000000"


def test_images_without_bytes_are_read_by_their_paths(open_source, tmp_path, pairs) -> None:
    (tmp_path / "folder").mkdir()
    for number, (image, _) in enumerate(pairs):
        (tmp_path / "folder" / f"{number}.jpg").write_bytes(image)
    paths = [f"folder/{number}.jpg" for number in range(9)] + [str(tmp_path / "folder" / "9.jpg")]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": None, "path": path} for path in [*paths, "gone.jpg", "../out.jpg", None]]
    texts = [text for _, text in pairs] + ["x", "y", "z"]
    table = pa.table({"image": pa.array(images, kind), "text": texts})
    pq.write_table(table, tmp_path / "a.parquet")
    read = items(open_source("parquet", path=str(tmp_path / "a.parquet")))
    assert [(item.image, item.text) for item in read[:10]] == pairs
    assert [item.reason for item in read[10:]] == [
        "missing_image",
        "escaping_path",
        "missing_image",
    ]
    assert "there are no bytes, and 'gone.jpg': there is no such file" in read[10].detail


PATHS = [{"path": "0.jpg"}, {"path": "gone.jpg"}]
NO_BYTES = [{"bytes": None, **one} for one in PATHS]


@pytest.mark.parametrize(
    "images",
    [
        pa.array(NO_BYTES),  # as Arrow takes it from Python: the type of the bytes is null, too
        pa.array(PATHS),
        pa.array(["0.jpg", "gone.jpg"]).dictionary_encode(),
    ],
    ids=["null", "path", "dictionary"],
)
def test_columns_of_paths_alone_are_read(open_source, tmp_path, jpeg, images: pa.Array) -> None:
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    pq.write_table(pa.table({"image": images, "text": ["a", "b"]}), tmp_path / "a.parquet")
    first, second = items(open_source("parquet", path=str(tmp_path)))
    assert (first.image, first.text) == (jpeg(0), "a")
    assert (second.source, second.reason) == ("a.parquet#1", "missing_image")


def test_a_file_of_nulls_alone_costs_its_rows(open_source, tmp_path, jpeg) -> None:
    """Who writes a table in parts may write one in which nothing is known."""
    rows = {"image": [jpeg(0), jpeg(1)], "text": ["a", "b"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    pq.write_table(pa.table({**rows, "text": pa.nulls(2)}), tmp_path / "b.parquet")
    pq.write_table(pa.table({**rows, "image": pa.nulls(2)}), tmp_path / "c.parquet")
    read = items(open_source("parquet", path=str(tmp_path)))
    assert [item.text for item in read[:2]] == ["a", "b"]
    assert [(item.source, item.reason) for item in read[2:]] == [
        ("b.parquet#0", "bad_text"),
        ("b.parquet#1", "bad_text"),
        ("c.parquet#0", "missing_image"),
        ("c.parquet#1", "missing_image"),
    ]


def test_images_of_a_dictionary_are_read(open_source, tmp_path, jpeg) -> None:
    images = pa.array([jpeg(0), jpeg(1), jpeg(0)]).dictionary_encode()
    pq.write_table(pa.table({"image": images, "text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    read = items(open_source("parquet", path=str(tmp_path)))
    assert [item.image for item in read] == [jpeg(0), jpeg(1), jpeg(0)]


def named(label: Any, **other: Any) -> bytes:
    """Return what Hugging Face's libraries write of a column ``label``."""
    features = {"image": {"_type": "Image"}, "label": label, **other}
    return json.dumps({"info": {"features": features}, "fingerprint": "0"}).encode()


def class_label(*names: Any) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


def write_named(path: str, written: bytes, kind: pa.DataType | None = None) -> str:
    """Rewrite a file with what is said of its columns, and labels of another type."""
    table = pq.read_table(path)
    if kind is not None:
        at = table.schema.get_field_index("label")
        table = table.set_column(at, "label", table["label"].cast(kind))
    pq.write_table(table.replace_schema_metadata({"huggingface": written}), path)
    return path


def class_names(open_source, path: str, *columns: str) -> tuple[str, ...]:
    source = open_source("parquet", path=path, meta_columns=columns or ["label"])
    source.shards()
    return source.class_names("label")


def test_the_names_of_classes_are_in_the_schema(open_source, write_parquet, pairs) -> None:
    path = write_named(write_parquet(pairs), named(class_label("cat", "dög")))
    assert class_names(open_source, path) == ("cat", "dög")
    write_named(write_parquet(pairs, "data/b.parquet"), named(class_label("cat", "dög"), text={}))
    assert class_names(open_source, str(Path(path).parent)) == ("cat", "dög"), "all files agree"
    (Path(path).parent / "c.parquet").write_bytes(b"broken")
    assert class_names(open_source, str(Path(path).parent)) == ("cat", "dög")


def test_names_as_the_library_itself_writes_them(open_source, tmp_path, pairs) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        image=datasets.Value("binary"),
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["cat", "dog"]),
    )
    table = pa.table(
        {
            "image": [image for image, _ in pairs],
            "text": [text for _, text in pairs],
            "label": [number % 2 for number in range(len(pairs))],
        },
        schema=features.arrow_schema,
    )
    datasets.Dataset(table).to_parquet(str(tmp_path / "a.parquet"))
    assert class_names(open_source, str(tmp_path / "a.parquet")) == ("cat", "dog")


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (b"", None),
        (b"\xff{", None),
        (b"[" * 100_000, None),
        (b"{}", None),
        (b'{"info": {"features": []}}', None),
        (named([class_label("cat", "dog")]), None),
        (named({"names": ["cat", "dog"], "_type": "Value"}), None),
        (named({"_type": "ClassLabel"}), None),
        (named({"names": "cat", "_type": "ClassLabel"}), None),
        (named(class_label("cat")), None),
        (named(class_label("cat", " ")), None),
        (named(class_label("cat", "cat")), None),
        (named(class_label("cat", 1)), None),
        (named(class_label("cat", "dog")), pa.string()),
        (named(class_label("cat", "dog")), pa.float64()),
    ],
)
def test_what_names_no_numbers_does_not_count(
    open_source, write_parquet, pairs, written, kind
) -> None:
    path = write_named(write_parquet(pairs), written, kind)
    assert class_names(open_source, path) == ()


def test_a_name_that_is_no_text_is_spelled(open_source, write_parquet, pairs) -> None:
    path = write_named(write_parquet(pairs), named(class_label("\ud800", "dog")))
    assert class_names(open_source, path) == ("\\ud800", "dog")


def test_a_column_that_is_not_kept_names_nothing(open_source, write_parquet, pairs) -> None:
    path = write_named(write_parquet(pairs), named(class_label("cat", "dog")))
    assert class_names(open_source, path, "text") == ()
    assert open_source("parquet", path=path).class_names("label") == ()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (class_label("cat", "fox"), "x/a.parquet calls the number 1 'dog', x/b.parquet 'fox'"),
        (class_label("cat", "dog", "fox"), "the number 2 nothing, x/b.parquet 'fox'"),
        ({"_type": "Value"}, "x/a.parquet calls the number 0 'cat', x/b.parquet nothing"),
    ],
)
def test_files_that_name_classes_differently_are_both_said(
    open_source, write_parquet, pairs, other, said
) -> None:
    """Only where somebody asks for the names: with names of one's own, the numbers are enough."""
    write_named(write_parquet(pairs, "data/x/b.parquet"), named(other))
    write_named(write_parquet(pairs, "data/x/a.parquet"), named(class_label("cat", "dog")))
    path = Path(write_parquet(pairs, "data/c.parquet")).parent
    write_named(str(path / "c.parquet"), named(class_label("cat", "dog")))
    (path / "c.parquet").rename(path / "x" / "c.parquet")
    (path / "y.parquet").write_bytes(b"broken")
    source = open_source("parquet", path=str(path), meta_columns=["label"])
    assert len(items(source)) == 31
    with pytest.raises(BadInput, match="files name its classes differently") as error:
        source.class_names("label")
    assert said in str(error.value)
    assert "give the evaluator 'classes'" in str(error.value)


@pytest.mark.shared_data
def test_openmoji_with_alpha(open_source, shared_data: Path) -> None:
    from djsandbox_ray.dataset.images import decode

    path = str(shared_data / "openmoji_captions")
    source = open_source("parquet", path=path, meta_columns=["tags", "group"], rows=[0, 50])
    (shard, *_) = source.shards()
    samples = [item for _, item in zip(range(50), shard.read(), strict=False)]
    assert all(decode(sample.image).getpixel((0, 0)) == (255, 255, 255) for sample in samples)
    assert isinstance(samples[0].meta["tags"], list)


@pytest.mark.shared_data
def test_the_three_layouts_of_cifar10_agree(open_source, shared_data: Path) -> None:
    pack = shared_data / "cifar10_captions"
    parquet = open_source(
        "parquet", path=str(pack / "train.parquet"), meta_columns=["label", "class_name"]
    )
    tars = open_source("webdataset", path=str(pack / "wds" / "*.tar"))
    lines = open_source("jsonl", path=str(pack / "dj_jsonl" / "dataset.jsonl"))
    assert sum(shard.rows for shard in parquet.shards()) == 12_000
    by_type = [
        [(item.image, item.text, item.meta["label"]) for item in items(source)]
        for source in (parquet, tars, lines)
    ]
    assert [len(some) for some in by_type] == [12_000, 4_000, 2_000]
    assert by_type[0][:4_000] == by_type[1]
    assert by_type[1][:2_000] == by_type[2]


def img2dataset(path, pairs, **columns) -> str:
    """Write a file as img2dataset does; the last address could not be fetched."""
    count = len(pairs)
    table = {
        "key": [f"{number:09}" for number in range(count)],
        "url": [f"http://a/{number}" for number in range(count)],
        "caption": [text for _, text in pairs],
        "status": ["success"] * (count - 1) + ["failed_to_download"],
        "error_message": [None] * (count - 1) + ["HTTP Error 404: Not Found"],
        "jpg": [*(image for image, _ in pairs[:-1]), None],
        **columns,
    }
    pq.write_table(pa.table(table), path)
    return str(path)


def test_what_img2dataset_could_not_fetch_is_rejected(open_source, pairs, tmp_path) -> None:
    source = open_source("parquet", path=img2dataset(tmp_path / "a.parquet", pairs))
    *read, last = [item for shard in source.shards() for item in shard.read()]
    assert [(item.image, item.text) for item in read] == pairs[:-1]
    assert read[1].meta == {"key": "000000001", "url": "http://a/1"}
    assert last.reason == "not_downloaded"
    assert last.detail == "img2dataset says failed_to_download: 'HTTP Error 404: Not Found'"
    assert source.found() == (
        "captions from the column 'caption', images from 'jpg' (written by img2dataset)",
    )


def test_a_configuration_that_names_every_field_finds_columns_as_before(
    open_source, pairs, tmp_path
) -> None:
    table = {"jpg": [image for image, _ in pairs[:2]], "caption": ["one", "two"]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    source = open_source("parquet", path=str(tmp_path))
    assert source.shards()
    again = open_source(**source.config.model_dump(mode="json"))
    assert again.shards()
    assert again.found() == source.found() != ()


def test_columns_that_could_both_be_meant_are_an_error(open_source, pairs, tmp_path) -> None:
    path = img2dataset(tmp_path / "a.parquet", pairs, title=["a title"] * len(pairs))
    with pytest.raises(BadInput, match="'caption' and 'title' may hold the texts: text chooses"):
        open_source("parquet", path=path).shards()
    (first, *_) = open_source("parquet", path=path, text="title").shards()[0].read()
    assert first.text == "a title"


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
def test_videos_are_read_as_bytes_structs_and_paths(open_source, tmp_path, video, form) -> None:
    (tmp_path / "beside.mp4").write_bytes(video(1))
    columns = {
        "bytes": [video(0), video(1), None],
        "struct": [
            {"bytes": video(0), "path": None},
            {"bytes": None, "path": "beside.mp4"},
            {"bytes": None, "path": "none.mp4"},
        ],
        "path": ["beside.mp4", "beside.mp4", "../beside.mp4"],
    }
    table = {"title": ["a", "b", "c"], "clip": columns[form], "n": [1, 2, 3]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    options = {"path": str(tmp_path / "a.parquet"), "content": "videos", "meta_columns": ["n"]}
    source = open_source("parquet", **options)
    first, second, third = (item for shard in prepared(source) for item in shard.read())
    assert [first.all_media, second.all_media] == [
        (Media("video", video(1 if form == "path" else 0)),),
        (Media("video", video(1)),),
    ]
    assert (first.text, first.meta, first.image) == ("a", {"n": 1}, b"")
    assert third.reason == ("escaping_path" if form == "path" else "missing_video")
    assert source.found() == ("captions from the column 'title', videos from 'clip'",)


def test_texts_are_read_without_any_media(open_source, tmp_path) -> None:
    pq.write_table(pa.table({"title": ["a", None], "image": [1, 2]}), tmp_path / "a.parquet")
    source = open_source("parquet", path=str(tmp_path / "a.parquet"), content="texts")
    first, second = (item for shard in prepared(source) for item in shard.read())
    assert (first.text, first.all_media, second.reason) == ("a", (), "bad_text")
    assert source.found() == ("texts from the column 'title'",)


def test_paths_of_images_are_read_too(open_source, tmp_path, jpeg) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    rows = {"text": ["a", "b"], "image": ["1.jpg", "2.jpg"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    first, second = items(open_source("parquet", path=str(tmp_path / "a.parquet")))
    assert first.image == jpeg(1)
    assert second.reason == "missing_image"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["a"], "video": [1]}, "video column 'video' is of type int64"),
        ({"text": ["a"], "image": [b"x"]}, "no column of a usual name for videos"),
        ({"text": ["a"], "clip": [b"x"], "mp4": [b"x"]}, "'clip' and 'mp4' may hold the videos"),
        ({"name": ["a"], "video": [b"x"]}, "no column of a usual name for texts"),
        ({"text": ["a"], "video_url": ["http://a/1"]}, "let video2dataset fetch them"),
    ],
)
def test_columns_without_videos_are_an_error(open_source, tmp_path, columns, said) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=said):
        open_source("parquet", path=str(tmp_path / "a.parquet"), content="videos").shards()
