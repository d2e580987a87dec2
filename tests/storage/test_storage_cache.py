"""What a node keeps of remote folders: brought once, bounded, never half, never under a reader."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from damages import DAMAGES
from s3_server import S3Server

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.storage import cache
from djsandbox_ray.storage.cache import BYTES, FOLDER, cached
from djsandbox_ray.storage.seals import DIGESTED_BYTES
from djsandbox_ray.storage.store import Storage

CONFIG = b"[]"


@pytest.fixture
def remote(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(BYTES, "1000")
    storage = Storage(f"{s3.url}/{tmp_path.name}-{time.time_ns()}")
    for name in "abc":
        storage.write_bytes(f"{name}/deep/weights", name.encode() * 300)
        storage.write_bytes(f"{name}/config.json", CONFIG)
    return storage


def _entries(tmp_path: Path) -> list[str]:
    """Return the first letter of every entry's content, sorted."""
    return sorted(path.read_text()[0] for path in (tmp_path / "cache").glob("*/files/deep/weights"))


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which folders were downloaded."""
    whole, names = Storage.download, []

    def counted(self: Storage, folder: str, target: Path) -> None:
        names.append(folder)
        whole(self, folder, target)

    monkeypatch.setattr(Storage, "download", counted)
    return names


def _is_whole(folder: Path) -> bool:
    """Say whether a folder is what lies under the name ``a``."""
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    return files == {"deep/weights": b"a" * 300, "config.json": CONFIG}


def test_a_local_folder_is_given_as_it_is(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with cached(storage, "models/m") as folder:
        assert folder == tmp_path / "models" / "m"


def test_a_remote_folder_is_brought_once(
    remote: Storage, tmp_path: Path, brought: list[str]
) -> None:
    for _ in range(2):
        with cached(remote, "a") as folder:
            assert _is_whole(folder)
    assert brought == ["a"]
    assert _entries(tmp_path) == ["a"]


def test_a_folder_that_has_changed_is_brought_again(remote: Storage) -> None:
    with cached(remote, "a") as before:
        pass
    remote.write_bytes("a/deep/weights", b"A" * 300)
    with cached(remote, "a") as after:
        assert after != before
        assert (after / "deep" / "weights").read_bytes() == b"A" * 300


def test_the_entry_used_longest_ago_makes_room(remote: Storage, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "a"):
        with cached(remote, name):
            pass
    assert _entries(tmp_path) == ["a", "b", "c"]
    remote.write_bytes("d/deep/weights", b"d" * 100)
    with cached(remote, "d"):
        pass
    assert _entries(tmp_path) == ["a", "c", "d"], "b was used longest ago"


def test_what_is_read_is_never_removed(remote: Storage, tmp_path: Path) -> None:
    remote.write_bytes("d/deep/weights", b"d" * 600)
    with cached(remote, "a") as held, cached(remote, "b"), cached(remote, "c"):
        with pytest.raises(
            SandboxError, match=r"no room: 906 of 1000 bytes.*DJSANDBOX_CACHE_BYTES"
        ):
            cached(remote, "d").__enter__()
        assert (held / "deep" / "weights").read_bytes() == b"a" * 300
    with cached(remote, "a") as held, cached(remote, "d"):
        assert (held / "deep" / "weights").read_bytes() == b"a" * 300
        assert _entries(tmp_path) == ["a", "d"]


def test_a_reader_in_another_process_counts_until_it_dies(remote: Storage, tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom djsandbox_ray.storage.cache import cached\n"
        "from djsandbox_ray.storage.store import Storage\n"
        "with cached(Storage(sys.argv[1]), 'a') as folder:\n"
        "    print(folder, flush=True)\n    time.sleep(600)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", code, remote.url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout is not None
        held = Path(reader.stdout.readline().strip())
        remote.write_bytes("d/deep/weights", b"d" * 900)
        with pytest.raises(SandboxError, match="no room"):
            cached(remote, "d").__enter__()
        assert (held / "config.json").exists()
    finally:
        reader.kill()
        reader.wait()
    with cached(remote, "d"):
        assert not held.exists()


def test_a_download_that_breaks_off_leaves_nothing(
    remote: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Storage.download

    def torn(self: Storage, folder: str, target: Path) -> None:
        whole(self, folder, target)
        raise ConnectionError("torn")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "download", torn)
        with pytest.raises(ConnectionError):
            cached(remote, "a").__enter__()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    with cached(remote, "a") as folder:
        assert (folder / "config.json").exists()


def test_what_a_killed_download_left_is_removed(remote: Storage, tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom djsandbox_ray.storage.cache import cached\n"
        "from djsandbox_ray.storage.store import Storage\n"
        "whole = Storage.download\n"
        "def killed(*arguments):\n    whole(*arguments)\n    os._exit(9)\n"
        "Storage.download = killed\n"
        "cached(Storage(sys.argv[1]), 'a').__enter__()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, remote.url], check=False)
    assert done.returncode == 9
    left = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(left) == 1
    with cached(remote, "a") as folder:
        assert folder.parent not in left
    assert not left[0].exists()


def test_many_at_once_bring_it_once(remote: Storage, brought: list[str]) -> None:
    def read(number: int) -> bytes:
        with cached(Storage(remote.url), "ab"[number % 2]) as folder:
            return (folder / "deep" / "weights").read_bytes()

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(read, range(16)))
    assert found == [b"a" * 300, b"b" * 300] * 8
    assert sorted(brought) == ["a", "b"]


def test_a_folder_that_is_not_there_or_too_large(remote: Storage) -> None:
    with pytest.raises(BadInput, match="there is no such folder"):
        cached(remote, "none").__enter__()
    remote.write_bytes("large/weights", b"1" * 1001)
    with pytest.raises(BadInput, match="has 1001 bytes, but DJSANDBOX_CACHE_BYTES allows 1000"):
        cached(remote, "large").__enter__()


@pytest.mark.parametrize("text", ["", "0", "-5", "20G"])
def test_a_bound_that_is_no_number(
    remote: Storage, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(BYTES, text)
    with pytest.raises(BadInput, match="a number of bytes is needed"):
        cached(remote, "a").__enter__()


def test_the_cache_of_another_user_is_not_used(
    remote: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "planted"
    other.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of another user")
    os.chown(other, 65534, 65534)
    monkeypatch.setenv(FOLDER, str(other))
    with pytest.raises(BadInput, match="belongs to another user"):
        cached(remote, "a").__enter__()


def test_what_is_not_ours_is_neither_removed_nor_counted(remote: Storage, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    for name in ("project", "project.part", f"{'0' * 32}.part"):
        (root / name).mkdir(parents=True)
        (root / name / "precious").write_text("x" * 5000)
    (root / "file.part").touch()
    (root / "link.part").symlink_to(tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    foreign = {path: path.stat().st_size for path in root.rglob("*")}
    remote.write_bytes("d/deep/weights", b"d" * 600)
    for name in ("a", "b", "c", "d"):
        with cached(remote, name):
            pass
    assert _entries(tmp_path) == ["c", "d"]
    assert {path: path.stat().st_size for path in foreign} == foreign
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_what_is_in_the_place_of_an_entry_is_said_and_stays(
    remote: Storage, tmp_path: Path
) -> None:
    with cached(remote, "a") as folder:
        entry = folder.parent
    for path in entry.iterdir():
        path.rename(tmp_path / path.name)
    (entry / "precious").touch()
    with pytest.raises(SandboxError, match="is in the way, and is not ours"):
        cached(remote, "a").__enter__()
    assert (entry / "precious").exists()


# Damage.


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["files/deep/weights", "files/config.json", "seals.json"])
def test_a_damaged_file_is_brought_again(
    remote: Storage,
    brought: list[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: str,
) -> None:
    with cached(remote, "a") as folder:
        file = folder.parent / name
    DAMAGES[damage](file)
    with cached(remote, "a") as folder:
        assert _is_whole(folder)
    assert brought == ["a", "a"]
    assert f"a is brought again: {name}" in caplog.text or f"{file} is" in caplog.text
    with cached(remote, "a") as folder:
        assert _is_whole(folder)
    assert len(brought) == 2, "once is enough"
    assert not [*folder.parent.parent.glob("*.part")]


@pytest.mark.parametrize("name", ["files/deep/weights", "files/deep", "files", "seals.json"])
@pytest.mark.parametrize("made", ["folder", "file", "link"])
def test_something_else_in_the_place_of_a_part_is_replaced(
    remote: Storage, brought: list[str], tmp_path: Path, name: str, made: str
) -> None:
    with cached(remote, "a") as folder:
        part = folder.parent / name
    part.rename(tmp_path / "was")
    match made:
        case "folder":
            (part / "deep").mkdir(parents=True)
        case "file":
            part.write_text("{}")
        case "link":
            part.symlink_to(tmp_path / "nowhere")
    with cached(remote, "a") as folder:
        assert _is_whole(folder)
    assert brought == ["a", "a"]


def test_every_byte_is_compared_of_files_of_any_size(
    remote: Storage, brought: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere, large files are known by their sizes: here, they decide what is computed."""
    monkeypatch.setenv(BYTES, str(4 * DIGESTED_BYTES))
    remote.write_bytes("large/weights", bytes(DIGESTED_BYTES + 1))
    with cached(remote, "large") as folder:
        DAMAGES["flip"](folder / "weights")
    with cached(remote, "large") as folder:
        assert not any((folder / "weights").read_bytes())
    assert brought == ["large", "large"]


