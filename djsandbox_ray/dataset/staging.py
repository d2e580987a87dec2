"""Folders for work in progress, and the removal of what killed runs left behind."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from djsandbox_ray.storage import Storage

_PREFIX = ".staging-"
_SECONDS_ELSEWHERE = 7 * 24 * 3600


@contextmanager
def staging(storage: Storage, parent: str) -> Iterator[str]:
    """Give a new folder below ``parent``, removed when the block ends, however it ends."""
    for name in storage.names(parent):
        if name.startswith(_PREFIX) and _is_left_over(name.removeprefix(_PREFIX)):
            storage.remove(f"{parent}/{name}")
    owner = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}-{uuid.uuid4().hex[:8]}"
    folder = f"{parent}/{_PREFIX}{owner}"
    try:
        yield folder
    finally:
        storage.remove(folder)


def _is_left_over(owner: str) -> bool:
    """Say whether the process is gone; of another machine, whether it began over a week ago."""
    parts = owner.rsplit("-", 3)
    if len(parts) != 4 or not (parts[1].isdigit() and parts[2].isdigit()):
        return False
    host, pid, started, _ = parts
    if host != socket.gethostname():
        return time.time() - int(started) > _SECONDS_ELSEWHERE
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
