"""Where a run can be watched and compared: every report of a trial, on its way to a tracker.

``tracker.py`` is the extension point: the driver hands every record of a trial to a
:class:`Tracker` as soon as it is stored. ``null.py`` tracks nothing. ``mlflow.py`` queues what it
is given in an ``outbox.py``, whose thread calls ``mlflow_runs.py``; that writes what is new, in
the form of ``mlflow_format.py``, to the runs that ``mlflow_index.py`` finds or creates.
"""

from djsandbox_ray.tracking.mlflow import MlflowConfig, MlflowTracker
from djsandbox_ray.tracking.null import NullTracker
from djsandbox_ray.tracking.tracker import TRACKERS, DatasetInput, RunInfo, Tracker

__all__ = [
    "TRACKERS",
    "DatasetInput",
    "MlflowConfig",
    "MlflowTracker",
    "NullTracker",
    "RunInfo",
    "Tracker",
]
