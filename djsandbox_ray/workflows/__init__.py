"""Tier 1, the order of a run: ordered job lists in YAML and the one loop that runs them.

``language/`` is what a workflow may say: ``workflow`` reads one, with the one that it continues and
what the configuration sets itself, and has it checked as a whole (``checks``): jobs and references
(``jobs``), parameters by the annotations of the hooks (``parameters``, ``types``), targets and what
a later round changes (``repeat``). ``foresight/`` says beforehand what will happen: ``plan``, with
its drawing (``wiring``), ``budget``, ``power``.

``run`` runs one, round by round, and keeps ``run.json`` (``state``); ``runner`` runs a round, job
by job, skipping what is done. ``publish`` sends what every job gave to the tracker, ``ending``
prints what the run has come to. ``finished`` reads what a run has left, for the tracker and for
``recipe``: showing, accepting and materialising.

The built-in workflows lie in ``builtin/``; ``docs/workflow_language.md`` describes the language.
"""
