"""Reference trainings: one Ray Tune trial per (pool, seed), all on the same budget.

``config.py`` is their section of a configuration. ``trial_records.py`` lists the trials.
``engine.py`` gives those that are not settled to Ray Tune, whose trials (``trainable.py``) are one
worker (``worker.py``) or a gang of them (``gang.py``; ``strategies/`` says how they share a model).
A worker trains a model family (``family.py``; ``clip/``, or a program of others, ``command.py``) on
a draw and keeps its state at every rung (``checkpoint.py``). ``stopping/`` gives up pools that fall
behind. ``reporter.py`` turns what comes back into records, which ``trial_records.py`` keeps, so
that no trial is trained twice, in this run or another.
"""
