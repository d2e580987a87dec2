"""The tracker that tracks nothing."""

from __future__ import annotations

from collections.abc import Mapping

from djsandbox_ray.records import TrialRecord
from djsandbox_ray.tracking.tracker import TRACKERS, Tracker


@TRACKERS.register("none")
class NullTracker(Tracker):
    """For runs that nobody watches; everything is in the storage all the same."""

    def trial(
        self, record: TrialRecord, tags: Mapping[str, str], params: Mapping[str, str]
    ) -> None:
        """Take a record and do nothing with it."""
