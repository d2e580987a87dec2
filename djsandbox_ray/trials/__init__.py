"""Reference trainings: one Ray Tune trial per (pool, seed), all on the same budget.

``plan.py`` lists the trials, ``engine.py`` gives those that are not settled to Ray
Tune, whose actors (``trainable.py``) hold a model family (``family.py``; ``clip/`` is the first)
and train it on a draw. ``store.py`` keeps what every trial reported, so that no trial is trained
twice, in this run or another.
"""
