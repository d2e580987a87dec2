"""Tier 2, the behaviour of a run: one small hook per kind of job, typed in and out.

A hook takes records, puts capabilities to work as the configuration says, and returns a record. A
folder per phase: ``probe``, ``execute``, ``evaluate``, ``refine``, ``report``. Beside them is what
hooks share: those that train use ``conduct.py`` and ``study.py``, which ``watch.py`` shows and
``results.py`` reads back; ``model.py`` says which model it is, ``seeds.py`` which seeds,
``bounds.py`` how many pools there will be at most. Hooks know nothing of each other: a workflow
brings them together.
"""