def test_what_a_library_leaves_beside_the_files_is_no_damage(
    remote: Storage, brought: list[str]
) -> None:
    with cached(remote, "a") as folder:
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "model.pyc").touch()
    with cached(remote, "a"):
        assert brought == ["a"]


def test_many_at_once_bring_what_is_damaged_once(remote: Storage, brought: list[str]) -> None:
    with cached(remote, "a") as folder:
        DAMAGES["flip"](folder / "deep" / "weights")

    def read(_: int) -> bool:
        with cached(Storage(remote.url), "a") as folder:
            return _is_whole(folder)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(16)))
    assert brought == ["a", "a"]


def test_what_is_damaged_is_replaced_under_a_reader(remote: Storage) -> None:
    with cached(remote, "a") as held:
        file = (held / "deep" / "weights").open("rb")
        DAMAGES["half"](held / "config.json")
        with cached(remote, "a") as folder:
            assert folder == held
            assert _is_whole(held)
        with file:
            assert file.read() == b"a" * 300, "what is open stays"


def test_a_disk_that_damages_all_that_is_brought_is_said(
    remote: Storage, brought: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_wrong", lambda entry: "config.json is not what was written")
    with pytest.raises(SandboxError) as error:
        cached(remote, "a").__enter__()
    assert str(error.value).startswith(f"{tmp_path}/cache/")
    assert "is damaged again as soon as it was brought (config.json is not what" in str(error.value)
    assert "set DJSANDBOX_CACHE to a folder on another disk" in str(error.value)
    assert brought == ["a", "a"]


@pytest.mark.parametrize("damage", ["empty", "half", "gone"])
def test_a_download_of_another_size_is_no_entry(
    remote: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    whole = Storage.download

    def torn(self: Storage, folder: str, target: Path) -> None:
        whole(self, folder, target)
        DAMAGES[damage](target / "deep" / "weights")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "download", torn)
        with pytest.raises(SandboxError, match="a/deep/weights changed, or broke off"):
            cached(remote, "a").__enter__()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    with cached(remote, "a") as folder:
        assert _is_whole(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_entry_that_is_not_known_as_ours_is_named(remote: Storage, damage: str) -> None:
    """It may be somebody's: it is for the user to remove it."""
    with cached(remote, "a") as folder:
        entry = folder.parent
    DAMAGES[damage](entry / ".djsandbox")
    for _ in range(2):
        with pytest.raises(SandboxError, match="is in the way, and is not ours: move it") as error:
            cached(remote, "a").__enter__()
        assert str(error.value).startswith(f"{entry} ")
    entry.rename(entry.with_name("mine"))
    entry.touch()
    with pytest.raises(SandboxError, match="is in the way"):
        cached(remote, "a").__enter__()


@pytest.mark.parametrize("name", [".lock", "{key}.lock"])
def test_a_folder_in_the_place_of_a_lock_is_named(
    remote: Storage, tmp_path: Path, name: str
) -> None:
    with cached(remote, "a") as folder:
        entry = folder.parent
    lock = entry.with_name(name.format(key=entry.name))
    lock.unlink()
    lock.mkdir()
    DAMAGES["gone"](folder / "config.json")
    with pytest.raises(SandboxError, match=f"^{lock} is no file that can be locked: remove it"):
        cached(remote, "a").__enter__()
    lock.rmdir()
    with cached(remote, "a") as folder:
        assert _is_whole(folder)


def test_a_file_in_the_place_of_the_cache_is_named(
    remote: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    with pytest.raises(BadInput, match=r"file cannot be made \(File exists\): remove it, or set"):
        cached(remote, "a").__enter__()
