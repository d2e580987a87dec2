"""``run.json`` and ``config.yaml``: what a run is, what made it, and which rounds it had.

One run, one writer: a second process is refused, on this machine and on this Ray cluster.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

import psutil
import yaml

from djsandbox_ray import __version__
from djsandbox_ray.errors import BadInput, Damaged, Missing, Stopped, StorageFailed
from djsandbox_ray.masking import masked
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.language.parameters import as_data
from djsandbox_ray.workflows.language.repeat import Outcome, Round

logger = logging.getLogger(__name__)

_PACKAGES = (
    "ray",
    "py-data-juicer",
    "torch",
    "open_clip_torch",
    "transformers",
    "pylance",
    "mlflow",
)


Ending = Literal["COMPLETED", "FAILED", "STOPPED"]
"""``STOPPED``: by its user. The same command resumes it, as it does a run that has failed."""


class RunState:
    """The state of a run in the storage, while this process writes it.

    As a context it notes how the run ended, whatever happens, and lets Ctrl-C end it as
    :class:`~djsandbox_ray.errors.Stopped`.

    Args:
        storage: of the run.
        first: its first round.

    Raises:
        BadInput: another process is writing the run.
    """

    def __init__(self, storage: Storage, first: Round) -> None:
        refuse_if_running(storage, first.run)
        self._storage = storage
        self._path = f"{first.folder}/run.json"
        self._rounds: list[dict[str, Any]] = []
        self._content = {
            "state": "RUNNING",
            "process": this_process(),
            "started": _now(),
            "finished": None,
            "versions": {"djsandbox-ray": __version__, **_versions()},
            "git_commit": git_commit(),
            "seeds": list(range(first.config.trials.seeds)),
            "pool_seed": first.config.pools.seed,
        }
        self.begin(first)

    def __enter__(self) -> RunState:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            self.end("COMPLETED" if kind is None else "STOPPED" if stopped else "FAILED")
        except StorageFailed as failure:
            if kind is None:
                raise
            logger.warning("how the run ended cannot be noted: %s", failure)
        if stopped:
            raise Stopped("what is finished is kept; the same command resumes the run") from None

    def begin(self, this: Round) -> None:
        """Note that a round begins, and keep its resolved configuration."""
        resolved = this.config.model_dump(mode="json", by_alias=True)
        text = yaml.safe_dump(masked(resolved), sort_keys=False, allow_unicode=True)
        self._storage.write_bytes(f"{this.folder}/config.yaml", text.encode())
        del self._rounds[this.number :]
        self._rounds.append({"round": this.number, "folder": this.folder, "state": "RUNNING"})
        self._write()

    def conclude(self, outcome: Outcome) -> None:
        """Note how the round came out."""
        judged = [as_data(asdict(item)) for item in outcome.judged]
        self._rounds[-1] |= {"state": "COMPLETED", "targets": judged, "then": outcome.reason}
        self._write()

    def end(self, state: Ending) -> None:
        """Note how the run ended; of several words on it, the first counts."""
        if self._content["state"] != "RUNNING":
            return
        if state != "COMPLETED":
            self._rounds[-1]["state"] = state
        self._content |= {"state": state, "finished": _now()}
        self._write()

    def _write(self) -> None:
        self._storage.write_sealed(self._path, {**self._content, "rounds": self._rounds})


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def git_commit() -> str | None:
    """Return the commit of the package's own checkout, if it runs from one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return os.environ.get("DJSANDBOX_GIT_COMMIT")
    result = subprocess.run(
        shlex.split("git rev-parse HEAD"), cwd=here, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def refuse_if_running(storage: Storage, name: str) -> None:
    """Refuse to write into a run that another living process is writing.

    A process of this machine is looked up; the driver of another machine is known to be alive only
    while this process is connected to the same Ray cluster, which is then asked. What cannot be
    known does not block: a run that was cut off can always be resumed.

    Raises:
        BadInput: says which process or job it is.
    """
    path = f"runs/{name}/run.json"
    try:
        state = storage.read_sealed(path)
    except Missing:
        return
    except Damaged as error:
        # Who wrote it cannot be known; what cannot be known does not block.
        logger.warning("%s: it is written anew", error.what)
        return
    owner = state.get("process")
    if state.get("state") == "RUNNING" and owner and not _is_this(owner) and _is_alive(owner):
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
