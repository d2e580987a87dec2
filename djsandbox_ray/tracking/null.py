"""The tracker that tracks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from djsandbox_ray.records import TrialRecord
from djsandbox_ray.tracking.tracker import DatasetInput, Tracker


class NullTracker(Tracker):
    """For runs that nobody watches; everything is in the storage all the same."""

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Take a record and do nothing with it."""
