"""A tracker that keeps all it is told in the storage, and tells it to another tracker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from djsandbox_ray.masking import masked
from djsandbox_ray.records import TrialRecord
from djsandbox_ray.tracking.journal import Journal, TrialEntry
from djsandbox_ray.tracking.tracker import DatasetInput, RunInfo, Tracker


class Recorded(Tracker):
    """Keeps a :class:`Journal` in the run's folder, from which ``replay`` sends everything again.

    Args:
        tracker: is told the same.
        folder: of the run, in the storage.
    """

    def __init__(self, tracker: Tracker, folder: str) -> None:
        super().__init__(tracker.config, tracker.storage)
        self._tracker = tracker
        self._folder = folder
        self._kept: Journal | None = None

    @property
    def ui_command(self) -> str | None:
        """That of the tracker."""
        return self._tracker.ui_command

    @property
    def address(self) -> str:
        """That of the tracker."""
        return self._tracker.address

    def start(self, run: RunInfo) -> None:
        """Begin the journal of a run, or go on with it."""
        shown = replace(run, params=masked(run.params), tags=masked(run.tags))
        self._kept = Journal.begin(self.storage, self._folder, shown, self.address)
        self._tracker.start(replace(shown, key=self._kept.key))

    def dataset(self, dataset: DatasetInput) -> None:
        """Keep an input of the run."""
        known = self._journal.run.datasets
        self._journal.keep(datasets=tuple(dict.fromkeys((*known, dataset))))
        self._tracker.dataset(dataset)

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Keep the newest record of a trial; its traceback is in the trial's own file."""
        tags, params = masked(tags), masked(params)
        shown = replace(record, traceback=None)
        entry = TrialEntry(record=shown, tags=tags, params=params, inputs=tuple(inputs))
        self._journal.keep_trial(entry)
        self._tracker.trial(record, tags, params, inputs)

    def metrics(self, values: Mapping[str, float], time_ms: int | None = None) -> None:
        """Keep numbers of the run, each with the time at which it was first told."""
        now = time_ms or time.time_ns() // 1_000_000
        known = self._journal.run.metrics
        new = {
            name: (value, now)
            for name, value in values.items()
            if name not in known or known[name][0] != value
        }
        self._journal.keep(metrics={**known, **new})
        self._tracker.metrics(values, now)

    def artifact(self, name: str, data: bytes) -> None:
        """Keep a file of the run."""
        self._tracker.artifact(name, data)  # first, as it refuses what is no relative path
        self._journal.keep_artifact(name, data)

    def finish(self, ok: bool, within: float | None = None) -> int:
        """Keep how the run ended, if it began."""
        if self._kept is not None:
            self._kept.keep(ok=ok)
        return self._tracker.finish(ok, within)

    @property
    def _journal(self) -> Journal:
        if self._kept is None:
            raise RuntimeError("the tracker was not started")
        return self._kept
