"""One run, one writer: a second process is refused, on this machine and on this Ray cluster."""

from __future__ import annotations

import json
import os
from socket import gethostname
from typing import Any

import psutil

from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage import Storage


def refuse_if_running(storage: Storage, name: str) -> None:
    """Refuse to write into a run that another living process is writing.

    A process of this machine is looked up; the driver of another machine is known to be alive only
    while this process is connected to the same Ray cluster, which is then asked. What cannot be
    known does not block: a run that was cut off can always be resumed.

    Raises:
        BadInput: says which process or job it is.
    """
    path = f"runs/{name}/run.json"
    if not storage.exists(path):
        return
    state = storage.read_json(path)
    owner = state.get("process")
    if state["state"] == "RUNNING" and owner and not _is_this(owner) and _is_alive(owner):
        raise BadInput(
            f"the run {name!r} in {storage.shown} is being run by {_called(owner)}; "
            "wait for it, stop it, or choose another name"
        )


def this_process() -> dict[str, Any]:
    """Identify this process: on its machine, and as a driver of the Ray cluster it is part of."""
    return {**_process(os.getpid()), "ray": _driver()}


def _process(pid: int) -> dict[str, Any]:
    """Identify a process of this machine: numbers are given again, the time makes them unique."""
    started = psutil.Process(pid).create_time()
    return {"host": gethostname(), "pid": pid, "started": started}


def _driver() -> dict[str, Any] | None:
    """Identify this process to Ray; None if it is not connected."""
    import ray

    if not ray.is_initialized():
        return None
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    here = ray.get_runtime_context()
    return {
        "node": here.get_node_id(),
        "job": here.get_job_id(),
        "submission": config.get("metadata", {}).get("job_submission_id"),
    }


def _is_this(owner: dict[str, Any]) -> bool:
    return _process(os.getpid()).items() <= owner.items()


def _is_alive(owner: dict[str, Any]) -> bool:
    if owner["host"] != gethostname():
        return _is_alive_in_ray(owner.get("ray"))
    try:
        zombie = psutil.Process(owner["pid"]).status() == psutil.STATUS_ZOMBIE
        return not zombie and _process(owner["pid"]).items() <= owner.items()
    except psutil.NoSuchProcess:
        return False


def _is_alive_in_ray(driver: dict[str, Any] | None) -> bool:
    import ray

    if driver is None or not ray.is_initialized():
        return False
    # Ids of jobs are counted anew in every cluster; those of nodes are unique.
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    if driver["node"] not in {node["NodeID"] for node in nodes if node["Alive"]}:
        return False
    # The public list of jobs needs a dashboard, which a cluster may be without.
    jobs: list[dict[str, Any]] = ray._private.state.jobs()  # type: ignore[no-untyped-call]
    return any(job["JobID"] == driver["job"] and not job["IsDead"] for job in jobs)


def _called(owner: dict[str, Any]) -> str:
    submission = (owner.get("ray") or {}).get("submission")
    where = "" if owner["host"] == gethostname() else f" on {owner['host']}"
    return f"process {owner['pid']}{where}" + (f", the Ray job {submission}" if submission else "")
