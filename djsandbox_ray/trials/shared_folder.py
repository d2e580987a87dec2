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

from djsandbox_ray.storage.lease import RENEWAL, Lease, check_held, take
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
        with take(self.storage, self._lease, what, wait=True, note=note) as lease:
            if self.broken():  # who was waited for may have made it
                make(lease)

    def write(self, fill: Callable[[Path], Mapping[str, Any]], owner: str | None = None) -> None:
        """Make it, from a folder of this node; what a killed process has left there goes.

        Args:
            fill: writes all files into an empty folder, and returns what the marker says of them.
            owner: of the lease: its driver has this process make it. None for what only one run
                can make, as its trials do.

        Raises:
            Lost: another run makes it now; nothing of it is touched.
        """
        storage = self.storage
        with temporary() as folder:
            known = fill(folder)
            self._check(owner)
            storage.remove(f"{self.path}/{self.marker}")  # from here on the files change
            storage.remove(self.path)
            storage.upload(folder, self.path)
            written = {
                file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
            }
        files = seals_of(storage, self.path)
        self._check(owner)
        if foreign := files.keys() ^ written:
            raise storage.damaged(self.path, f"{min(foreign)} in it was not written, or is gone")
        marked = {**known, "files": seals_to_json(files)}
        storage.write_sealed(f"{self.path}/{self.marker}", marked)

    def _check(self, owner: str | None) -> None:
        if owner is not None:
            check_held(self.storage, self._lease, owner, self.path)

    @property
    def _lease(self) -> str:
        """Its place: beside the folder, as what is in that is the model."""
        return f"{self.path}.lease"


def kept_model(storage: Storage, models: str, seed: int) -> SharedFolder:
    """Return the folder of what a trial has trained, for later trials to go on from.

    It has what was changed of the base, as the family reads it again; a whole model for others is
    what :func:`.exporting.export_model` makes, which says how they differ.

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
