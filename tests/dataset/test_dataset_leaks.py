"""What of the evaluation split is found among the training samples. Shards are read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from damages import DAMAGES
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.leaks import (
    equal_samples,
    find_leaks,
    first_rows,
    shared_media,
    widespread_media,
)
from djsandbox_ray.dataset.media import VideosConfig
from djsandbox_ray.dataset.media_digests import (
    SCHEMA,
    digest_table,
    media_digests,
    write_media_digests,
)
from djsandbox_ray.dataset.tasks import Tasks
from djsandbox_ray.errors import Damaged
from djsandbox_ray.identity import media_digest
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import Dataset, Leak, SharedMedium
from djsandbox_ray.storage.store import Storage

MODULE = "djsandbox_ray.dataset.leaks"
DIGESTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20)
"""Row id, and what stands for a digest."""
KINDS = ("image", "video")


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped(self: object, function: Any, rows: list[Any], **given: Any) -> Iterator[Any]:
        return (function(row, **given) for row in reversed(rows))

    monkeypatch.setattr("djsandbox_ray.dataset.tasks.Tasks.map", mapped)


@pytest.fixture
def read(open_source: Callable[..., Any], storage: Storage) -> Callable[..., Dataset]:
    def build(type: str, path: str, videos: VideosConfig | None = None, **options: Any) -> Dataset:
        return ingest(
            open_source(type, path=path, **options),
            storage,
            max_rejected=0,
            videos=videos or VideosConfig(),
            await_room=lambda *_: None,
        )

    return build


@pytest.fixture
def datasets(read: Callable[..., Dataset], write_parquet: Callable[..., str]) -> Callable[..., Any]:
    """Return the datasets that lists of pairs become: the training samples, the split."""

    def make(*lists: Any) -> list[Dataset]:
        files = [write_parquet(pairs, f"{place}.parquet") for place, pairs in enumerate(lists)]
        return [read("parquet", path) for path in files]

    return make


def never(dataset: Dataset) -> None:
    raise AssertionError(f"the digests of {dataset.table} are there")


def digest_again(storage: Storage, dataset: Dataset) -> None:
    write_media_digests(storage, dataset, Tasks(None, NodeKind()))


def leaks(
    storage: Storage, train: Dataset, evaluation: Dataset, again: Any = never
) -> tuple[Leak, list[tuple[int, int, str]]]:
    leak = find_leaks(storage, train, evaluation, True, again)
    return leak, [tuple(row.values()) for row in storage.read_table(leak.path).to_pylist()]


def digests(storage: Storage, dataset: Dataset) -> list[tuple[int, str, bytes]]:
    found = pa.concat_tables(media_digests(storage, dataset))
    assert found.schema == SCHEMA
    return sorted(tuple(row.values()) for row in found.to_pylist())


def test_equal_samples_and_images_under_another_caption_are_found(
    storage: Storage, datasets: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}._SCAN_ROWS", 4)
    other = [(pairs[0][0], "another caption"), (pairs[6][0], "of what is a leak already")]
    train, evaluation = datasets(pairs[:8], [pairs[9], pairs[6], *other, pairs[1], pairs[6]])
    leak, found = leaks(storage, train, evaluation)
    assert leak.path == f"datasets/{train.id}/leaks/{evaluation.id}.parquet"
    assert found == [(0, 2, "image"), (1, 4, "sample"), (6, 1, "sample"), (6, 5, "sample")]
    assert (leak.rows, leak.by_medium, leak.removed) == (3, 1, True)
    kept = find_leaks(storage, train, evaluation, False, never)
    assert not kept.removed
    assert kept.id != leak.id


def test_the_same_caption_alone_is_no_leak(storage: Storage, datasets: Any, pairs: Any) -> None:
    train, evaluation = datasets(pairs[:5], [(pairs[7][0], pairs[2][1]), pairs[8]])
    leak, found = leaks(storage, train, evaluation)
    assert (leak.rows, leak.by_medium, found) == (0, 0, [])
    names = storage.read_table(leak.path).column_names
    assert names == ["row_id", "evaluation_row_id", "shared"]


def test_of_an_image_that_is_everywhere_the_first_evaluation_row_is_named(
    storage: Storage, datasets: Any, pairs: Any
) -> None:
    image = pairs[0][0]
    asked = [pairs[9], *((image, f"question {number}") for number in range(3))]
    train, evaluation = datasets([(image, f"text {number}") for number in range(3)], asked)
    leak, found = leaks(storage, train, evaluation)
    assert found == [(row, 1, "image") for row in range(3)]
    assert (leak.rows, leak.by_medium) == (3, 3)


def test_an_image_that_many_training_rows_have_is_named(
    storage: Storage, datasets: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts where a whole sample is equal, too."""
    missing, other = pairs[0][0], pairs[1][0]
    train = [
        *pairs[2:5],
        *((missing, f"text {number}") for number in range(3)),
        *((other, f"text {number}") for number in range(2)),
        *pairs[5:7],
    ]
    asked = [pairs[9], (other, "which?"), (missing, "text 1"), (missing, "which?")]
    datasets = datasets(train, asked)
    (first, second) = leaks(storage, *datasets)[0].widespread
    assert first == SharedMedium("image", rows=3, row_id=3, evaluation_row_id=2)
    assert second == SharedMedium("image", rows=2, row_id=6, evaluation_row_id=1)
    monkeypatch.setattr(f"{MODULE}._WIDESPREAD", 0.2)  # of ten rows
    assert leaks(storage, *datasets)[0].widespread == (first,)
    monkeypatch.setattr(f"{MODULE}._WIDESPREAD", 0.3)
    assert leaks(storage, *datasets)[0].widespread == ()


