from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from djsandbox_ray.dataset.complete import complete_dataset, home_of
from djsandbox_ray.dataset.ingest import ingest, outcome
from djsandbox_ray.dataset.media import VideosConfig
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.identity import sample_digest
from djsandbox_ray.records import Cost
from djsandbox_ray.storage.store import Storage

pytestmark = pytest.mark.usefixtures("ray_cluster")


def contents(storage: Storage, dataset) -> dict[str, list]:
    table = SampleTable(storage.uri(dataset.table))
    return table.scan(
        0, table.rows, ["row_id", "image", "text", "source", "digest", "meta"]
    ).to_pydict()


def test_row_ids_and_id_do_not_depend_on_workers_or_blocks(
    open_source, tmp_path, monkeypatch
) -> None:
    def run(name: str, workers: int | None, blocks: int):
        monkeypatch.setattr("djsandbox_ray.dataset.tasks._MAX_BLOCKS", blocks)
        storage = Storage(str(tmp_path / name))
        source = open_source(
            "shapes", samples=2600, defects={"mismatched": 0.4}, shuffle_captions={"fraction": 0.2}
        )
        dataset = ingest(source, storage, max_rejected=0, workers=workers)
        return dataset, contents(storage, dataset)

    first, one = run("one", 1, 1)
    second, two = run("two", 2, 6)
    third, three = run("three", None, 3)
    assert first == second == third
    assert one == two == three
    assert one["row_id"] == list(range(2600))
    assert one["source"] == [f"shapes#{row}" for row in range(2600)]


def test_columns_hold_the_samples(open_source, storage, write_tar, pairs) -> None:
    members = [
        member
        for key, (image, text) in enumerate(pairs)
        for member in (
            (f"k{key}.jpg", image),
            (f"k{key}.txt", text.encode()),
            (f"k{key}.json", b'{"label": %d}' % key),
        )
    ]
    calls: list[tuple[int, int]] = []
    dataset = ingest(
        open_source("webdataset", path=write_tar(members)),
        storage,
        max_rejected=0,
        progress=lambda done, total: calls.append((done, total)),
    )
    read = contents(storage, dataset)
    assert list(zip(read["image"], read["text"], strict=True)) == pairs
    assert read["digest"] == [sample_digest(*pair) for pair in pairs]
    assert [json.loads(meta) for meta in read["meta"]] == [{"label": key} for key in range(10)]
    assert calls == [(1, 1)]


