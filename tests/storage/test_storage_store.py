from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import S3Server

from djsandbox_ray.errors import BadInput, Missing, MissingExtra, SandboxError, StorageFailed
from djsandbox_ray.storage import filesystems
from djsandbox_ray.storage.store import Storage


@pytest.fixture(params=["local", "memory", "s3"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "local":
        yield Storage(str(tmp_path / "storage"))
        return
    if request.param == "s3":
        yield Storage(f"{request.getfixturevalue('s3').url}/{uuid.uuid4().hex}/prefix/")
        return
    yield Storage("memory://bucket/prefix/")
    memory = fsspec.filesystem("memory")
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)


class Torn(Exception):
    pass


def test_a_local_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("./here/", "here", str(tmp_path / "here"), f"file://{tmp_path}/here"):
        storage = Storage(url)
        assert storage.is_local
        assert storage.url == str(tmp_path / "here")
        assert storage.uri("a/b.json") == str(tmp_path / "here" / "a" / "b.json")
    assert not (tmp_path / "here").exists()  # nothing is made before something is written


def test_a_url_stays_a_url() -> None:
    storage = Storage("memory://bucket/prefix/")
    assert not storage.is_local
    assert storage.uri("a/b.json") == "memory://bucket/prefix/a/b.json"


def test_what_is_shown_holds_no_secret(tmp_path: Path) -> None:
    storage = Storage("memory://me:secret@bucket/prefix?token=secret")
    assert storage.shown == "memory://***@bucket/prefix?token=***"
    assert "secret" in storage.url  # other libraries need it
    assert Storage(str(tmp_path)).shown == str(tmp_path)
    with pytest.raises(BadInput) as caught:
        Storage("nosuch://me:secret@bucket?token=secret")
    assert "nosuch://***@bucket?token=***" in str(caught.value)
    assert "me:secret" not in str(caught.value)
    assert caught.value.__suppress_context__  # which shows the address as it is


@pytest.mark.parametrize("url", ["nosuch://bucket", "s3x://bucket/prefix"])
def test_an_unknown_scheme_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match="cannot be opened"):
        Storage(url)


def test_a_storage_that_is_a_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        Storage(str(tmp_path / "file")).write_json("runs/a.json", {})


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """Lock a folder; root, who may write anywhere, gives that away for the test."""
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield tmp_path
    os.seteuid(user)