def test_media_of_documents_are_compared_with_those_of_pairs_and_clips(
    storage: Storage, read: Any, write_jsonl: Any, jpeg: Any, video: Any
) -> None:
    files = {"0.jpg": jpeg(0), "1.jpg": jpeg(1), "0.mp4": video(0)}
    token, clip = "<__dj__image>", "<__dj__video>"
    train = [
        {"text": "nothing but text"},
        {"text": f"{token} {clip} {token}", "images": ["0.jpg", "0.jpg"], "videos": ["0.mp4"]},
        {"text": "a clip", "videos": ["0.mp4"]},
        {"text": "a picture", "images": ["1.jpg"]},
    ]
    asked = [
        {"text": "nothing but text"},
        {"text": "a clip", "videos": ["0.mp4"]},
        {"text": "which is it?", "images": ["0.jpg"]},
    ]
    datasets = [
        read("jsonl", write_jsonl(lines, files, f"data/{name}.jsonl"), content="any")
        for name, lines in (("train", train), ("asked", asked))
    ]
    leak, found = leaks(storage, *datasets)
    assert found == [
        (0, 0, "sample"),
        (1, 1, "video"),
        (1, 2, "image"),
        (2, 1, "sample"),
    ]
    assert (leak.rows, leak.by_medium) == (3, 1)


def test_a_video_that_stays_where_it_lies_is_known_by_its_content(
    storage: Storage, read: Any, video: Any, tmp_path: Path
) -> None:
    for folder, names in (("train", "ab"), ("asked", "xb")):
        (tmp_path / folder).mkdir()
        for seed, name in enumerate(names):
            (tmp_path / folder / f"{name}.mp4").write_bytes(video(2 * seed))
    (tmp_path / "asked" / "x.mp4").write_bytes(video(5))
    options: dict[str, Any] = {"content": "videos", "caption": "a clip"}
    refers = VideosConfig(store="reference")
    train = read("folder", str(tmp_path / "train"), refers, **options)
    evaluation = read("folder", str(tmp_path / "asked"), **(options | {"caption": "which?"}))
    expected = [(row, "video", media_digest("video", video(2 * row))) for row in (0, 1)]
    assert digests(storage, train) == expected
    _, found = leaks(storage, train, evaluation)
    assert found == [(1, 0, "video")]
    digest_again(storage, train)
    assert digests(storage, train) == expected
    (tmp_path / "train" / "b.mp4").write_bytes(b"another")
    with pytest.raises(Damaged, match=r"b\.mp4 is not what was ingested"):
        digest_again(storage, train)
    assert digests(storage, train) == expected, "what was there stays"