def test_bad_samples_are_set_aside_with_reasons(
    open_source, storage, write_parquet, pairs, tmp_path
) -> None:
    image = pairs[0][0]
    bad = [
        (image[: len(image) // 2], "truncated"),
        (b"junk", "corrupt"),
        (image, "  "),
        (None, "x"),
    ]
    path = write_parquet([*pairs[:4], *bad, *pairs[4:]], row_group_size=3)
    (tmp_path / "data" / "b.parquet").write_bytes(b"broken")
    source = open_source("parquet", path=str(Path(path).parent))
    dataset = ingest(source, storage, max_rejected=0.4)
    assert (dataset.rows, dataset.rejected) == (10, 5)
    read = contents(storage, dataset)
    assert read["row_id"] == list(range(10))
    assert read["text"] == [text for _, text in pairs]
    home = f"datasets/{dataset.id}"
    rejected = storage.read_table(f"{home}/rejected.parquet").to_pylist()
    assert [(row["source"], row["reason"]) for row in rejected] == [
        ("a.parquet#4", "bad_image"),
        ("a.parquet#5", "bad_image"),
        ("a.parquet#6", "empty_caption"),
        ("a.parquet#7", "missing_image"),
        ("b.parquet#0", "broken_shard"),
    ]
    marker = storage.read_json(f"{home}/dataset.json")
    assert marker["reasons"] == {
        "bad_image": 2,
        "empty_caption": 1,
        "missing_image": 1,
        "broken_shard": 1,
    }
    assert storage.names("datasets") == [dataset.id]
    said = outcome(storage, dataset)
    assert said.startswith("10 samples, 5 rejected (2 bad_image, ")
    assert "first bad_image: a.parquet#4: cannot be decoded" in said


def test_the_rest_of_a_tar_counts_as_what_it_holds(open_source, storage, write_tar, pairs) -> None:
    members = [
        member
        for key in range(100)
        for member in ((f"k{key}.jpg", pairs[0][0]), (f"k{key}.txt", b"text"))
    ]
    good = Path(write_tar([("README", b""), *members], "data/a.tar"))
    bad = Path(write_tar(members, "data/b.tar"))
    data = bytearray(bad.read_bytes())
    data[data.index(b"k70.jpg") + 150] ^= 1
    bad.write_bytes(data)
    source = open_source("webdataset", path=str(good.parent))
    with pytest.raises(BadInput, match=r"30 of 200 samples .* 30 broken_shard; first: b\.tar#k69"):
        ingest(source, storage, max_rejected=0.1)
    dataset = ingest(source, storage, max_rejected=0.15)
    assert (dataset.rows, dataset.rejected) == (170, 30)
    rejected = storage.read_table(f"datasets/{dataset.id}/rejected.parquet").to_pylist()
    assert [(row["source"], row["reason"], row["lost"]) for row in rejected] == [
        ("a.tar#README", "members passed over", 0),
        ("b.tar#k69", "broken_shard", 30),
    ]
    assert outcome(storage, dataset).endswith(
        "1 members passed over; first: a.tar#README: 1 without an extension"
    )


def test_what_no_file_can_hold_is_spelled(open_source, storage, write_jsonl, jpeg) -> None:
    lines = [
        {"text": "t", "images": ["a.jpg"], "k\ud800": "\udfff"},
        {"text": "t", "images": ["\ud83d.jpg"]},
        {"text": "\ud83d", "images": ["a.jpg"]},
        {"text": "t", "images": ["x" * 100_000]},
    ]
    path = write_jsonl(lines, {"a.jpg": jpeg(0)})
    dataset = ingest(open_source("jsonl", path=path), storage, max_rejected=1)
    assert (dataset.rows, dataset.rejected) == (1, 3)


def test_what_ends_a_shard_is_said_in_one_sentence(
    open_source, storage, write_parquet, pairs
) -> None:
    path = write_parquet(pairs)
    source = open_source("parquet", path=path)
    shards = source.shards()
    Path(path).unlink()
    source.shards = lambda: shards
    with pytest.raises(SandboxError) as error:
        ingest(source, storage, max_rejected=1)
    assert str(error.value).startswith("shard a.parquet#0, at its start: ")
    assert storage.names("datasets") == []
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_was_read_before_an_error_is_not_read_again(
    open_source, storage, write_parquet, write_jsonl, pairs, tmp_path, form
) -> None:
    """The first file is gone when the second call reads what is missing."""
    names = [f"data/{name}.{form}" for name in "abc"]
    parts = (pairs[:4], [*pairs[4:7], (b"junk", "bad")], pairs[7:])
    for name, some in zip(names, parts, strict=True):
        if form == "parquet":
            write_parquet(some, name)
        else:
            images = {f"{text}.jpg": image for image, text in some}
            lines = [{"text": text, "images": [f"{text}.jpg"]} for _, text in some]
            write_jsonl(lines, images, name)
    source = open_source(form, path=str(tmp_path / "data"))
    whole = Storage(str(tmp_path / "whole"))
    expected = ingest(source, whole, max_rejected=0.1)
    shards = prepared(source)
    assert len(shards) == 3
    source.shards = lambda: shards
    first, _, last = (tmp_path / name for name in names)
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(SandboxError, match=f"shard c.{form}#0, .* the same command goes on"):
        ingest(source, storage, max_rejected=0.1, workers=1)
    (left,) = storage.names("datasets")
    assert "00000000.json" in storage.names(f"datasets/{left}/parts")
    last.write_bytes(content)
    first.unlink()
    notes: list[str] = []
    dataset = ingest(source, storage, max_rejected=0.1, note=notes.append)
    assert dataset == expected
    assert notes[0].endswith(" of 3 shards were read before")
    assert contents(storage, dataset) == contents(whole, expected)
    rejected = f"datasets/{dataset.id}/rejected.parquet"
    assert storage.read_table(rejected) == whole.read_table(rejected)
    assert storage.names("datasets") == [dataset.id]


def test_too_many_rejected_stop_and_say_why_and_where(
    open_source, storage, write_parquet, pairs
) -> None:
    source = open_source("parquet", path=write_parquet([*pairs[:8], (b"junk", "a"), (b"x", "b")]))
    with pytest.raises(BadInput, match=r"2 of 10 samples .* 2 bad_image") as error:
        ingest(source, storage, max_rejected=0.19)
    (name,) = storage.names("rejected")
    assert storage.uri(f"rejected/{name}") in str(error.value)
    assert storage.read_table(f"rejected/{name}").num_rows == 2
    assert storage.names("datasets") == []
    assert ingest(source, storage, max_rejected=0.2).rejected == 2


def test_no_sample_left_stops_whatever_is_allowed(open_source, storage, write_parquet) -> None:
    source = open_source("parquet", path=write_parquet([(b"junk", "a")]))
    with pytest.raises(BadInput, match="1 of 1 samples"):
        ingest(source, storage, max_rejected=1.0)


def test_an_empty_source_is_an_error(open_source, storage, write_parquet) -> None:
    with pytest.raises(BadInput, match="no samples"):
        ingest(open_source("parquet", path=write_parquet([])), storage, max_rejected=1.0)


def test_a_complete_dataset_is_kept_and_an_incomplete_one_is_made_again(
    open_source, storage
) -> None:
    source = open_source("shapes", samples=60)
    dataset = ingest(source, storage, max_rejected=0)
    data = Path(storage.uri(dataset.table)) / "data"
    before = sorted(data.iterdir())
    assert ingest(source, storage, max_rejected=0) == dataset
    assert sorted(data.iterdir()) == before
    storage.remove(f"datasets/{dataset.id}/dataset.json")
    assert ingest(source, storage, max_rejected=0) == dataset
    assert sorted(data.iterdir()) != before
    assert storage.exists(f"datasets/{dataset.id}/dataset.json")


def test_the_cost_is_the_time_of_its_tasks(open_source, storage, write_parquet, pairs) -> None:
    costs: list[Cost] = []
    source = open_source("parquet", path=write_parquet([*pairs, (b"junk", "rejected")]))
    ingest(source, storage, max_rejected=1, spent=costs.append)
    (cost,) = costs
    assert (cost.stage, cost.samples, cost.flops, cost.gpu_seconds) == ("ingest", 11, 0.0, 0.0)
    assert cost.cpu_seconds > 0
    assert cost.wall_seconds > 0
    with pytest.raises(BadInput):
        ingest(source, storage, max_rejected=0, spent=costs.append)
    assert len(costs) == 1


def test_the_id_is_that_of_the_content(open_source, storage, write_parquet, pairs) -> None:
    def dataset_id(name: str, some, **options) -> str:
        source = open_source("parquet", path=write_parquet(some, name), **options)
        return ingest(source, storage, max_rejected=1).id

    same = dataset_id("data/a.parquet", pairs)
    assert dataset_id("elsewhere/b.parquet", pairs) == same
    assert dataset_id("c.parquet", [*pairs, (b"junk", "rejected")]) == same
    assert dataset_id("d.parquet", pairs[::-1]) != same
    assert dataset_id("e.parquet", pairs, meta_columns=["label"]) != same


def test_take_and_scan(open_source, storage) -> None:
    source = open_source("shapes", samples=1100)
    dataset = ingest(source, storage, max_rejected=0)
    table = SampleTable(storage.uri(dataset.table))
    assert table.rows == 1100
    ids = np.array([1099, 3, 500, 3, 499])
    taken = table.take(ids, ["row_id", "text", "image"])
    assert taken["row_id"].to_pylist() == ids.tolist()
    truth: list[Sample] = [item for shard in source.shards() for item in shard.read()]
    assert taken["text"].to_pylist() == [truth[row].text for row in ids]
    assert taken["image"].to_pylist() == [truth[row].image for row in ids]
    assert table.scan(498, 502, ["row_id"])["row_id"].to_pylist() == [498, 499, 500, 501]
    assert table.scan(1098, 5000, ["row_id"])["row_id"].to_pylist() == [1098, 1099]
    assert table.column("row_id").to_pylist() == list(range(1100))
    assert table.take([], ["text"]).num_rows == 0
    for wrong in ([1100], [-1]):
        with pytest.raises(IndexError):
            table.take(wrong, ["text"])


def test_the_table_can_be_sent_to_workers(open_source, storage) -> None:
    import ray

    dataset = ingest(open_source("shapes", samples=30), storage, max_rejected=0)
    table = SampleTable(storage.uri(dataset.table))
    assert table.rows == 30
    task = ray.remote(num_cpus=0.1)(lambda some: some.take([7], ["row_id"])["row_id"].to_pylist())
    assert ray.get(task.remote(table)) == [7]


def test_documents_are_ingested_and_known_by_their_content(
    open_source, tmp_path, write_jsonl, jpeg, video
) -> None:
    files = {"0.jpg": jpeg(0), "1.jpg": jpeg(1), "0.mp4": video(0)}
    text = "<__dj__image> a <__dj__video> b <__dj__image>"
    lines = [
        {"text": text, "images": ["0.jpg", "1.jpg"], "videos": ["0.mp4"]},
        {"text": "a clip", "videos": ["0.mp4"]},
        {"text": "no clip", "videos": ["0.jpg"]},
        {"text": "nothing but text"},
    ]
    source = open_source("jsonl", path=write_jsonl(lines, files), content="any")
    storage = Storage(str(tmp_path / "storage"))
    dataset = ingest(source, storage, max_rejected=0.5)
    assert (dataset.rows, dataset.rejected) == (3, 1)
    assert dataset.modalities == ("text", "image", "video")
    assert not dataset.pairs
    assert complete_dataset(storage, home_of(dataset.id)) == dataset
    table = SampleTable(storage.uri(dataset.table))
    image, other, clip = files.values()
    assert [[one.data for one in media] for media in table.media([1, 2, 0])] == [
        [clip],
        [],
        [image, clip, other],
    ]
    assert ingest(source, storage, max_rejected=0.5) == dataset


def test_videos_are_copied_or_stay_where_they_lie(open_source, storage, video, tmp_path) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(3):
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(video(number))
    options = {"path": str(tmp_path / "clips"), "content": "videos", "caption": "a clip"}
    found = {}
    for store in ("copy", "reference"):
        source = open_source("folder", **options)
        videos = VideosConfig(store=store)
        dataset = ingest(source, storage, max_rejected=0, videos=videos)
        table = SampleTable(storage.uri(dataset.table))
        assert [one.data for (one,) in table.media([2, 0, 1])] == [video(2), video(0), video(1)]
        found[store] = dataset
    assert found["copy"].id != found["reference"].id
    assert found["reference"].modalities == ("text", "video")
    (tmp_path / "clips" / "1.mp4").unlink()
    with pytest.raises(Damaged, match=r"1\.mp4 is not what was ingested: it is gone"):
        table.media([1])
