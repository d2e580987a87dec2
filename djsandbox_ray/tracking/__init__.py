"""Where a run can be watched and compared: every report of a trial, on its way to a tracker.

``tracker.py`` is the extension point, with the tracker that tracks nothing: the driver hands every
record of a trial to a tracker as soon as it is stored. ``journal.py`` wraps any tracker, keeps what
it is told in the run's folder, and tells it again. ``mlflow.py`` queues what it is given in an
``outbox.py``, whose thread calls ``mlflow_runs.py``; that writes what is new to the runs that
``mlflow_index.py`` finds or creates.
"""
