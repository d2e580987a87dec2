"""The folder of this node for what outside code needs: environments, and files while it runs.

``$DJSANDBOX_OUTSIDE``, or one of this user's own under the temporary directory.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.node_folder import locked, own_folder

logger = logging.getLogger(__name__)

FOLDER = "DJSANDBOX_OUTSIDE"
"""Environment variable of a node: the folder."""
_LOCK = ".lock"


def node_folder(name: str) -> Path:
    """Return a folder of this node, made if need be, that only this user can write.

    Raises:
        BadInput: it belongs to another user, who could choose what is run here.
    """
    folder = own_folder(FOLDER, "outside") / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there.

    Raises:
        SandboxError: it cannot be, as when a program has written there as another user.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SandboxError(f"what a program left in {folder} cannot be removed: {error}") from error


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
            _clear(folder, lock)


def _remove_left(root: Path) -> None:
    # The lock is there before the folder: without one, nobody is about to use it.
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        lock = folder.with_name(f"{folder.name}{_LOCK}")
        with suppress(BlockingIOError), locked(lock, wait=False):
            _clear(folder, lock)


def _clear(folder: Path, lock: Path) -> None:
    """Remove a folder and its lock; one that cannot be removed is told, and tried again later."""
    try:
        remove(folder)
    except SandboxError as error:
        logger.warning("%s", error)
    lock.unlink(missing_ok=True)
