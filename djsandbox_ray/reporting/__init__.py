"""What a run found, for people: tables, charts, a page, and progress while it goes on.

``ranking`` puts the rows of a ranking into sections and words, ``method`` does so for the noise,
early stopping and the second look. ``terminal``, ``figures`` and ``page`` (the page, by
``templates/report.html``) show those; a self-test that failed comes first in all of them. What
follows the ranking becomes ``chapters`` of the page, made of ``blocks``: ``recipe``, ``insights``
(a page of its own, too), ``together`` with ``heatmap``, and ``scale`` with ``curves``. ``costs``
tabulates the ledger, ``answer`` says what to keep, ``sample_cards``, ``distributions``, ``made``
and ``studied`` show samples, statistics, videos of models and what was studied, ``evolution`` a
chain; ``progress`` shows how far long work is.
"""
