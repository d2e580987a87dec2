"""Files of a disk while they are written, and what is left of them when their writer was killed.

``<name>.<writer>.part``: the writer names its process, and holds the system's lock on the file. One
whose process is known to be gone is removed at once; of a writer elsewhere, one that nobody has
locked and that did not change for longer than an owner may be silent.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from djsandbox_ray.storage.processes import Process

SUFFIX = ".part"
_NAME = re.compile(r".+\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{32}\.part")


@contextmanager
def written(target: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it appears under its name, whole, only when the block ends well."""
    this = Process.this()
    writer = f"{_space(this)}-{this.pid}-{this.started}-{uuid4().hex}"
    part = target.with_name(f"{target.name}.{writer}{SUFFIX}")
    try:
        with part.open("wb") as file:
            _lock(file.fileno())  # nobody removes it before, as our process lives
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        with suppress(OSError):  # a disk that fails has said so
            part.unlink(missing_ok=True)


class Leftovers:
    """The parts below some folders, looked at twice.

    Args:
        folders: links in them are not followed, and tables of Lance not entered.
        watch: seconds without a change after which a writer elsewhere counts as dead.
    """

    def __init__(self, folders: Sequence[Path], watch: float) -> None:
        self._watch, self._since = watch, time.monotonic()
        self._unknown: dict[Path, tuple[int, int]] = {}
        for part in _parts(folders):
            writer = _writer(part)
            if writer is not None and writer.is_gone:
                part.unlink(missing_ok=True)
            elif writer is None and (state := _state(part)) is not None:
                self._unknown[part] = state

    def look_again(self) -> None:
        """Remove what did not change since the first look, if that is long enough ago."""
        if time.monotonic() - self._since < self._watch:
            return
        for part, state in self._unknown.items():
            if _state(part) == state and _is_free(part):
                part.unlink(missing_ok=True)


def _parts(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        for root, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.endswith(".lance")]
            for name in names:
                path = Path(root, name)
                if _NAME.fullmatch(name) and not path.is_symlink():
                    yield path


def _writer(part: Path) -> Process | None:
    """Return who writes a part; None if it is a process of another system or namespace."""
    match, here = _NAME.fullmatch(part.name), Process.this()
    if match is None or not here.space or match[1] != _space(here):
        return None
    return Process(here.space, int(match[2]), int(match[3]))


def _space(process: Process) -> str:
    return hashlib.blake2b(process.space.encode(), digest_size=4).hexdigest()


def _state(part: Path) -> tuple[int, int] | None:
    try:
        found = part.lstat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _is_free(part: Path) -> bool:
    """Say whether nobody holds the lock; where there are no locks, nothing is known to be free."""
    try:
        file = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _lock(file)
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
