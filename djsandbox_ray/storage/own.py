"""Folders of this node that the package makes, and may therefore remove: nothing else ever is.

A folder is ours if a file in it says so: ``.djsandbox`` names the folder and what it is for, so
that not even a copy of one under another name counts. Links are never followed. Who works in a
folder holds the system's lock on a file beside it, which ends with its process however that ends,
in other containers of the same system too: what is ours and not locked was left by a process that
was killed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from djsandbox_ray.errors import BadInput, SandboxError

logger = logging.getLogger(__name__)

MARKER = ".djsandbox"
"""Name of the file that makes a folder ours."""
_LOCK = ".lock"
# Lock files of what is shared are never removed: who waits for one that is gone would hold nothing.
_SCRATCH, _FILES = "scratch", "files"
_NO_FILE = (errno.EISDIR, errno.ELOOP)
_SCRATCH_NAME = re.compile(r"[0-9a-f]{32}")


def own_folder(name: str, variable: str | None = None, *, within: Path | None = None) -> Path:
    """Return a folder of this node, made if need be.

    Args:
        name: of one in the temporary directory.
        variable: of the environment, which may say where it is instead.
        within: what it lies in, in place of the temporary directory.

    Raises:
        BadInput: it cannot be made, as when a file is in its place; or it belongs to another user,
            who could choose what is loaded or run here.
    """
    given = os.environ.get(variable) if variable else None
    folder = Path(
        given or (within or Path(tempfile.gettempdir())) / f"djsandbox-{name}-{os.getuid()}"
    )
    named = f"set {variable or 'TMPDIR'} to another folder"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be made ({error.strerror}): remove it, or {named}"
        ) from None
    if folder.stat().st_uid != os.getuid():
        raise BadInput(f"{folder} belongs to another user; {named}")
    return folder.absolute()


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[int]:
    """Hold a lock on a file, which is made if need be and stays; gives its descriptor.

    Args:
        path: of the file.
        shared: whether others may hold it in the same way.
        wait: whether to wait for who holds it otherwise.

    Raises:
        BlockingIOError: somebody else holds it, and ``wait`` is false.
        SandboxError: something else is in its place.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise SandboxError(f"{path} is no file that can be locked: remove it") from error
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        yield file
    finally:
        os.close(file)


def mark(folder: Path, kind: str, name: str | None = None) -> None:
    """Make a folder ours, before anything is put into it.

    Args:
        folder: a new one.
        kind: what it is for.
        name: that it is going to have.
    """
    file = folder / MARKER
    try:
        file.write_text(marker(kind, name or folder.name))
    except BaseException:
        file.unlink(missing_ok=True)  # a torn one, as on a full disk, makes it nobody's
        raise


def is_ours(folder: Path, kind: str, name: str | None = None) -> bool:
    """Say whether a folder is one that :func:`mark` was called on; a link to one is not."""
    file = folder / MARKER
    wanted = marker(kind, name or folder.name).encode()
    try:
        if folder.is_symlink() or file.is_symlink() or not file.is_file():
            return False
        with file.open("rb") as found:
            return found.read(len(wanted) + 1) == wanted
    except OSError:  # its owner has just removed it, or it may not be looked into
        return False


def marker(kind: str, name: str) -> str:
    """Return what the marker of a folder holds."""
    return json.dumps({"made by": "djsandbox_ray", "for": kind, "name": name}) + "\n"


def erase(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; what others remove meanwhile is no error.

    Raises:
        OSError: it cannot be; ``ENOTEMPTY`` if others have written there meanwhile.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def _unless_gone(_: object, __: str, raised: tuple[object, BaseException, object]) -> None:
    """Go on with a removal where somebody was faster, which else would end at that."""
    if not isinstance(raised[1], FileNotFoundError):
        raise raised[1]


def remove(folder: Path) -> None:
    """Remove a folder of ours with all that is in it, if it is there.

    Its marker goes last: a removal that is cut off leaves a folder that still is ours.

    Raises:
        SandboxError: it cannot be, as when a program has written there as another user.
    """
    try:
        if not folder.is_symlink():
            for path in folder.iterdir():
                if path.name != MARKER:
                    erase(path)
        shutil.rmtree(folder, onerror=_unless_gone)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SandboxError(f"{folder} cannot be removed: {error}") from error


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """Give an empty folder that is gone afterwards; what killed processes left is removed too.

    Args:
        root: where it is made; other things in it stay as they are.
    """
    clear_scratch(root)
    with _new_lock(root) as lock:
        folder = lock.with_suffix("")
        folder.mkdir(mode=0o700)
        try:
            mark(folder, _SCRATCH)
            (folder / _FILES).mkdir()
            yield folder / _FILES
        finally:
            _clear(folder, lock)


@contextmanager
def _new_lock(root: Path) -> Iterator[Path]:
    """Hold the lock of a folder that is not there yet."""
    while True:
        lock = _lock(root / uuid4().hex)
        with locked(lock) as file:
            if _is_named(lock, file):
                yield lock
                return
        # Before it was locked, another process took it for one that was left.


@contextmanager
def temporary() -> Iterator[Path]:
    """Give an empty folder of the temporary directory, as :func:`scratch` does."""
    with scratch(own_folder("tmp")) as folder:
        yield folder


def clear_scratch(root: Path) -> None:
    """Remove the scratch folders that killed processes have left."""
    # The lock is there before the folder: without one, nobody is about to use it.
    for path in root.iterdir():
        lock = _lock(path)
        if _SCRATCH_NAME.fullmatch(path.name) and (is_ours(path, _SCRATCH) or _is_bare(path)):
            with suppress(BlockingIOError), locked(lock, wait=False):
                _clear(path, lock)
        elif path.suffix == _LOCK and _is_stray_lock(path):
            with suppress(BlockingIOError), locked(path, wait=False):
                path.unlink(missing_ok=True)


def _clear(folder: Path, lock: Path) -> None:
    """Remove a folder and its lock; one that cannot be removed is told, and tried again later."""
    try:
        if is_ours(folder, _SCRATCH):
            remove(folder)
        else:
            with suppress(FileNotFoundError):
                if _is_bare(folder):
                    (folder / MARKER).unlink(missing_ok=True)
                folder.rmdir()
    except (SandboxError, OSError) as error:
        logger.warning("%s", error)
    if not os.path.lexists(folder):  # it is by its lock that one without a marker is known
        lock.unlink(missing_ok=True)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")


def _is_bare(folder: Path) -> bool:
    """Say whether a folder has its lock, but holds nothing: its maker was killed at once.

    A marker that is empty is nothing, too: it was not written yet, or never came to the disk.
    """
    try:
        if folder.is_symlink() or not _lock(folder).is_file():
            return False
        return all(path.name == MARKER and path.lstat().st_size == 0 for path in folder.iterdir())
    except OSError:  # no folder, or its owner has just removed it
        return False


def _is_stray_lock(path: Path) -> bool:
    """Say whether a lock of ours has no folder: its maker was killed before it made one."""
    if not _SCRATCH_NAME.fullmatch(path.stem) or path.is_symlink():
        return False
    with suppress(FileNotFoundError):
        found = path.lstat()
        return found.st_size == 0 and not os.path.lexists(path.with_suffix(""))
    return False


def _is_named(path: Path, file: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(file))
    return False
