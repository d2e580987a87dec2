"""The folder of this node for what outside code needs: environments, and files while it runs.

``$DJSANDBOX_OUTSIDE``, or one of this user's own under the temporary directory. Locks are the
system's own, so that they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from djsandbox_ray.errors import BadInput

FOLDER = "DJSANDBOX_OUTSIDE"
"""Environment variable of a node: the folder."""
_LOCK = ".lock"


def node_folder(name: str) -> Path:
    """Return a folder of this node, made if need be, that only this user can write.

    Raises:
        BadInput: it belongs to another user, who could choose what is run here.
    """
    given = os.environ.get(FOLDER)
    root = Path(given) if given else Path(tempfile.gettempdir(), f"djsandbox-outside-{os.getuid()}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise BadInput(f"the folder {root} belongs to another user; set {FOLDER} to another one")
    folder = root.absolute() / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock ``path``, a file that is made if need be and stays.

    Raises:
        BlockingIOError: somebody else holds it, and ``wait`` is false.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder that is gone afterwards; what killed processes left is removed too."""
    root = node_folder("scratch")
    _remove_left(root)
    folder = root / uuid4().hex
    lock = folder.with_name(f"{folder.name}{_LOCK}")
    with locked(lock):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _remove_left(root: Path) -> None:
    # The lock is there before the folder: without one, nobody is about to use it.
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        lock = folder.with_name(f"{folder.name}{_LOCK}")
        with suppress(BlockingIOError), locked(lock, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
