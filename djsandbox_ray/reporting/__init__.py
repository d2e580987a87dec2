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

from djsandbox_ray.reporting.blocks import Chapter, ReportTable
from djsandbox_ray.reporting.costs import costs_section, costs_table
from djsandbox_ray.reporting.figures import bar_chart
from djsandbox_ray.reporting.method import noise_lines, realised_lines, stopping_lines
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.reporting.ranking import Unit, notes
from djsandbox_ray.reporting.report import report_html
from djsandbox_ray.reporting.second import (
    confirmation_notes,
    confirmation_section,
    flips_notes,
    flips_section,
)
from djsandbox_ray.reporting.table import ranking_table, section_table

__all__ = [
    "Chapter",
    "Progress",
    "ReportTable",
    "Unit",
    "bar_chart",
    "confirmation_notes",
    "confirmation_section",
    "costs_section",
    "costs_table",
    "flips_notes",
    "flips_section",
    "noise_lines",
    "notes",
    "ranking_table",
    "realised_lines",
    "report_html",
    "section_table",
    "stopping_lines",
]
