"""Reference trainings: one Ray Tune trial per (pool, seed), all on the same budget.

``plan.py`` lists the trials. ``engine.py`` gives those that are not settled to Ray Tune, whose
trials (``trainable.py``) are one worker (``worker.py``) or a gang of them (``gang.py``,
``rank.py``; ``strategies/`` says how they share a model). A worker trains a model family
(``family.py``; ``clip/`` is the first) on a draw and keeps its state at every rung
(``checkpoint.py``). ``stopping/`` gives up pools that fall behind. ``reporter.py`` turns what comes
back into records, and ``store.py`` keeps them, so that no trial is trained twice, in this run or
another.
"""
