"""What a run has told its tracker, as JSON in the run's folder: what an outage kept away is here.

``<run folder>/tracking/<journal id>/`` holds ``run.json``, ``trials/<trial id>.json`` and
``artifacts/``. One run folder may hold several journals: to a tracker, a changed configuration is
another run. So it is in another storage: the same configuration, run by two people, is two runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import TrialRecord
from djsandbox_ray.storage import Storage
from djsandbox_ray.tracking.tracker import DatasetInput, RunInfo

M = TypeVar("M", bound=BaseModel)


class _Entry(BaseModel):
    """JSON has no NaN, which a loss may be: it is written as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class RunEntry(_Entry):
    """All about the run but its trials."""

    name: str
    key: str
    origin: str = ""
    """Random, drawn when the journal was begun; none in journals of older versions."""
    address: str = ""
    """Where its tracker was when it was last started; empty in journals of older versions."""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    datasets: tuple[DatasetInput, ...] = ()
    metrics: Mapping[str, tuple[float, int]] = {}
    """Value, and milliseconds since the epoch, by name."""
    artifacts: tuple[str, ...] = ()
    """Names; the files lie in the journal's folder ``artifacts``."""
    ok: bool | None = None
    """How the run ended; None while it is running, or if it was cut off."""

    @property
    def info(self) -> RunInfo:
        """The run as a tracker is told of it, with all of its datasets."""
        key = f"{self.key}-{self.origin}" if self.origin else self.key
        return RunInfo(self.name, key, self.params, self.tags, self.datasets)


class TrialEntry(_Entry):
    """The newest record of a trial, and how it is described."""

    record: TrialRecord
    tags: Mapping[str, str]
    params: Mapping[str, str]
    inputs: tuple[DatasetInput, ...] = ()


class Journal:
    """The files of one run; each is replaced whole. Made by :meth:`begin` or :meth:`all`."""

    def __init__(self, storage: Storage, folder: str, run: RunEntry) -> None:
        self._storage = storage
        self._folder = folder
        self.run = run

    @classmethod
    def begin(cls, storage: Storage, run_folder: str, info: RunInfo, address: str = "") -> Journal:
        """Begin the journal of a run, or go on with the one that is there."""
        folder = f"{run_folder}/tracking/{content_id('journal', info.key)}"
        run = RunEntry(
            name=info.name,
            key=info.key,
            origin=uuid.uuid4().hex[:12],
            address=address,
            params=info.params,
            tags=info.tags,
        )
        if storage.exists(f"{folder}/run.json"):
            # What the run said before it was cut off stays until it says something else.
            before = _read(storage, f"{folder}/run.json", RunEntry)
            told = before.model_dump(include={"origin", "metrics", "artifacts"})
            run = run.model_copy(update={**told, "datasets": before.datasets})
        journal = cls(storage, folder, run)
        journal.keep(datasets=tuple(dict.fromkeys((*info.datasets, *run.datasets))))
        return journal

    @classmethod
    def all(cls, storage: Storage, run_folder: str) -> list[Journal]:
        """Read the journals that a run folder holds."""
        folders = [
            f"{run_folder}/tracking/{name}" for name in storage.names(f"{run_folder}/tracking")
        ]
        return [
            cls(storage, folder, _read(storage, f"{folder}/run.json", RunEntry))
            for folder in folders
            if storage.exists(f"{folder}/run.json")
        ]

    @property
    def key(self) -> str:
        """The identity of the run among those of all storages."""
        return self.run.info.key

    def keep(self, **changes: Any) -> None:
        """Replace some fields of :attr:`run`."""
        self.run = self.run.model_copy(update=changes)
        self._write("run.json", self.run.model_dump_json(indent=2).encode())

    def keep_trial(self, entry: TrialEntry) -> None:
        """Replace what is known of a trial."""
        path = f"trials/{entry.record.spec.id}.json"
        self._write(path, entry.model_dump_json(indent=2).encode())

    def keep_artifact(self, name: str, data: bytes) -> None:
        """Replace a file of the run."""
        self._write(f"artifacts/{name}", data)
        self.keep(artifacts=tuple(dict.fromkeys((*self.run.artifacts, name))))

    def trials(self) -> Iterator[TrialEntry]:
        """Read the trials, in the order of their ids."""
        for name in self._storage.names(f"{self._folder}/trials"):
            yield _read(self._storage, f"{self._folder}/trials/{name}", TrialEntry)

    def artifacts(self) -> Iterator[tuple[str, bytes]]:
        """Read the files of the run."""
        for name in self.run.artifacts:
            yield name, self._storage.read_bytes(f"{self._folder}/artifacts/{name}")

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self._folder}/{name}"
        # A repeated run says what it said before.
        if not (self._storage.exists(path) and self._storage.read_bytes(path) == data):
            self._storage.write_bytes(path, data)


def _read(storage: Storage, path: str, entry: type[M]) -> M:
    try:
        return entry.model_validate_json(storage.read_bytes(path))
    except ValidationError as error:
        raise BadInput(
            f"{path} in {storage.shown} is damaged or of another version: "
            f"{error.errors()[0]['msg']}; remove the folder {path.rsplit('/', 1)[0]}, and the same "
            "run, started again, writes it anew"
        ) from error
