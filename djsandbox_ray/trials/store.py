"""What every trial reported, one JSON file per trial, shared by all runs of a storage.

The file is replaced atomically at every report, by the driver alone: it is the truth about a trial,
from which a killed run goes on and to which MLflow is brought up.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from pydantic import TypeAdapter

from djsandbox_ray.records import TrialRecord, TrialSpec
from djsandbox_ray.storage import Storage

_RECORD = TypeAdapter(TrialRecord)


class TrialStore:
    """Trial records by trial id, under ``trials/`` of a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def save(self, record: TrialRecord) -> None:
        """Replace what is known of a trial.

        What another run has settled in the meantime stays: it is the same trial.
        """
        if not record.settled and (known := self.load(record.spec)) and known.settled:
            return
        self._storage.write_json(self._path(record.spec.id), asdict(record))

    def load(self, spec: TrialSpec) -> TrialRecord | None:
        """Return what any run has left of a trial, finished or not, or None.

        The record keeps the rungs that the trial was run with.
        """
        path = self._path(spec.id)
        if not self._storage.exists(path):
            return None
        try:
            record = _RECORD.validate_python(self._storage.read_json(path))
        except ValueError:
            return None  # of another version
        return replace(record, spec=spec)

    @staticmethod
    def _path(trial_id: str) -> str:
        return f"trials/{trial_id}.json"
