"""The behaviour of a run: one small hook per question that a job answers, typed in and out.

A hook (``hook.py``: the extension point, and the list of all) takes records, puts capabilities to
work as the configuration says, and returns a record. Hooks know nothing of each other: a workflow
brings them together.

Data: ``ingest.py`` (and leaks), ``scorer.py``, ``statistics.py``, ``pools.py``. Studies:
``noise.py`` asks what can be seen at all; ``train.py`` and ``judge.py`` do what the plan of any
pools says; ``confirmation.py``, ``choice.py``, ``clusters.py`` and ``combine.py`` choose the pools
of the next study; ``learning_rate.py``, ``interactions.py``, ``diversity.py``, ``repetition.py``
and ``scaling.py`` ask more of them. Handing over: ``thresholds.py``, ``search.py``, ``recipe.py``,
``acceptance.py``, ``insights.py``, ``ledger.py``, ``report.py`` (with ``made_videos.py``).
``evolve.py`` trains a chain of stages.

What they share: ``plans.py`` says which seeds and how many pools studies have; ``study.py`` says
what a study is, ``conduct.py`` trains it, ``watch.py`` shows it, ``results.py`` reads it back;
``writing.py`` writes pools.
"""
