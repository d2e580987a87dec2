"""An ingest that is broken off goes on where it was; here its tasks run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from s3_server import s3_here

from djsandbox_ray.dataset import ingest as module
from djsandbox_ray.dataset import staging as staging_module
from djsandbox_ray.dataset.fragments import write_shard
from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Cost, Dataset
from djsandbox_ray.storage import lease
from djsandbox_ray.storage.processes import Process
from djsandbox_ray.storage.store import Storage

SHARDS = 5


class Killed(Exception):
    """Stands for the end of the driver."""


class Tasks:
    """Runs what an ingest gives to Ray, and may be told to end it."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.dies_at: Any = None
        """A shard, or a function that is called."""

    def map(
        self, function: Callable[..., dict[str, Any]], rows: list[dict[str, Any]], **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        for row in rows:
            if function is write_shard:
                if row["index"] == self.dies_at:
                    raise Killed
                self.read.append(row["index"])
            yield function(dict(row), **arguments)
        if function.__name__ == self.dies_at:
            raise Killed


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    found = Tasks()
    monkeypatch.setattr(module.Tasks, "map", lambda self, *args, **more: found.map(*args, **more))
    monkeypatch.setattr(lease, "SETTLE", 0.01)
    return found


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_here(tmp_path_factory.mktemp("s3")) as server:
        yield server.url


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return Storage(str(tmp_path / "storage"))
    return Storage(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


@pytest.fixture
def make_source(
    open_source: Callable[..., Source],
    write_parquet: Callable[..., str],
    jpeg: Callable[..., bytes],
) -> Callable[[str], Source]:
    """Two samples in each of the shards of a file; one of the third is bad."""

    def make(name: str) -> Source:
        pairs = [(jpeg(number), f"caption {number}") for number in range(2 * SHARDS)]
        pairs[5] = (b"junk", "in the third shard")
        return open_source("parquet", path=write_parquet(pairs, name, row_group_size=2))

    return make


@pytest.fixture
def source(make_source: Callable[[str], Source]) -> Source:
    return make_source("data/a.parquet")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.parquet._SHARD_ROWS", 2)


def _ingest(source: Source, storage: Storage, **options: Any) -> Dataset:
    options = {"max_rejected": 0.1, "await_room": lambda *_: None, **options}
    return ingest(source, storage, **options)


def _contents(storage: Storage, dataset: Dataset) -> tuple[Any, ...]:
    table = SampleTable(storage.uri(dataset.table))
    columns = ["row_id", "image", "text", "source", "digest", "meta"]
    beside = (
        storage.read_table(f"datasets/{dataset.id}/{name}.parquet").to_pylist()
        for name in ("rejected", "media_digests")
    )
    return (
        (dataset.id, dataset.rows, dataset.rejected),
        table.scan(0, table.rows, columns).to_pylist(),
        table.take([7, 0], ["row_id"]).to_pylist(),
        *beside,
    )


def _whole(source: Source, folder: Path) -> tuple[Any, ...]:
    storage = Storage(str(folder))
    return _contents(storage, _ingest(source, storage))


def _broken_off(source: Source, storage: Storage, tasks: Tasks, at: Any) -> str:
    """Have an ingest end early; return its folder."""
    tasks.dies_at = at
    with pytest.raises(Killed):
        _ingest(source, storage)
    tasks.dies_at = None
    tasks.read.clear()
    (name,) = (name for name in storage.names("datasets") if name.startswith(".staging-"))
    return f"datasets/{name}"


def _left(storage: Storage) -> list[str]:
    """Return the folders and tables that there are."""
    return [*storage.names("datasets"), *storage.names("tables")]


def test_only_shards_that_are_missing_are_read(
    place: Storage, source: Source, tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _whole(source, tmp_path / "whole")
    assert whole[1][-1]["row_id"] == 2 * SHARDS - 2
    _broken_off(source, place, tasks, 3)
    if not place.is_local:  # whatever was written stays where it is
        monkeypatch.setattr(Storage, "move", lambda *_: pytest.fail("copied"))
    calls, notes, costs = list[tuple[int, int]](), list[str](), list[Cost]()
    dataset = _ingest(
        source,
        place,
        progress=lambda *counts: calls.append(counts),
        note=notes.append,
        spent=costs.append,
    )
    assert tasks.read == [3, 4]
    assert calls == [(3, SHARDS), (4, SHARDS), (5, SHARDS)]
    assert notes == [f"3 of {SHARDS} shards were read before"]
    assert costs[0].samples == 4
    assert _contents(place, dataset) == whole
    tables = [] if place.is_local else [dataset.table.removeprefix("tables/")]
    assert _left(place) == [dataset.id, *tables]
    assert _ingest(source, place) == dataset
    assert _left(place) == [dataset.id, *tables]


@pytest.mark.parametrize("step", ["known_part", "write_shard", "add_row_ids"])
def test_it_may_be_broken_off_again_and_anywhere(
    place: Storage, source: Source, tasks: Tasks, tmp_path: Path, step: str
) -> None:
    """Even after the table was put together, before it was put in its place."""
    _broken_off(source, place, tasks, 1)
    folder = _broken_off(source, place, tasks, step)
    assert _broken_off(source, place, tasks, "add_row_ids") == folder
    dataset = _ingest(source, place)
    assert tasks.read == []
    assert _contents(place, dataset) == _whole(source, tmp_path / "whole")


@pytest.mark.parametrize("step", ["_collect_rejections", "join_media_digests", "mark_complete"])
def test_a_kill_behind_the_placing_of_the_table_costs_no_shard(
    place: Storage,
    source: Source,
    tasks: Tasks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(Killed):
            _ingest(source, place)
    tasks.read.clear()
    dataset = _ingest(source, place)
    assert tasks.read == []
    assert _contents(place, dataset) == _whole(source, tmp_path / "whole")
    tables = [] if place.is_local else [dataset.table.removeprefix("tables/")]
    assert _left(place) == [dataset.id, *tables]


def _cut(storage: Storage, path: str) -> None:
    storage.write_bytes(path, storage.read_bytes(path)[:-9])


def _flip(storage: Storage, path: str) -> None:
    data = bytearray(storage.read_bytes(path))
    data[len(data) // 2] ^= 1
    storage.write_bytes(path, bytes(data))


@pytest.mark.parametrize("damage", [_cut, _flip, Storage.remove])
@pytest.mark.parametrize("what", ["marker", "data", "rejected", "media"])
def test_a_damaged_part_is_read_again(
    storage: Storage,
    source: Source,
    tasks: Tasks,
    tmp_path: Path,
    damage: Callable[[Storage, str], None],
    what: str,
) -> None:
    folder = _broken_off(source, storage, tasks, "add_row_ids")
    marker = f"{folder}/parts/00000002.json"
    files = storage.read_sealed(marker)["files"]
    (data,) = (file for file in files if file.endswith(".lance"))
    beside = {file.split("/")[-2]: file for file in files if file.endswith(".parquet")}
    damage(storage, {"marker": marker, "data": data, **beside}[what])
    dataset = _ingest(source, storage)
    assert tasks.read == [2]
    assert _contents(storage, dataset) == _whole(source, tmp_path / "whole")


def test_what_was_cut_in_a_bucket_is_read_again(
    bucket: str, source: Source, tasks: Tasks, tmp_path: Path
) -> None:
    storage = Storage(f"{bucket}/cut")
    folder = _broken_off(source, storage, tasks, 4)
    _cut(storage, next(iter(storage.read_sealed(f"{folder}/parts/00000001.json")["files"])))
    assert _contents(storage, _ingest(source, storage)) == _whole(source, tmp_path / "whole")
    assert sorted(tasks.read)[:2] == [0, 1]  # the whole one reads all
    assert tasks.read[:2] == [1, 4]


def test_where_nothing_was_read_or_the_data_are_refused_nothing_is_left(
    place: Storage, source: Source, tasks: Tasks
) -> None:
    tasks.dies_at = 0
    with pytest.raises(Killed):
        _ingest(source, place)
    assert _left(place) == []
    tasks.dies_at = None
    with pytest.raises(BadInput, match="1 of 10 samples"):
        _ingest(source, place, max_rejected=0)
    assert _left(place) == []


def test_other_data_begin_anew_and_remove_only_what_is_old(
    place: Storage,
    source: Source,
    tasks: Tasks,
    make_source: Callable[[str], Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = _broken_off(source, place, tasks, 3)
    other = make_source("data/b.parquet")
    dataset = _ingest(other, place)
    assert len(tasks.read) == SHARDS
    assert place.names(f"{folder}/parts") == [f"{index:08d}.json" for index in range(3)]
    monkeypatch.setattr(staging_module, "KEPT", timedelta(0))
    assert _ingest(other, place).id == dataset.id
    assert place.names("datasets") == [dataset.id]
    assert len(place.names("tables")) == (0 if place.is_local else 1)


def test_a_dead_driver_is_followed_and_a_living_one_left_alone(
    place: Storage, source: Source, tasks: Tasks, tmp_path: Path
) -> None:
    folder = _broken_off(source, place, tasks, 3)
    held = lease.take(place, f"{folder}/lease", "another run")
    dataset = _ingest(source, place)
    assert tasks.read == [*range(SHARDS)]
    assert len(place.names(f"{folder}/parts")) == 3
    held.release()
    gone = {**asdict(Process.this()), "pid": 2**22 + 1}
    place.write_json(f"{folder}/lease/000009.json", {"owner": "killed", "process": gone})
    tasks.read.clear()
    assert _ingest(source, place) == dataset
    assert tasks.read == [3, 4]
    assert place.names("datasets") == [dataset.id]
    assert _contents(place, dataset) == _whole(source, tmp_path / "whole")


def test_a_table_in_a_bucket_that_a_dataset_has_is_never_touched(
    bucket: str, source: Source, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver was killed when all was done, and only its folder was left to be removed."""
    storage = Storage(f"{bucket}/done")
    with monkeypatch.context() as patch:
        patch.setattr(staging_module.Staging, "discard", lambda self: None)
        dataset = _ingest(source, storage)
    before = storage.stamps(dataset.table)
    assert len(storage.names("datasets")) == 2
    assert _ingest(source, storage) == dataset
    assert storage.stamps(dataset.table) == before
    assert _left(storage) == [dataset.id, dataset.table.removeprefix("tables/")]


def test_a_damaged_table_in_a_bucket_that_was_replaced_goes_when_it_is_old(
    bucket: str, source: Source, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"{bucket}/damaged")
    first = _ingest(source, storage)
    (data, *_) = storage.names(f"{first.table}/data")
    _cut(storage, f"{first.table}/data/{data}")
    storage.write_bytes("tables/of-the-user.lance/data/x", b"mine")
    second = _ingest(source, storage)
    assert second.id == first.id
    assert second.table != first.table
    assert _ingest(source, storage) == second
    assert storage.exists(first.table), "a run may be reading what is left of it"
    monkeypatch.setattr(staging_module, "KEPT", timedelta(0))
    marker = f"datasets/{second.id}/dataset.json"
    whole = storage.read_bytes(marker)
    storage.write_bytes(marker, whole[:-9])
    tasks.dies_at = 0
    with pytest.raises(Killed):
        _ingest(source, storage)
    assert storage.exists(first.table), "what the dataset has is not known"
    tasks.dies_at = None
    storage.write_bytes(marker, whole)
    assert _ingest(source, storage) == second
    assert not storage.exists(first.table)
    assert storage.names("tables") == ["of-the-user.lance", second.table.removeprefix("tables/")]
