"""What a node keeps of remote folders, such as models: brought once, bounded in bytes.

``$DJSANDBOX_CACHE/<key>/files/`` holds a folder as it was when its files had certain sizes, times
and hashes: a folder that changes is another entry. All processes of a node share the cache. Under
the lock of the whole cache one of them at a time makes room and downloads; the entry appears under
its name when it is complete. Who reads an entry holds a shared lock on it, and an entry that is
read is never removed. What is not marked as ours is never touched, nor counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.storage.own import is_ours, locked, mark, own_folder, remove
from djsandbox_ray.storage.store import Storage

FOLDER, BYTES = "DJSANDBOX_CACHE", "DJSANDBOX_CACHE_BYTES"
"""Environment variables: the folder, and how many bytes it may hold."""
DEFAULT_BYTES = 20 * 10**9
_PART, _LOCK = ".part", ".lock"
_KIND, _FILES = "cache", "files"


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
            if _is_there(root / key):
                os.utime(file)  # the time of its last use
                yield root / key / _FILES
                return
        _bring(storage, path, root, key, sum(int(stamp["size"]) for stamp in stamps.values()))


def _root() -> Path:
    return own_folder("cache", FOLDER)


def _most() -> int:
    text = os.environ.get(BYTES, str(DEFAULT_BYTES))
    if not text.isdecimal() or int(text) == 0:
        raise BadInput(f"{BYTES}={text!r}: a number of bytes is needed, such as {DEFAULT_BYTES}")
    return int(text)


def _is_there(entry: Path) -> bool:
    """Say whether an entry is there.

    Raises:
        SandboxError: something else is in its place.
    """
    if is_ours(entry, _KIND):
        return True
    if os.path.lexists(entry):
        raise SandboxError(f"{entry} is in the way, and is not ours: move it, or set {FOLDER}")
    return False


def _bring(storage: Storage, path: str, root: Path, key: str, size: int) -> None:
    """Download a folder, unless another process has just done so."""
    with locked(root / _LOCK):
        if _is_there(root / key):
            return
        _make_room(root, size, f"{storage.shown}/{path}")
        part = root / f"{key}.{uuid4().hex}{_PART}"
        part.mkdir()
        try:
            mark(part, _KIND, key)
            storage.download(path, part / _FILES)
            part.rename(root / key)
        finally:
            remove(part)


def _make_room(root: Path, size: int, what: str) -> None:
    """Remove what killed processes have left, and the entries whose last use is longest ago."""
    most = _most()
    if size > most:
        raise BadInput(f"{what} has {size} bytes, but {BYTES} allows {most}")
    for part in root.glob(f"*{_PART}"):
        if is_ours(part, _KIND, _key(part)):
            remove(part)
    entries = sorted((path for path in root.iterdir() if is_ours(path, _KIND)), key=_last_use)
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
            gone = entry.rename(entry.with_name(f"{entry.name}.{uuid4().hex}{_PART}"))
    except BlockingIOError:
        return False
    remove(gone)
    return True


def _key(part: Path) -> str:
    """Return the name of the entry of which this is a part."""
    return part.name.removesuffix(_PART).rpartition(".")[0]


def _last_use(entry: Path) -> int:
    lock = entry.with_name(f"{entry.name}{_LOCK}")
    return lock.stat().st_mtime_ns if lock.is_file() else 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / _FILES).rglob("*") if path.is_file())
