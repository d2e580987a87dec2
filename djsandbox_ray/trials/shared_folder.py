"""A folder of a model that runs share, such as a scorer or a base: made once, or not there.

It lies under ``models/`` in the storage, and is complete where its marker is, which names size and
digest of its files. One run makes it at a time; the others wait, and take what it has made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from djsandbox_ray.storage.lease import RENEWAL, Lease, take
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.seals import broken_marked, seals_of, seals_to_json
from djsandbox_ray.storage.store import Storage

_KEPT = "model.json"
"""The marker of what a trial has trained."""


@dataclass(frozen=True)
class SharedFolder:
    """Such a folder, there or not."""

    storage: Storage
    path: str
    marker: str
    """The name of the marker in it."""

    def broken(self) -> dict[str, str]:
        """Return what is wrong with its files, by path; empty where it is whole."""
        return broken_marked(self.storage, self.path, self.marker)

    def make_once(
        self, what: str, make: Callable[[Lease], None], note: Callable[[str], None]
    ) -> None:
        """Have it made, unless it is there or another run makes it.

        Args:
            what: it is, for whoever waits.
            make: has it made, as long as the lease holds.
            note: told who is waited for, in lines.
        """
        if not self.broken():
            return
        # Beside the folder: what is in that is the model.
        with take(self.storage, f"{self.path}.lease", what, wait=True, note=note) as lease:
            if self.broken():  # who was waited for may have made it
                make(lease)

    def write(self, fill: Callable[[Path], Mapping[str, Any]]) -> None:
        """Make it, from a folder of this node.

        Args:
            fill: writes all files into an empty folder, and returns what the marker says of them.
        """
        self.storage.remove(f"{self.path}/{self.marker}")  # from here on the files change
        with temporary() as folder:
            known = fill(Path(folder))
            self.storage.upload(folder, self.path)
        files = seals_to_json(seals_of(self.storage, self.path))
        self.storage.write_sealed(f"{self.path}/{self.marker}", {**known, "files": files})


def kept_model(storage: Storage, models: str, seed: int) -> SharedFolder:
    """Return the folder of what a trial has trained.

    Args:
        storage: of the run.
        models: the folder of all seeds.
        seed: of the trial.
    """
    return SharedFolder(storage, f"{models}/{seed}", _KEPT)


def result_under(lease: Lease, task: Any) -> Any:
    """Wait for a task of Ray that makes what a lease is for, and return its result.

    Raises:
        Lost: another run makes it now; the task ends with this process.
        Exception: what the task has raised, as it was: what it says is for the user.
    """
    while not ray.wait([task], timeout=RENEWAL)[0]:
        lease.check()
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from None
