"""What a run found, for people: a table, a chart, a page, and progress while it goes on.

``ranking.py`` puts the rows of a ranking into sections and words; ``table.py`` (terminal),
``figures.py`` (PNG) and ``report.py`` (HTML) show those. A self-test that failed comes first in all
of them. ``progress.py`` shows how far long work is.
"""

from djsandbox_ray.reporting.figures import bar_chart
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.reporting.ranking import Unit, notes
from djsandbox_ray.reporting.report import ReportTable, report_html
from djsandbox_ray.reporting.table import ranking_table

__all__ = [
    "Progress",
    "ReportTable",
    "Unit",
    "bar_chart",
    "notes",
    "ranking_table",
    "report_html",
]
