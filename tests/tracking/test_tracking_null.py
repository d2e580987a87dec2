from __future__ import annotations

from djsandbox_ray.records import TrialRecord, TrialSpec, TrialState
from djsandbox_ray.tracking.tracker import TRACKERS, NullTracker, RunInfo


def test_the_null_tracker_takes_everything_and_leaves_no_trace(storage):
    tracker = TRACKERS.get("none")(NullTracker.Config(type="none"), storage)
    assert isinstance(tracker, NullTracker)
    assert tracker.ui_command is None
    tracker.start(RunInfo("demo", "key"))
    tracker.trial(TrialRecord(TrialSpec("t", "p", 0, "d", 1), TrialState.RUNNING), {}, {})
    tracker.metrics({"a": 1.0})
    tracker.artifact("a.txt", b"")
    assert tracker.finish(True) == 0
    assert storage.names("") == []
