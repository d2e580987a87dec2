"""Where a run can be watched and compared: every report of a trial, on its way to a tracker.

``tracker.py`` is the extension point: the driver hands every record of a trial to a
:class:`Tracker` as soon as it is stored. ``null.py`` tracks nothing. ``mlflow.py`` queues what it
is given in an ``outbox.py``, whose thread calls ``mlflow_runs.py``; that writes what is new, in
the form of ``mlflow_format.py``, to the runs that ``mlflow_index.py`` finds or creates.

``recorded.py`` wraps any tracker and keeps what it is told in the ``journal.py`` of the run's
folder; ``replay.py`` tells it to a tracker again, after an outage or for one of later choice.

"""
