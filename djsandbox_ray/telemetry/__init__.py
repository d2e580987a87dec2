"""What can be seen of a run from outside while it works: metrics, events, the logs of trials.

``metrics.py`` declares every number that Prometheus finds; ``events.py`` every event, and keeps one
JSON line for each in the storage; ``output.py`` keeps what a trial prints, and ``observed.py``
holds all of it while a run lasts, and tells which nodes come and go. ``standing.py`` knows who
leads, ``pace.py`` how long the rest takes. What the trials of a study do is told by
``hooks/watch.py``. It is a view: a run decides nothing by it and goes on when it fails.
"""
