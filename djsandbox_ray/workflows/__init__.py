"""Tier 1, the order of a run: ordered job lists in YAML and the one loop that runs them.

``workflow.py`` reads a job list (``jobs.py``: its models), puts in place what the configuration
sets itself, and has it checked as a whole (``checks.py``): names and references
(``references.py``), parameters by the annotations of the hooks (``parameters.py``, ``fitting.py``)
and targets (``targets.py``). ``runner.py`` runs it, job by job, each called with its
``arguments.py``, skipping what is done. ``run.py`` does so round by round: ``rounds.py`` says
whether there is another, ``updates.py`` makes its configuration, ``state.py`` keeps ``run.json``.
``publish.py`` sends what every job gave to the tracker, ``results.py`` prints what the run has come
to. ``plan.py`` says beforehand what will happen (``stages.py``: what every job trains at most,
``budget.py``: what that costs), and ``graph.py`` draws it. ``finished.py`` reads what a run has
left, for ``recipe.py``: showing, accepting and materialising.

The built-in workflows lie in ``builtin/``; ``docs/workflow_language.md`` describes the language.
"""
