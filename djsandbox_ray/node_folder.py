"""Folders of this node that only this user writes, and locks that its processes share.

Locks are the system's own, so that they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from djsandbox_ray.errors import BadInput


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
