"""A storage that is full, read-only, over its quota, away or gone: one sentence, nothing half."""

from __future__ import annotations

import errno
import os
import pickle
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from djsandbox_ray.errors import BadInput, Damaged, Missing, SandboxError, StorageFailed
from djsandbox_ray.storage.filesystems import disk_failure, storage_failure
from djsandbox_ray.storage.store import Storage

TABLE = pa.table({"row_id": range(2000), "value": [os.urandom(60) for _ in range(2000)]})

SYSTEM = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EFBIG: "the file would be larger than is allowed",
    errno.EIO: "input/output error",
    errno.ESTALE: "stale file handle",
}


def files(storage: Storage) -> list[str]:
    return sorted(
        str(path.relative_to(storage.url))
        for path in Path(storage.url).rglob("*")
        if path.is_file()
    )


WRITES: dict[str, Callable[[Storage], Any]] = {
    "json": lambda storage: storage.write_json("a/x", {"a": 1}),
    "bytes": lambda storage: storage.write_bytes("a/x", b"1" * 5000),
    "table": lambda storage: storage.write_table("a/x", TABLE),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("number", SYSTEM)
@pytest.mark.parametrize("call", ["fsync", "open", "replace", "makedirs"])
def test_what_the_system_refuses_is_one_sentence(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, number: int, call: str, write: str
) -> None:
    storage.write_bytes("a/x", b"before")
    before = files(storage)

    def refuse(*args: Any, **_: Any) -> Any:
        raise OSError(number, os.strerror(number), "somewhere")

    with monkeypatch.context() as patch:
        if call == "makedirs":
            patch.setattr(type(storage._fs), call, refuse)
        else:
            patch.setattr({"fsync": os, "open": Path, "replace": Path}[call], call, refuse)
        with pytest.raises(StorageFailed) as caught:
            WRITES[write](storage)
    said = str(caught.value)
    assert said.startswith(f"storage {storage.url}/a")
    assert SYSTEM[number] in said
    assert "the same command goes on" in said
    assert "\n" not in said
    assert caught.value.exit_code == 1
    assert files(storage) == before, "nothing is half-written"
    assert storage.read_bytes("a/x") == b"before"
    WRITES[write](storage)
    assert storage.read_bytes("a/x") != b"before", "and then it goes on"


READS: dict[str, Callable[[Storage], Any]] = {
    "json": lambda storage: storage.read_json("a/x"),
    "sealed": lambda storage: storage.read_sealed("a/x"),
    "table": lambda storage: storage.read_table("a/x"),
    "batches": lambda storage: list(storage.read_batches("a/x", ["row_id"])),
}


@pytest.mark.parametrize("read", READS)
def test_a_folder_in_the_place_of_a_file_is_damage(storage: Storage, read: str) -> None:
    Path(storage.url, "a", "x").mkdir(parents=True)
    with pytest.raises(Damaged, match=r"a/x is damaged: .*; remove it and run"):
        READS[read](storage)
    assert storage.seal("a/x") is None


@pytest.mark.parametrize("write", WRITES)
def test_a_folder_in_the_place_of_a_file_is_named_and_left(storage: Storage, write: str) -> None:
    Path(storage.url, "a", "x").mkdir(parents=True)
    Path(storage.url, "a", "x", "mine").write_text("mine")
    with pytest.raises(BadInput, match="a/x cannot be written: a folder is in its place; move it"):
        WRITES[write](storage)
    assert files(storage) == ["a/x/mine"]


@pytest.mark.parametrize("read", READS)
def test_below_a_file_nothing_is_there(storage: Storage, read: str) -> None:
    storage.write_bytes("a", b"a file")
    with pytest.raises(Missing, match="a/x is not there"):
        READS[read](storage)
    assert storage.seal("a/x") is None
    assert not storage.exists("a/x")


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 3,000 bytes; the system refuses it as it is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", ["bytes", "table"])
def test_a_write_that_the_system_breaks_off_leaves_nothing(storage: Storage, write: str) -> None:
    with pytest.raises(StorageFailed, match="larger than is allowed"), small_files():
        WRITES[write](storage)
    assert files(storage) == []


@pytest.fixture
def tiny_disk(tmp_path: Path, mounted: Callable[[Path, str], None]) -> Path:
    place = tmp_path / "disk"
    place.mkdir()
    mounted(place, "64k")
    return place


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    storage = Storage(str(tiny_disk / "storage"))
    storage.write_json("small.json", {})
    with pytest.raises(StorageFailed, match="no space is left on the device"):
        storage.write_table("large.parquet", TABLE)
    assert files(storage) == ["small.json"]
    storage.write_json("small.json", {"still": "works"})
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(StorageFailed, match="read-only"):
        storage.write_json("small.json", {})
    assert storage.read_json("small.json") == {"still": "works"}


def test_a_disk_that_was_taken_away_is_not_written_below(tiny_disk: Path) -> None:
    storage = Storage(str(tiny_disk))
    storage.write_json("a.json", {})
    subprocess.run(["umount", str(tiny_disk)], check=True)
    with pytest.raises(StorageFailed, match="removed or unmounted"):
        storage.write_json("b.json", {})
    assert list(tiny_disk.iterdir()) == []


def test_a_storage_that_is_removed_is_not_made_anew(storage: Storage) -> None:
    storage.write_json("a/b.json", {})
    shutil.rmtree(storage.url)
    for call in (
        lambda: storage.write_json("a/c.json", {}),
        lambda: storage.read_json("a/b.json"),
        lambda: storage.read_table("a/b.parquet"),
        lambda: storage.exists("a/b.json"),
        lambda: storage.stamps("a"),
    ):
        with pytest.raises(StorageFailed, match=f"storage {storage.url}: it was removed"):
            call()
    assert not Path(storage.url).exists()
    Storage(storage.url).write_json("a/c.json", {})  # another run begins anew


def test_a_folder_that_goes_while_it_is_written_to(storage: Storage) -> None:
    storage.write_json("a/b.json", {})

    def write() -> None:
        with storage.open_write("c/d") as file:
            file.write(b"1")
            shutil.rmtree(storage.url)

    with pytest.raises(StorageFailed, match="it was removed"):
        write()


def test_a_storage_may_be_moved_by_network_file_systems(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some give folders new numbers: what was written is still there."""
    storage.write_json("a.json", {})
    storage._place = (1, 2)
    storage.write_json("b.json", {})
    assert storage.names("") == ["a.json", "b.json"]


def test_what_is_not_there_is_told_from_a_storage_that_is_not_there(storage: Storage) -> None:
    storage.write_json("a.json", {})
    with pytest.raises(Missing, match=r"b\.json is not there; run the configuration again"):
        storage.read_json("b.json")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("b.json")


def test_an_object_store_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage("memory://me:secret@bucket/failing")

    def refuse(*args: Any, **_: Any) -> Any:
        raise OSError(errno.EIO, "InternalError: try again")

    def silent(*args: Any, **_: Any) -> Any:
        raise TimeoutError

    for fault, words in ((refuse, "input/output error"), (silent, "is out of reach")):
        for call in ("pipe_file", "put_file"):
            monkeypatch.setattr(type(storage._fs), call, fault)
        for write in WRITES.values():
            with pytest.raises(StorageFailed, match=words) as caught:
                write(storage)
            assert "secret" not in str(caught.value)
    monkeypatch.setattr(type(storage._fs), "cat_file", silent)
    with pytest.raises(StorageFailed):
        storage.read_json("a")
    assert not fsspec.filesystem("memory").exists("/failing/a/x")


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


@pytest.mark.parametrize("url", ["", "memory://bucket/asked"])
def test_what_cannot_be_asked_for_is_not_taken_for_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    storage = Storage(url or str(tmp_path))
    storage.write_bytes("a/x", b"1")
    assert storage.exists("a/x")
    assert not storage.exists("a/x/below")
    for number in (errno.EIO, errno.ESTALE, errno.EMFILE):
        failing = OSError(number, os.strerror(number))
        with monkeypatch.context() as patch:
            patch.setattr(type(storage._fs), "info", raising(failing))
            for call in (storage.exists, storage.remove):
                with pytest.raises(StorageFailed, match=re.escape(os.strerror(number).lower())):
                    call("a/x")
    with monkeypatch.context() as patch:
        patch.setattr(type(storage._fs), "info", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            storage.exists("a/x")
    assert storage.read_bytes("a/x") == b"1"


def failing_below(
    monkeypatch: pytest.MonkeyPatch, url: str, folder: str, error: BaseException
) -> None:
    """Have the listing of one folder fail, of a disk or of the filesystem in memory."""
    owner, name = (type(Storage(url)._fs), "ls") if "://" in url else (os, "scandir")
    listing = getattr(owner, name)

    def fail(*args: Any, **more: Any) -> Any:
        if str(args[-1]).endswith(f"/{folder}"):
            raise error
        return listing(*args, **more)

    monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize("folder", ["a", "a/deep"])
@pytest.mark.parametrize("url", ["", "memory://bucket/listed"])
def test_what_cannot_be_listed_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, folder: str
) -> None:
    """Healthy files that were not listed would count as gone, and the others be removed."""
    storage = Storage(url or str(tmp_path))
    for name in ("a/x", "a/deep/y"):
        storage.write_bytes(name, b"1")
    for number in (errno.EIO, errno.ESTALE, errno.EMFILE):
        with monkeypatch.context() as patch:
            failing_below(patch, storage.url, folder, OSError(number, os.strerror(number)))
            with pytest.raises(StorageFailed, match=re.escape(os.strerror(number).lower())):
                storage.stamps("a")
    assert list(storage.stamps("a")) == ["deep/y", "x"]
    assert [*storage.stamps("a/x").values()] == [storage.stamps("a")["x"]], "a file is found, too"
    assert storage.stamps("a/x/below") == {}


def test_a_folder_that_goes_while_it_is_listed_is_not_there(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x", "a/deep/y"):
        storage.write_bytes(name, b"1")
    failing_below(monkeypatch, storage.url, "a/deep", FileNotFoundError(errno.ENOENT, "gone"))
    assert list(storage.stamps("a")) == ["x"]


def test_texts_of_libraries_are_understood() -> None:
    for text in (
        "LanceError(IO): Generic LocalFileSystem error: No space left on device (os error 28)",
        "ray::task() OSError: [Errno 122] Disk quota exceeded: '/x'",
        "[Errno 30] Read-only file system: '/x'",
    ):
        told = disk_failure(RuntimeError(text), "/data")
        assert isinstance(told, StorageFailed)
        assert str(told).startswith("storage /data: ")
    for other in (
        RuntimeError("unexpected pos 576 vs 534"),
        PermissionError(errno.EACCES, "denied"),
        FileNotFoundError(errno.ENOENT, "no"),
        ConnectionRefusedError(errno.ECONNREFUSED, "no"),
    ):
        assert disk_failure(other, "/data") is None
    assert storage_failure(FileNotFoundError(errno.ENOENT, "no"), "/data") is None
    assert storage_failure(ValueError("no"), "/data") is None


def test_errors_travel_between_processes() -> None:
    for error in (StorageFailed("full"), Damaged("a is damaged", "b", "c"), Missing("a", "b", "c")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    assert issubclass(Damaged, BadInput)
    assert Damaged.exit_code == 2
    assert issubclass(StorageFailed, SandboxError)
    assert StorageFailed.exit_code == 1


def test_a_storage_travels_without_its_place(storage: Storage) -> None:
    with storage.noting():
        storage.write_json("a.json", {})
        again = pickle.loads(pickle.dumps(storage))
    assert again.url == storage.url
    assert again._place is None
    assert again._noted is None
    again.write_json("b.json", {})


@pytest.mark.parametrize("error", [pa.ArrowMemoryError("realloc failed"), pa.ArrowCancelled("x")])
def test_a_file_is_not_damaged_by_what_this_process_lacks(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Healthy files would be removed, as the machine was out of memory for a moment."""
    storage.write_table("a.parquet", TABLE)
    monkeypatch.setattr(pq, "read_table", raising(error))
    monkeypatch.setattr(pq, "ParquetFile", raising(error))
    with pytest.raises(type(error)):
        storage.read_table("a.parquet")
    with pytest.raises(type(error)):
        next(storage.read_batches("a.parquet", ["value"]))


def test_a_table_of_another_writer_is_read(storage: Storage) -> None:
    """Of an earlier version, its pages have no checksums."""
    with storage.open_write("a.parquet") as file:
        pq.write_table(TABLE, file)
    assert storage.read_table("a.parquet").equals(TABLE)


def test_a_long_column_that_is_not_whole_is_damaged(storage: Storage) -> None:
    """Arrow reads what it finds: no column at all, or no row of a page that it does not know."""
    table = pa.table({"row_id": [*range(10)], "value": [0.5] * 10})
    storage.write_table("a.parquet", table)
    with pytest.raises(Damaged, match="no column 'valeu'"):
        next(storage.read_batches("a.parquet", ["row_id", "valeu"]))
    path = Path(storage.uri("a.parquet"))
    whole = path.read_bytes()
    lost = 0
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(bytes(data))
        try:
            read = sum(part.num_rows for part in storage.read_batches("a.parquet", ["row_id"]))
        except Damaged as error:
            lost += "of its 10 rows 0 can be read" in str(error)
        else:
            assert read == 10, f"byte {place}"
    assert lost, "of what Arrow itself does not notice"
