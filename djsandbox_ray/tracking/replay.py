"""Tells a tracker what a run has recorded: after an outage, or for a tracker of later choice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage import Storage
from djsandbox_ray.tracking.journal import Journal
from djsandbox_ray.tracking.tracker import Tracker


@dataclass(frozen=True)
class Replayed:
    """What was told."""

    runs: int
    """Configurations that were run under the run's name."""
    trials: int
    unsent: int
    """Things that could not be sent; telling them again is never wrong."""


def replay(storage: Storage, folder: str, new_tracker: Callable[[], Tracker]) -> Replayed:
    """Tell trackers all that the runs of a folder have recorded; what they know changes nothing.

    A run that was cut off ends as failed. The run must not be running.

    Args:
        storage: where the run lies.
        folder: of the run, in the storage.
        new_tracker: makes a tracker; one per configuration that was run.

    Raises:
        BadInput: nothing was recorded in the folder, or a file of it is damaged.
    """
    journals = Journal.all(storage, folder)
    if not journals:
        raise BadInput(
            f"{folder} in {storage.shown} holds nothing to send: no run of that name was started "
            "in this storage"
        )
    told = [_tell(journal, new_tracker()) for journal in journals]
    trials, unsent = (sum(column) for column in zip(*told, strict=True))
    return Replayed(len(journals), trials, unsent)


def _tell(journal: Journal, tracker: Tracker) -> tuple[int, int]:
    run = journal.run
    tracker.start(run.info)
    trials = 0
    for entry in journal.trials():
        tracker.trial(entry.record, entry.tags, entry.params, entry.inputs)
        trials += 1
    by_time: dict[int, dict[str, float]] = defaultdict(dict)
    for name, (value, time_ms) in run.metrics.items():
        by_time[time_ms][name] = value
    for time_ms, values in by_time.items():
        tracker.metrics(values, time_ms)
    for name, data in journal.artifacts():
        tracker.artifact(name, data)
    return trials, tracker.finish(run.ok is True)