def test_a_storage_without_permission_is_bad_input(locked: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        Storage(str(locked / "new")).write_json("a.json", {})


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "a/..", "..", ".", "a/./b"])
def test_no_path_leads_out(any_storage: Storage, path: str) -> None:
    calls: list[Any] = [
        any_storage.uri,
        any_storage.exists,
        any_storage.names,
        any_storage.remove,
        any_storage.read_bytes,
        any_storage.read_table,
        lambda path: any_storage.write_bytes(path, b""),
        lambda path: any_storage.move("a", path),
        lambda path: any_storage.move(path, "a"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a path inside the storage"):
            call(path)


def test_the_storage_itself_is_never_removed(any_storage: Storage) -> None:
    any_storage.write_bytes("a", b"1")
    with pytest.raises(ValueError, match="never removed"):
        any_storage.remove("")
    assert any_storage.exists("a")


def test_what_is_written_can_be_read(any_storage: Storage) -> None:
    any_storage.write_bytes("deep/er/file.bin", b"\x00\xff")
    any_storage.write_json("deep/a.json", {"é": [1, None, 0.1]})
    assert any_storage.read_bytes("deep/er/file.bin") == b"\x00\xff"
    assert any_storage.read_json("deep/a.json") == {"é": [1, None, 0.1]}
    assert any_storage.names("deep") == ["a.json", "er"]
    assert any_storage.exists("deep")
    assert any_storage.exists("deep/er/file.bin")


def test_what_is_not_there(any_storage: Storage) -> None:
    assert not any_storage.exists("no/such")
    assert any_storage.names("no/such") == []
    any_storage.remove("no/such")
    with pytest.raises(FileNotFoundError):
        any_storage.read_bytes("no/such")
    for read in (any_storage.read_json, any_storage.read_sealed, any_storage.read_table):
        with pytest.raises(Missing, match="no/such is not there"):
            read("no/such")


def test_a_file_is_replaced_whole(any_storage: Storage) -> None:
    any_storage.write_bytes("a", b"a long old text")
    any_storage.write_bytes("a", b"new")
    assert any_storage.read_bytes("a") == b"new"


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": {1, 2}}, b"bytes"])
def test_what_has_no_json_form_leaves_the_old_file(any_storage: Storage, value: Any) -> None:
    any_storage.write_json("a.json", 1)
    with pytest.raises((TypeError, ValueError)):
        any_storage.write_json("a.json", {"deep": value})
    assert any_storage.read_json("a.json") == 1
    assert any_storage.names("") == ["a.json"]


def test_nothing_is_seen_before_the_end(any_storage: Storage) -> None:
    any_storage.write_bytes("old", b"1")
    with any_storage.open_write("new") as new, any_storage.open_write("old") as old:
        new.write(b"2" * 100_000)
        old.write(b"2")
        assert any_storage.names("") == ["old"]
        assert any_storage.read_bytes("old") == b"1"
    assert any_storage.read_bytes("new") == b"2" * 100_000
    assert any_storage.read_bytes("old") == b"2"


def test_a_writer_that_raises_leaves_nothing(any_storage: Storage) -> None:
    any_storage.write_bytes("folder/old", b"1")

    def tear(path: str) -> None:
        with any_storage.open_write(path) as file:
            file.write(b"half")
            raise Torn

    for path in ("folder/new", "folder/old"):
        with pytest.raises(Torn):
            tear(path)
    assert any_storage.names("folder") == ["old"]
    assert any_storage.read_bytes("folder/old") == b"1"


def test_a_writer_that_raises_leaves_no_part_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(Torn), Storage(str(tmp_path)).open_write("a"):
        raise Torn
    assert list(tmp_path.iterdir()) == []


def test_one_torn_writer_does_not_touch_another(any_storage: Storage) -> None:
    def both() -> None:
        with any_storage.open_write("outer") as outer:
            outer.write(b"half")
            with any_storage.open_write("inner") as inner:
                inner.write(b"whole")
            raise Torn

    with pytest.raises(Torn):
        both()
    assert any_storage.names("") == ["inner"]
    assert any_storage.read_bytes("inner") == b"whole"


def test_many_threads_write_at_once(any_storage: Storage) -> None:
    def write(number: int) -> None:
        any_storage.write_json(f"folder/{number % 4}.json", number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(64)))
    assert any_storage.names("folder") == [f"{number}.json" for number in range(4)]
    assert [any_storage.read_json(f"folder/{n}.json") % 4 for n in range(4)] == [0, 1, 2, 3]


def test_a_killed_writer_leaves_the_old_file_and_nothing_that_counts(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("folder/old.json", b"1")
    code = (
        "import os, sys\n"
        "from djsandbox_ray.storage.store import Storage\n"
        "with Storage(sys.argv[1]).open_write('folder/old.json') as file:\n"
        "    file.write(b'2'); file.flush(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    assert len(list((tmp_path / "folder").iterdir())) == 2  # its part is still on the disk
    assert storage.names("folder") == ["old.json"]
    assert storage.read_bytes("folder/old.json") == b"1"


def test_tables_of_one_file_and_of_a_folder(any_storage: Storage) -> None:
    for number in (10, 2, 1):
        table = pa.table({"row_id": [number], "value": [number / 2]})
        any_storage.write_table(f"table/{number:04}.parquet", table)
    any_storage.write_json("table/marker.json", {})
    assert any_storage.read_table("table/0002.parquet").to_pydict() == {
        "row_id": [2],
        "value": [1.0],
    }
    assert any_storage.read_table("table", ["row_id"]).to_pydict() == {"row_id": [1, 2, 10]}


@pytest.mark.parametrize("whole", [True, False])
def test_row_ids_are_written_as_differences(tmp_path: Path, whole: bool) -> None:
    storage, rows = Storage(str(tmp_path)), 100_000
    table = pa.table({"row_id": range(rows), "value": [row / 2 for row in range(rows)]})
    if whole:
        storage.write_table("t.parquet", table)
    else:
        storage.write_groups("t.parquet", table.schema, [table])
    assert storage.read_table("t.parquet").equals(table)
    columns = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    assert "DELTA_BINARY_PACKED" in columns.column(0).encodings
    assert columns.column(0).total_compressed_size < rows / 100
    assert "DELTA_BINARY_PACKED" not in columns.column(1).encodings


@pytest.mark.parametrize("ids", [["a", "b"], [1.5, 2.5]])
def test_row_ids_of_another_kind_are_written_as_they_are(tmp_path: Path, ids: list[Any]) -> None:
    storage = Storage(str(tmp_path))
    for table in (pa.table({"row_id": ids}), pa.table({"row_id": [1, 2], "more": [[1], [2, 3]]})):
        storage.write_table("t.parquet", table)
        assert storage.read_table("t.parquet").equals(table)


def test_a_table_written_piece_by_piece_is_there_or_not(any_storage: Storage) -> None:
    schema = pa.schema([("row_id", pa.int64())])

    def write(pieces: list[Any]) -> None:
        with any_storage.open_write("t.parquet") as file, pq.ParquetWriter(file, schema) as writer:
            for piece in pieces:
                writer.write_table(pa.table({"row_id": piece}, schema))

    with pytest.raises(pa.ArrowInvalid):
        write([[1, 2], ["not a number"]])
    assert any_storage.names("") == []
    write([[1, 2], [3]])
    assert any_storage.read_table("t.parquet")["row_id"].to_pylist() == [1, 2, 3]


def test_folders_are_moved_and_removed(any_storage: Storage) -> None:
    any_storage.write_bytes("a/b/c", b"1")
    any_storage.write_bytes("a/d", b"2")
    any_storage.move("a", "x/y")
    assert not any_storage.exists("a/d")
    assert any_storage.read_bytes("x/y/b/c") == b"1"
    any_storage.remove("x/y")
    assert not any_storage.exists("x/y/d")
    assert any_storage.names("x") == []


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Have something done at the first removal of a file of a disk, before it is removed."""
    unlink, todo = os.unlink, [act]

    def late(*args: Any, **more: Any) -> None:
        if todo:
            todo.pop()()
        unlink(*args, **more)

    monkeypatch.setattr(os, "unlink", late)


def test_a_folder_in_which_a_writer_comes_to_its_end_is_removed_whole(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was listed is gone, and something else is there."""
    for number in range(8):
        storage.write_bytes(f"a/deep/{number}", b"1")
    folder = Path(storage.uri("a/deep"))

    def rename() -> None:
        for file in list(folder.iterdir()):
            file.rename(file.with_name(f"{file.name}.whole"))

    meanwhile(monkeypatch, rename)
    storage.remove("a")
    assert not storage.exists("a")


def test_of_two_who_remove_a_folder_one_is_late(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        storage.write_bytes(f"a/deep/{number}", b"1")
    meanwhile(monkeypatch, lambda: shutil.rmtree(storage.uri("a")))
    storage.remove("a")
    assert not storage.exists("a")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY])
def test_what_others_write_to_all_the_time_is_not_said_to_be_removed(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    storage = Storage("memory://bucket/busy")
    storage.write_bytes("a/x", b"1")

    def busy(*_: Any, **__: Any) -> None:
        raise OSError(number, "others were here")  # FileNotFoundError, for the first

    monkeypatch.setattr(type(storage._fs), "rm", busy)
    with pytest.raises(StorageFailed, match="bucket/busy/a: it cannot be removed, others write"):
        storage.remove("a")


def test_what_the_rest_is_known_by_is_removed_last(
    any_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("-a", "marker", "z/deep"):
        any_storage.write_bytes(f"a/{name}", b"1")
    erased, gone = Storage._erased, []

    def erase(storage: Storage, path: str) -> bool:
        gone.append(path)
        return erased(storage, path)

    monkeypatch.setattr(Storage, "_erased", erase)
    any_storage.remove("a", last="marker")
    assert gone == ["a/-a", "a/z", "a"]
    assert not any_storage.exists("a")
    any_storage.remove("a", last="marker")


def test_a_folder_is_not_what_begins_like_it(any_storage: Storage) -> None:
    for path in ("t/10/done.json", "t.json", "t2/a"):
        any_storage.write_bytes(path, b"1")
    assert any_storage.names("") == ["t", "t.json", "t2"]
    assert not any_storage.exists("t/1")
    any_storage.remove("t")
    assert any_storage.names("") == ["t.json", "t2"]
    any_storage.remove("t.json")
    assert any_storage.names("") == ["t2"]


def test_what_is_not_there_is_not_moved(any_storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        any_storage.move("no", "where")
    assert any_storage.names("") in ([], ["where"])


def test_what_others_write_is_seen_at_once(s3: S3Server) -> None:
    url = f"{s3.url}/{uuid.uuid4().hex}"
    here = Storage(url)
    assert here.names("folder") == []
    assert not here.exists("folder/a")
    code = (
        "import sys\nfrom djsandbox_ray.storage.store import Storage\n"
        "Storage(sys.argv[1]).write_bytes('folder/a', b'1')\n"
    )
    subprocess.run([sys.executable, "-c", code, url], check=True)
    assert here.exists("folder/a")
    assert here.names("folder") == ["a"]
    code = code.replace("write_bytes('folder/a', b'1')", "remove('folder')")
    subprocess.run([sys.executable, "-c", code, url], check=True)
    assert not here.exists("folder/a")
    assert here.names("folder") == []


def test_folders_are_copied_in_and_out(any_storage: Storage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a").write_bytes(b"1")
    (source / "b").write_bytes(b"22")
    any_storage.upload(source, "models/m")
    before = any_storage.stamps("models/m")
    assert {name: stamp["size"] for name, stamp in before.items()} == {"b": "2", "deep/a": "1"}
    any_storage.download("models/m", target)
    assert (target / "deep" / "a").read_bytes() == b"1"
    assert (target / "b").read_bytes() == b"22"
    any_storage.write_bytes("models/m/b", b"333")
    assert any_storage.stamps("models/m")["b"] != before["b"]
    assert any_storage.stamps("models/m")["deep/a"] == before["deep/a"]
    assert any_storage.stamps("models/none") == {}


def test_the_mark_of_a_folder_is_no_name(s3: S3Server) -> None:
    storage = Storage(f"{s3.url}/{uuid.uuid4().hex}")
    storage.write_bytes("folder/a", b"1")
    client = filesystems.filesystem(storage.url)[0]
    client.call_s3("put_object", Bucket=s3.bucket, Key=f"{storage.url.split('/', 3)[3]}/folder/")
    assert storage.names("folder") == ["a"]
    assert list(storage.stamps("folder")) == ["a"]


def test_an_object_named_to_lead_out_is_refused(s3: S3Server, tmp_path: Path) -> None:
    storage = Storage(f"{s3.url}/{uuid.uuid4().hex}")
    client = filesystems.filesystem(storage.url)[0]
    key = f"{storage.url.split('/', 3)[3]}/models/../../../escaped"
    client.call_s3("put_object", Bucket=s3.bucket, Key=key, Body=b"1")
    with pytest.raises(ValueError, match="not a path inside"):
        storage.download("models", tmp_path / "a" / "b" / "c")
    assert not list(tmp_path.rglob("escaped"))


def test_a_bucket_is_never_made(s3: S3Server) -> None:
    storage = Storage("s3://no-such-bucket/prefix")
    assert not storage.exists("a")
    assert storage.names("") == []
    with pytest.raises(BadInput, match=r"'s3://no-such-bucket/prefix' cannot be written.*bucket"):
        storage.write_json("a.json", 1)
    assert not Storage("s3://no-such-bucket/prefix").exists("a.json")


def test_no_credentials_and_no_server_are_said_so(s3: S3Server, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom djsandbox_ray.storage.store import Storage\n"
        "try:\n    Storage('s3://sandbox/x').exists('a')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )

    def said(changes: dict[str, str]) -> str:
        own = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        own |= {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", **changes}
        done = subprocess.run(
            [sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True
        )
        return done.stdout

    without = said({"AWS_ENDPOINT_URL": s3.endpoint})
    assert without.startswith("BadInput 's3://sandbox/x' refuses access")
    assert "AWS_ACCESS_KEY_ID" in without
    away = said({**s3.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert away.startswith("StorageFailed 's3://sandbox/x' is out of reach")
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in away


@pytest.mark.parametrize(
    ("url", "package", "extra"), [("s3://b/x", "s3fs", "s3"), ("gs://b/x", "gcsfs", "gcs")]
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(BadInput, match=rf"djsandbox-ray\[{extra}\]"):
        Storage(url)
    with pytest.raises(MissingExtra):
        filesystems.filesystem(url)


def test_text_is_read_from_anywhere(s3: S3Server, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: é")
    assert filesystems.read_text(str(tmp_path / "a.yaml")) == "name: é"
    Storage(s3.url).write_bytes("texts/a.yaml", "name: é".encode())
    assert filesystems.read_text(f"{s3.url}/texts/a.yaml") == "name: é"
    for missing in (str(tmp_path / "b.yaml"), f"{s3.url}/texts/b.yaml"):
        with pytest.raises(FileNotFoundError):
            filesystems.read_text(missing)


def test_other_errors_are_passed_on() -> None:
    with pytest.raises(KeyError), filesystems.reaching("s3://b"):
        raise KeyError
    with pytest.raises(BadInput, match=r"s3://\*\*\*@b"), filesystems.reaching("s3://me:secret@b"):
        raise PermissionError("no")
    with pytest.raises(BadInput, match="refuses access"), filesystems.reaching("gs://b"):
        raise OSError("Forbidden: b/a\nno")  # as gcsfs says it
    assert issubclass(BadInput, SandboxError)


def test_a_long_column_is_read_piece_by_piece(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.storage.store._BATCH_ROWS", 400)
    table = pa.table({"a": list(range(1000)), "b": ["x"] * 1000})
    for place in (storage, Storage("memory://long")):
        place.write_table("long.parquet", table)
        parts = list(place.read_batches("long.parquet", ["a"]))
        assert [len(part) for part in parts] == [400, 400, 200]
        assert pa.Table.from_batches(parts) == table.select(["a"])
