"""One run, one writer: a second process on this machine is refused."""

from __future__ import annotations

import os
from socket import gethostname
from typing import Any

import psutil

from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage import Storage


def refuse_if_running(storage: Storage, name: str) -> None:
    """Refuse to write into a run that another living process of this machine is writing.

    Raises:
        BadInput: says which process it is.
    """
    path = f"runs/{name}/run.json"
    if not storage.exists(path):
        return
    state = storage.read_json(path)
    owner = state.get("process")
    if state["state"] == "RUNNING" and owner and owner != this_process() and _is_alive(owner):
        raise BadInput(
            f"the run {name!r} in {storage.shown} is being run by process "
            f"{owner['pid']}; wait for it, stop it, or choose another name"
        )


def this_process(pid: int | None = None) -> dict[str, Any]:
    """Identify a process of this machine: numbers are given again, the time makes them unique."""
    return {
        "host": gethostname(),
        "pid": pid or os.getpid(),
        "started": psutil.Process(pid).create_time(),
    }


def _is_alive(owner: dict[str, Any]) -> bool:
    if owner["host"] != gethostname():
        return False  # cannot be known
    try:
        zombie = psutil.Process(owner["pid"]).status() == psutil.STATUS_ZOMBIE
        return not zombie and this_process(owner["pid"]) == owner
    except psutil.NoSuchProcess:
        return False
