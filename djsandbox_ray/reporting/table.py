"""The ranking as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from djsandbox_ray.records import RankingRow
from djsandbox_ray.reporting.ranking import (
    HEADER,
    Unit,
    cells,
    header,
    sections,
)

_STYLES = {"better": "green", "worse": "red", "undecided": "dim", "failed": "bold magenta"}
_RIGHT = {"rank", "change", "interval", "q"}


def ranking_table(rows: Sequence[RankingRow], unit: Unit = Unit.PERCENT) -> Table:
    """Return the ranking as a table with a section each for pools and self-tests.

    Args:
        rows: the ranking, in any order.
        unit: what its changes are measured in.
    """
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name, title in zip(HEADER, header(unit), strict=True):
        table.add_column(
            title,
            justify="right" if name in _RIGHT else "left",
            overflow="fold",
            no_wrap=name != "pool",  # the one that may need two lines
        )
    for section in sections(rows):
        for row in section.rows:
            texts = [Text(cell) for cell in cells(row, unit)]
            texts[HEADER.index("verdict")].stylize(_STYLES.get(row.verdict, ""))
            texts[HEADER.index("seeds")].stylize("magenta" if row.failed else "")
            table.add_row(*texts, style="bold reverse" if row.self_test_failed else None)
        table.add_section()
    return table
