"""What a run found, for people: tables, a chart, a page, and progress while it goes on.

``ranking.py`` puts the rows of a ranking into sections and words, ``second.py`` does so for the
confirmed effects and the verdicts that flip, ``method.py`` for the noise and for early stopping.
``table.py`` (terminal), ``figures.py`` (PNG) and ``report.py`` (HTML) show those. A self-test that
failed comes first in all of them. What follows the ranking becomes chapters of the page:
``chapters.py`` reads it and has it put into ``blocks.py`` by ``combinations.py`` with
``interactions.py`` and ``heatmap.py``, ``scale.py`` with ``curves.py``, ``recipe.py``, and
``insights.py``, which is a page of its own, too. ``costs.py`` tabulates the ledger, ``progress.py``
shows how far long work is.

"""
