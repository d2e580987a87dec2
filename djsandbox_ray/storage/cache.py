"""What a node keeps of remote folders, such as models: brought once, bounded in bytes.

``$DJSANDBOX_CACHE/<key>/files/`` holds a folder as it was when its files had certain sizes, times
and hashes: a folder that changes is another entry. All processes of a node share the cache. Under
the lock of the whole cache one of them at a time makes room and downloads; the entry appears under
its name when it is complete. Who reads an entry holds a shared lock on it, and an entry that is
read is never removed to make room. What is not marked as ours is never touched, nor counted.

``seals.json`` beside the files says what was brought, and an entry is compared with it, whole,
before it is given. One that is damaged is brought again, whoever reads it: that would be wrong.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.storage.own import is_ours, locked, mark, own_folder, remove
from djsandbox_ray.storage.seals import broken_below, seals_from_json, seals_to_json, shortened
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

FOLDER, BYTES = "DJSANDBOX_CACHE", "DJSANDBOX_CACHE_BYTES"
"""Environment variables: the folder, and how many bytes it may hold."""
DEFAULT_BYTES = 20 * 10**9
_PART, _LOCK = ".part", ".lock"
_KIND, _FILES, _SEALS = "cache", "files", "seals.json"


@contextmanager
def cached(storage: Storage, path: str) -> Iterator[Path]:
    """Give a folder of a storage as a local one, to be read only; a local one is given as it is.

    Args:
        storage: where it lies.
        path: of a folder; the entry stays as long as the block runs.

    Raises:
        BadInput: there is no such folder, or it is larger than the cache may be.
        SandboxError: what other processes read leaves no room for it; something else is in its
            place; or it is damaged each time that it is brought.
    """
    if storage.is_local:
        yield Path(storage.uri(path))
        return
    stamps = storage.stamps(path)
    if not stamps:
        raise BadInput(f"{storage.shown}/{path}: there is no such folder")
    key = content_id("folder", storage.uri(path), stamps)
    entry = _root() / key
    damaged = False
    while True:
        with locked(_lock_of(entry), shared=True) as file:
            if _is_there(entry):
                wrong = _wrong(entry)
                if not wrong:
                    os.utime(file)  # the time of its last use
                    yield entry / _FILES
                    return
                if damaged:
                    raise SandboxError(
                        f"{entry} is damaged again as soon as it was brought ({wrong}): set "
                        f"{FOLDER} to a folder on another disk"
                    )
                damaged = True
        _bring(storage, path, entry, {name: int(stamp["size"]) for name, stamp in stamps.items()})


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


def _wrong(entry: Path) -> str:
    """Return what is wrong with an entry; nothing where its files are what was brought."""
    inside = Storage(str(entry))
    try:
        seals = seals_from_json(inside.read_sealed(_SEALS).get("files"))
        return shortened(broken_below(inside, _FILES, seals))
    except Damaged as error:  # of an earlier version, too
        return error.what
    except (SandboxError, OSError, ValueError) as error:
        return str(error)


def _bring(storage: Storage, path: str, entry: Path, sizes: Mapping[str, int]) -> None:
    """Download a folder, unless another process has just done so.

    Args:
        storage: where it lies.
        path: of the folder.
        entry: what it becomes.
        sizes: of its files, by path in it.

    Raises:
        SandboxError: it changes meanwhile, or there is no room for it.
    """
    what = f"{storage.shown}/{path}"
    with locked(entry.with_name(_LOCK)):
        if _is_there(entry):
            if not (wrong := _wrong(entry)):
                return
            logger.warning("%s is brought again: %s", what, wrong)
            remove(_aside(entry))
        _make_room(entry.parent, sum(sizes.values()), what)
        part = _part_of(entry)
        part.mkdir()
        try:
            mark(part, _KIND, entry.name)
            storage.download(path, part / _FILES)
            _seal(Storage(str(part)), sizes, what)
            part.rename(entry)
        finally:
            remove(part)


def _seal(part: Storage, sizes: Mapping[str, int], what: str) -> None:
    """Note what was brought, all of it: models are large, and read seldom.

    Raises:
        SandboxError: it is not as large as it was before.
    """
    found = {name: part.seal(f"{_FILES}/{name}", sys.maxsize) for name in sizes}
    seals = {name: seal for name, seal in found.items() if seal and seal.size == sizes[name]}
    if torn := sorted(sizes.keys() - seals.keys()):
        raise SandboxError(
            f"{what}/{torn[0]} changed, or broke off, while it was brought to this node: the same "
            "command brings it again"
        )
    part.write_sealed(_SEALS, {"files": seals_to_json(seals)})


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
        with locked(_lock_of(entry), wait=False):
            gone = _aside(entry)
    except BlockingIOError:
        return False
    remove(gone)
    return True


def _aside(entry: Path) -> Path:
    """Take an entry from its place, at once, to be removed; return where it is then.

    Raises:
        SandboxError: it cannot be moved.
    """
    try:
        return entry.rename(_part_of(entry))
    except OSError as error:
        raise SandboxError(f"{entry} cannot be moved: {error}; remove this folder") from error


def _part_of(entry: Path) -> Path:
    """Return a name under which nobody takes a folder for the entry."""
    return entry.with_name(f"{entry.name}.{uuid4().hex}{_PART}")


def _lock_of(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}{_LOCK}")


def _key(part: Path) -> str:
    """Return the name of the entry of which this is a part."""
    return part.name.removesuffix(_PART).rpartition(".")[0]


def _last_use(entry: Path) -> int:
    lock = _lock_of(entry)
    return lock.stat().st_mtime_ns if lock.is_file() else 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / _FILES).rglob("*") if path.is_file())