@pytest.mark.parametrize("damage", sorted({*DAMAGES} - {"flip"}))  # of bits, see below
def test_a_table_without_its_digests_is_read_once(
    storage: Storage, datasets: Any, pairs: Any, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.media_digests._TASK_ROWS", 4)
    monkeypatch.setattr("djsandbox_ray.dataset.media_digests._READ_ROWS", 3)
    train, evaluation = datasets(pairs, [(pairs[4][0], "another caption")])
    whole = digests(storage, train)
    assert whole == [
        (row, "image", media_digest("image", image)) for row, (image, _) in enumerate(pairs)
    ]
    DAMAGES[damage](Path(storage.uri(f"datasets/{train.id}/media_digests.parquet")))
    asked = []

    def again(dataset: Dataset) -> None:
        asked.append(dataset)
        digest_again(storage, dataset)

    _, found = leaks(storage, train, evaluation, again)
    assert found == [(4, 0, "image")]
    assert asked == [train]
    assert digests(storage, train) == whole
    leaks(storage, train, evaluation)


def test_no_changed_bit_of_the_digests_goes_unnoticed(storage: Storage) -> None:
    """Pages have checksums, but their headers and the footer have none.

    A page of an unknown kind is passed over by Arrow: leaks would be missed.
    """
    dataset = Dataset("dataset-1", "samples.lance", 2, 0)
    path = Path(storage.uri("datasets/dataset-1/media_digests.parquet"))
    table = digest_table([(0, "image", bytes(16)), (1, "video", bytes([1] * 16))])
    storage.write_groups("datasets/dataset-1/media_digests.parquet", SCHEMA, iter([table]))
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(data))
        try:
            found = pa.concat_tables([SCHEMA.empty_table(), *media_digests(storage, dataset)])
        except Damaged:
            noticed += 1
        else:
            assert found.equals(table), f"byte {place}"
    assert noticed > len(whole) / 2


def pieces(found: list[tuple[int, int]], size: int, **more: str) -> list[pa.Table]:
    """Return digests in pieces; the kind of a medium is part of its digest."""
    rows = [
        {"row_id": row, "kind": KINDS[digest % 2], "digest": bytes([digest] * 16)}
        for row, digest in found
    ]
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [pa.Table.from_pylist(part, SCHEMA) for part in parts]


@given(train=DIGESTS, evaluation=DIGESTS, size=st.integers(1, 7))
def test_equal_samples_are_all_pairs_of_rows_with_one_digest(
    train: list[tuple[int, int]], evaluation: list[tuple[int, int]], size: int
) -> None:
    columns = ["row_id", "digest"]
    (asked,) = pieces(evaluation, 100) or [SCHEMA.empty_table()]
    found = equal_samples(
        [one.select(columns) for one in pieces(train, size)], asked.select(columns)
    )
    expected = [
        (row, other, "sample") for row, one in train for other, two in evaluation if one == two
    ]
    assert sorted(tuple(row.values()) for row in found.to_pylist()) == sorted(expected)


@given(
    train=DIGESTS,
    evaluation=DIGESTS,
    known=st.lists(st.integers(0, 9), max_size=4),
    size=st.integers(1, 7),
)
def test_shared_media_are_those_of_other_rows_each_once_with_the_first_that_asks(
    train: list[tuple[int, int]], evaluation: list[tuple[int, int]], known: list[int], size: int
) -> None:
    first = first_rows(pieces(evaluation, size))
    leaked = pa.chunked_array([known], pa.int64())
    found = shared_media(pieces(train, size), first, leaked)
    asked = {digest: min(r for r, d in evaluation if d == digest) for _, digest in evaluation}
    expected = {
        (row, asked[digest], KINDS[digest % 2])
        for row, digest in train
        if digest in asked and row not in known
    }
    rows = [tuple(row.values()) for row in found.to_pylist()]
    assert len(rows) == len(set(rows))
    assert set(rows) == expected


@given(train=DIGESTS, evaluation=DIGESTS, least=st.integers(1, 4), size=st.integers(1, 7))
def test_widespread_media_are_those_of_many_different_rows(
    train: list[tuple[int, int]], evaluation: list[tuple[int, int]], least: int, size: int
) -> None:
    found = widespread_media(pieces(train, size), first_rows(pieces(evaluation, size)), least)
    asked = {digest for _, digest in evaluation}
    rows = {digest: {row for row, other in train if other == digest} for digest in asked}
    expected = [
        SharedMedium(
            KINDS[digest % 2], len(those), min(those), min(r for r, d in evaluation if d == digest)
        )
        for digest, those in rows.items()
        if len(those) >= least
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    order = [(-medium.rows, medium.row_id) for medium in found]
    assert order == sorted(order)
