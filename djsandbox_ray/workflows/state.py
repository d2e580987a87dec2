"""``run.json`` and ``config.yaml``: what a run is, what made it, and which rounds it had.

One run, one writer: who holds its lease.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

import psutil
import yaml

from djsandbox_ray import __version__
from djsandbox_ray.errors import Stopped, StorageFailed
from djsandbox_ray.masking import masked
from djsandbox_ray.nodes.anchor import LOST, Anchor
from djsandbox_ray.storage.lease import Lease, Lost, take
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.ownership import lease_path
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


_NO_CLUSTER = Anchor()


def state_path(first: Round) -> str:
    """Return where the state of a run lies in the storage."""
    return f"{first.folder}/run.json"


def alone(storage: Storage, run: str, note: Callable[[str], None] = print) -> Lease:
    """Take the lease of a run; if it is lost, the main thread is stopped as by SIGTERM.

    Args:
        storage: of the run.
        run: its name.
        note: told when it takes a while to find out whether its owner is alive.

    Raises:
        Held: another process runs it; says which, and since when.
    """
    what = f"the run {run!r}"
    return take(storage, lease_path(run), what, on_lost=interrupt, note=note)


def interrupt() -> None:
    """Have the main thread end what it does, if it lets SIGTERM do that; from any thread."""
    main = threading.main_thread().ident
    if main is not None and callable(signal.getsignal(signal.SIGTERM)):
        signal.pthread_kill(main, signal.SIGTERM)


class RunState:
    """The state of a run in the storage, while this process writes it.

    As a context it notes how the run ended, whatever happens, and lets Ctrl-C, and the loss of the
    cluster, end it as :class:`~djsandbox_ray.errors.Stopped`.

    Args:
        lease: of the run; once it is lost, nothing is written.
        first: its first round.
        held: what the connection to the cluster hangs on.
    """

    def __init__(self, lease: Lease, first: Round, held: Anchor = _NO_CLUSTER) -> None:
        self.lease, self._anchor = lease, held
        self._storage = lease.storage
        self._path = state_path(first)
        self._rounds: list[dict[str, Any]] = []
        self._content = {
            "state": "RUNNING",
            "process": this_process(),
            "started": _now(),
            "finished": None,
            "versions": {"djsandbox-ray": __version__, **_versions()},
            "git_commit": git_commit(),
            "seeds": list(first.config.training.seed_numbers if first.config.training else ()),
            "pool_seed": first.config.pools.seed,
        }
        self.begin(first)

    def __enter__(self) -> RunState:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self.lease.lost is not None:
            raise Lost(self.lease.lost) from None
        lost = self._anchor.lost() if kind is not None else None
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            self.end("COMPLETED" if kind is None else "STOPPED" if stopped or lost else "FAILED")
        except StorageFailed as failure:
            if kind is None:
                raise
            logger.warning("how the run ended cannot be noted: %s", failure)
        if lost:
            raise Stopped(LOST.format(lost)) from None
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
        if self._content["state"] != "RUNNING" or self.lease.lost is not None:
            return
        if state != "COMPLETED":
            self._rounds[-1]["state"] = state
        self._content |= {"state": state, "finished": _now()}
        self._write()

    def _write(self) -> None:
        self.lease.check()
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
