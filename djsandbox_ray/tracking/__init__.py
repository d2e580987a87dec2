"""Where a run can be watched and compared: every report of a trial, on its way to a tracker.

``tracker.py`` is the extension point: the driver hands every record of a trial to a
:class:`Tracker` as soon as it is stored, with the tags and parameters that are made there; it also
has the tracker that tracks nothing. ``queued.py`` is what trackers have in common that write
elsewhere: it puts what it is given into an ``outbox.py``, whose thread calls a writer. That of
``mlflow.py`` is ``mlflow_runs.py``, which writes what is new to the runs that ``mlflow_index.py``
finds or creates; ``tensorboard.py`` and ``wandb.py`` have theirs beside them. ``rungs.py`` tells
which reports of a trial are new. ``journal.py`` wraps any tracker and keeps what it is told in the
run's folder; it tells it to a tracker again, after an outage or for one of later choice.
"""
