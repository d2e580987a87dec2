"""``run.json`` and ``config.yaml``: what a run is, what made it, and which rounds it had."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml

from djsandbox_ray import __version__
from djsandbox_ray.masking import masked
from djsandbox_ray.storage import Storage
from djsandbox_ray.workflows.guard import refuse_if_running, this_process
from djsandbox_ray.workflows.parameters import plain
from djsandbox_ray.workflows.rounds import Outcome, Round

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
        judged = [plain(asdict(item)) for item in outcome.judged]
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
        self._storage.write_json(self._path, {**self._content, "rounds": self._rounds})


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
