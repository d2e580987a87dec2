"""What the package removes on a node: what it has made and what was left. Nothing foreign, ever."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.storage.own import (
    MARKER,
    clear_scratch,
    is_ours,
    locked,
    mark,
    own_folder,
    remove,
    scratch,
    temporary,
)

HEX = "0123456789abcdef" * 2


def _killed(root: Path, moment: str = "") -> None:
    """Have a process killed while it has a scratch folder, or at a moment of making one."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom djsandbox_ray.storage import own\n"
        "kill = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "if sys.argv[2]: setattr(own, sys.argv[2], kill) if hasattr(own, sys.argv[2]) else "
        "setattr(Path, sys.argv[2], kill)\n"
        "with own.scratch(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'big').write_text('x')\n    kill()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root), moment], check=False)
    assert done.returncode == -9


@pytest.mark.parametrize("moment", ["", "mark", "mkdir", "_is_named"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, moment: str) -> None:
    _killed(tmp_path, moment)
    assert list(tmp_path.iterdir())
    with scratch(tmp_path) as folder:
        assert not list(folder.iterdir())
        assert len(list(tmp_path.iterdir())) == 2, "the folder and its lock"
    assert not list(tmp_path.iterdir())


def _project(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "precious").write_text("of the user")


def _marked_otherwise(path: Path) -> None:
    _project(path)
    (path / MARKER).write_text(json.dumps({"made by": "another tool"}))


def _copied(path: Path) -> None:
    _project(path)
    mark(path, "scratch", HEX)


def _marked_for_something_else(path: Path) -> None:
    _project(path)
    mark(path, "cache")


def _marked_by_a_link(path: Path) -> None:
    _project(path)
    mark(path, "scratch")
    (path / MARKER).rename(path / "aside")
    (path / MARKER).symlink_to(path / "aside")


def _link_to_ours(path: Path) -> None:
    elsewhere = path.parent.parent / f"behind-{path.name}"
    _project(elsewhere)
    mark(elsewhere, "scratch", path.name)
    path.symlink_to(elsewhere)


def _empty(path: Path) -> None:
    path.mkdir()


FOREIGN: list[Callable[[Path], None]] = [
    _project,
    _marked_otherwise,
    _copied,
    _marked_for_something_else,
    _marked_by_a_link,
    _link_to_ours,
    _empty,
]


@pytest.mark.parametrize("plant", FOREIGN, ids=[plant.__name__[1:] for plant in FOREIGN])
@pytest.mark.parametrize("name", ["project", "f" * 32])
def test_what_is_not_ours_stays(tmp_path: Path, plant: Callable[[Path], None], name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    plant(root / name)
    for file in (f"{HEX}.lock", "project.lock", "a.part", f"{'e' * 32}"):
        (root / file).write_text("of the user")
    (root / f"{'d' * 32}.lock").symlink_to(tmp_path / "nothing")
    before = set(tmp_path.rglob("*"))
    _killed(root)
    with scratch(root):
        pass
    assert set(tmp_path.rglob("*")) == before


def test_links_in_ours_are_not_followed(tmp_path: Path) -> None:
    root, foreign = tmp_path / "root", tmp_path / "foreign"
    root.mkdir()
    _project(foreign)
    with scratch(root) as folder:
        (folder / "link").symlink_to(foreign)
        (folder / "file").symlink_to(foreign / "deep" / "precious")
    assert not list(root.iterdir())
    assert (foreign / "deep" / "precious").exists()


def test_who_works_in_a_folder_keeps_it(tmp_path: Path) -> None:
    with scratch(tmp_path) as held, ThreadPoolExecutor(8) as threads:

        def use(number: int) -> bool:
            with scratch(tmp_path) as folder:
                (folder / "x").write_text(str(number))
                clear_scratch(tmp_path)
                return (folder / "x").read_text() == str(number)

        assert all(threads.map(use, range(64)))
        assert held.is_dir()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_removed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remove(tmp_path / "not there")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SandboxError, match=r"link cannot be removed: .*symbolic link"):
        remove(tmp_path / "link")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shutil, "rmtree", _refuse)
        with scratch(tmp_path) as folder:
            pass
    assert f"{folder.parent} cannot be removed: [Errno 13]" in caplog.text
    clear_scratch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def _refuse(folder: Path, **_: object) -> None:
    raise PermissionError(13, "as another user")


class Killed(BaseException):
    pass


def _killed_at(patched: pytest.MonkeyPatch, step: int) -> None:
    """Have a process end when it is about to remove its next file or folder, after some."""
    steps = count()

    def until(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **more: Any) -> None:
            if next(steps) == step:
                raise Killed
            real(*args, **more)

        return call

    for name in ("unlink", "rmdir"):
        patched.setattr(os, name, until(getattr(os, name)))


@pytest.mark.parametrize("step", range(7))
def test_what_was_removed_in_part_is_still_ours(tmp_path: Path, step: int) -> None:
    folder = tmp_path / HEX
    folder.mkdir()
    mark(folder, "scratch")
    for name in ("-first", "z-last"):
        (folder / name).mkdir()
        (folder / name / "big").write_text("x")
    with pytest.MonkeyPatch.context() as patched, suppress(Killed):
        _killed_at(patched, step)
        remove(folder)
    assert folder.exists() is (step < 6), "of 4 in it, the marker and the folder"
    assert is_ours(folder, "scratch") is (step < 5)


def _torn(file: Path, text: str) -> None:
    file.touch()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_marker_that_a_full_disk_tears_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_text", _torn)
    with pytest.raises(OSError, match="No space left"), scratch(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_an_empty_marker_is_none_yet(tmp_path: Path) -> None:
    """It is what a killed process, or a power cut, leaves of one."""
    _killed(tmp_path, "mark")
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (left / MARKER).touch()
    clear_scratch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_removed_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed(tmp_path, "mark")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rmdir", _refuse)
        clear_scratch(tmp_path)
    assert list(tmp_path.iterdir())
    clear_scratch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "a.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(SandboxError, match="no file that can"), locked(tmp_path / "a.lock"):
        pass
    assert not (tmp_path / "precious").exists()


def test_a_folder_is_ours_under_the_name_that_it_was_marked_with(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    assert not is_ours(folder, "cache")
    mark(folder, "cache", "two")
    assert not is_ours(folder, "cache")
    assert is_ours(folder, "cache", "two")
    assert is_ours(folder.rename(tmp_path / "two"), "cache")


def test_temporary_folders_lie_where_those_of_the_system_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary() as folder:
        assert folder.is_relative_to(tmp_path / f"djsandbox-tmp-{os.getuid()}")
    assert own_folder("tmp").stat().st_mode & 0o777 == 0o700
