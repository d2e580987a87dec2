"""What a node keeps of remote folders, such as models: brought once, bounded in bytes.

``$DJSANDBOX_CACHE/<key>/`` holds a folder as it was when its files had certain sizes, times and
hashes: a folder that changes is another entry. All processes of a node share the cache. Under the
lock of the whole cache one of them at a time makes room and downloads; the entry appears under its
name when it is complete. Who reads an entry holds a shared lock on it, and an entry that is read is
never removed. Locks are the system's own, so that they end with the process that holds them,
however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.storage.store import Storage

FOLDER, BYTES = "DJSANDBOX_CACHE", "DJSANDBOX_CACHE_BYTES"
"""Environment variables: the folder, and how many bytes it may hold."""
DEFAULT_BYTES = 20 * 10**9
_PART, _LOCK = ".part", ".lock"
# Lock files are never removed: who waits for a file that is gone would hold nothing.


@contextmanager
def cached(storage: Storage, path: str) -> Iterator[Path]:
    """Give a folder of a storage as a local one, to be read only; a local one is given as it is.

    Args:
        storage: where it lies.
        path: of a folder; the entry stays as long as the block runs.

    Raises:
        BadInput: there is no such folder, or it is larger than the cache may be.
        SandboxError: what other processes read leaves no room for it.
    """
    if storage.is_local:
        yield Path(storage.uri(path))
        return
    stamps = storage.stamps(path)
    if not stamps:
        raise BadInput(f"{storage.shown}/{path}: there is no such folder")
    key = content_id("folder", storage.uri(path), stamps)
    root = _root()
    while True:
        with locked(root / f"{key}{_LOCK}", shared=True) as file:
            if (root / key).is_dir():
                os.utime(file)  # the time of its last use
                yield root / key
                return
        _bring(storage, path, root, key, sum(int(stamp["size"]) for stamp in stamps.values()))


def _root() -> Path:
    return own_folder(FOLDER, "cache")


def _most() -> int:
    text = os.environ.get(BYTES, str(DEFAULT_BYTES))
    if not text.isdecimal() or int(text) == 0:
        raise BadInput(f"{BYTES}={text!r}: a number of bytes is needed, such as {DEFAULT_BYTES}")
    return int(text)


def _bring(storage: Storage, path: str, root: Path, key: str, size: int) -> None:
    """Download a folder, unless another process has just done so."""
    with locked(root / _LOCK):
        if (root / key).is_dir():
            return
        _make_room(root, size, f"{storage.shown}/{path}")
        part = root / f"{key}{_PART}"
        part.mkdir()
        try:
            storage.download(path, part)
            part.rename(root / key)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _make_room(root: Path, size: int, what: str) -> None:
    """Remove what killed processes have left, and the entries whose last use is longest ago."""
    most = _most()
    if size > most:
        raise BadInput(f"{what} has {size} bytes, but {BYTES} allows {most}")
    for part in root.glob(f"*{_PART}"):
        shutil.rmtree(part)
    entries = sorted(
        (path for path in root.iterdir() if path.is_dir()),
        key=lambda path: path.with_name(f"{path.name}{_LOCK}").stat().st_mtime_ns,
    )
    sizes = {entry: _size(entry) for entry in entries}
    for entry in entries:
        if sum(sizes.values()) + size <= most:
            return
        if _evicted(entry):
            del sizes[entry]
    if sum(sizes.values()) + size > most:
        raise SandboxError(
            f"{what} has {size} bytes, for which {root} has no room: {sum(sizes.values())} of "
            f"{most} bytes are in use ({BYTES} allows more)"
        )


def _evicted(entry: Path) -> bool:
    """Remove an entry, unless somebody reads it."""
    try:
        with locked(entry.with_name(f"{entry.name}{_LOCK}"), wait=False):
            gone = entry.rename(entry.with_name(f"{entry.name}{_PART}"))
    except BlockingIOError:
        return False
    shutil.rmtree(gone)
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def own_folder(variable: str, name: str) -> Path:
    """Return a folder of this node, made if need be.

    Args:
        variable: of the environment, which may say where it is.
        name: of one in the temporary directory, where it does not.

    Raises:
        BadInput: it belongs to another user, who could choose what is loaded or run here.
    """
    given = os.environ.get(variable)
    folder = Path(given or Path(tempfile.gettempdir(), f"djsandbox-{name}-{os.getuid()}"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise BadInput(f"{folder} belongs to another user; set {variable} to another folder")
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
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        yield file
    finally:
        os.close(file)
