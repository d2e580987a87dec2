"""Folders of work in progress: those of dead runs are removed, and nothing else."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from djsandbox_ray.dataset import staging as module
from djsandbox_ray.dataset.staging import staging
from djsandbox_ray.errors import BadInput, Damaged, StorageFailed
from djsandbox_ray.storage import lease
from djsandbox_ray.storage.lease import take
from djsandbox_ray.storage.processes import Process
from djsandbox_ray.storage.store import Storage


def test_only_left_over_staging_folders_of_dead_runs_are_removed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL", 0.2)
    monkeypatch.setattr(lease, "WATCH", 4)
    monkeypatch.setattr(module, "KEPT", timedelta(0))
    gone = {**asdict(Process.this()), "pid": 2**22 + 1}
    elsewhere = {**gone, "space": "of another machine"}
    living = take(storage, "datasets/.staging-living/lease", "another run")
    for name, process in {"killed": gone, "dead-elsewhere": elsewhere}.items():
        path = f"datasets/.staging-{name}/lease/000001.json"
        storage.write_json(path, {"owner": name, "process": process})
    storage.write_json("datasets/.staging-of-the-user/x.json", {})
    storage.write_json("datasets/.staging-host-12-1700000000-00000000/lease/notes.json", {})
    storage.write_json("elsewhere/precious.json", {})
    home = Path(storage.uri("datasets"))
    (home / ".staging-link").symlink_to(storage.uri("elsewhere"))
    (home / ".staging-killed" / "link").symlink_to(storage.uri("elsewhere"))
    with staging(storage, "source-1") as staged:
        storage.write_json(f"{staged.folder}/x.json", {})
        present = {*storage.names("datasets")} - {staged.folder.removeprefix("datasets/")}
    living.release()
    assert present == {
        ".staging-living",
        ".staging-of-the-user",
        ".staging-host-12-1700000000-00000000",
        ".staging-link",
    }
    assert not storage.exists(staged.folder)
    assert storage.exists("elsewhere/precious.json")


def test_what_a_killed_run_left_gives_way_and_statistics_stay(storage: Storage) -> None:
    for name in ("samples.lance/data/old", "stats/operator.parquet/0.parquet"):
        storage.write_bytes(f"datasets/one/{name}", b"old")

    with staging(storage, "source-1") as staged:

        def build(uri: str) -> None:
            storage.write_bytes(f"{staged.table}/data/new", b"new")

        assert staged.place("datasets/one", build) == "datasets/one/samples.lance"
    assert sorted(storage.stamps("datasets/one")) == [
        "samples.lance/data/new",
        "stats/operator.parquet/0.parquet",
    ]


def test_the_folder_with_most_in_it_is_gone_on_with(storage: Storage) -> None:
    for name, parts in {"a": 1, "b": 2, "c": 0}.items():
        folder = f"datasets/.staging-source-1-{name}"
        take(storage, f"{folder}/lease", name).release()
        for part in range(parts):
            storage.write_json(f"{folder}/parts/{part:08d}.json", {})
        storage.write_json(f"{folder}/samples.lance/data/x.lance", {})
        storage.write_json(f"{folder}/samples.lance/_versions/1.manifest", {})
    take(storage, "datasets/.staging-source-10-a/lease", "of another source").release()
    with staging(storage, "source-1") as staged:
        assert staged.folder == "datasets/.staging-source-1-b"
        assert storage.names("datasets") == [".staging-source-1-b", ".staging-source-10-a"]
        assert storage.names(staged.table) == ["data"]
    assert storage.names("datasets") == [".staging-source-10-a"]


@pytest.mark.parametrize("error", [BadInput("no samples"), KeyboardInterrupt()])
def test_what_clearing_away_raises_does_not_cover_why(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    def refuse(self: Storage, path: str, **_: str) -> None:
        raise StorageFailed("the storage is read-only")

    def ends_early() -> None:
        with staging(storage, "source-1") as staged:
            storage.write_json(f"{staged.folder}/x.json", {})
            monkeypatch.setattr(Storage, "remove", refuse)
            raise error

    with pytest.raises(type(error)) as caught:
        ends_early()
    assert caught.value is error
    assert "is removed, after an error: StorageFailed: the storage is read-only" in caplog.text


def test_who_was_asleep_leaves_the_folder_to_its_successor(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL", 0.1)
    with staging(storage, "source-1") as staged:
        storage.write_json(f"{staged.folder}/parts/00000000.json", {})
        storage.write_json(f"{staged.folder}/lease/000002.json", {"owner": "another"})
        while staged.lease.lost is None:
            time.sleep(0.05)
    assert staged.parts == {"00000000.json"}


def _placed(storage: Storage, part: str, there: str) -> str:
    """Have an ingest end behind the placing of its table; return its folder."""
    folder = "datasets/.staging-source-1-a"
    take(storage, f"{folder}/lease", "a").release()
    files = {"files": {f"{folder}/samples.lance/data/{part}": {}}}
    storage.write_sealed(f"{folder}/parts/00000000.json", files)
    storage.write_sealed(f"{folder}/placed.json", {"home": "datasets/one"})
    storage.write_bytes(f"datasets/one/samples.lance/data/{there}", b"")
    storage.write_bytes("datasets/one/samples.lance/_versions/1.manifest", b"")
    return folder


def test_a_table_that_was_put_in_its_place_and_not_marked_is_moved_back(storage: Storage) -> None:
    folder = _placed(storage, "x.lance", "x.lance")
    with staging(storage, "source-1") as staged:
        assert staged.folder == folder
        assert storage.names(staged.table) == ["data"]
        assert storage.names(f"{staged.table}/data") == ["x.lance"]
        assert not storage.exists("datasets/one/samples.lance")
        assert not storage.exists(f"{folder}/placed.json")


def test_a_table_that_nobody_goes_on_with_goes_with_its_folder(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _placed(storage, "x.lance", "x.lance")
    storage.write_json("datasets/one/stats/x.json", {})
    monkeypatch.setattr(module, "KEPT", timedelta(0))
    with staging(storage, "source-2"):
        assert not storage.exists(folder)
        assert storage.names("datasets/one") == ["lease", "stats"]


def test_what_is_damaged_here_costs_no_other_shard(storage: Storage) -> None:
    def ends_early(error: Exception) -> None:
        with staging(storage, "source-1") as staged:
            storage.write_json(f"{staged.folder}/parts/00000000.json", {})
            raise error

    with pytest.raises(Damaged):
        ends_early(storage.damaged("media/00000001.parquet", "its end is missing"))
    assert len(storage.names("datasets")) == 1
    with pytest.raises(BadInput, match="too many"):
        ends_early(BadInput("too many are rejected"))
    assert storage.names("datasets") == []


def test_a_table_that_another_ingest_has_put_there_stays(storage: Storage) -> None:
    _placed(storage, "x.lance", "of-another.lance")
    with staging(storage, "source-1") as staged:
        assert not storage.exists(staged.table)
    assert storage.names("datasets/one/samples.lance/data") == ["of-another.lance"]
