"""The catalogue of operators for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from djsandbox_ray.stats.catalogue import OperatorInfo


def operators_table(operators: Sequence[OperatorInfo]) -> Table:
    """Return one line per filter: what it computes, and what keeps it from being used."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("operator", no_wrap=True)
    for title in ("modality", "statistics", "usable", "needs"):
        table.add_column(title, overflow="fold")
    for operator in operators:
        colour, word = ("green", "yes") if operator.available else ("yellow", "no")
        needs = operator.obstacle or ", ".join(
            f"{need} (missing)" if need in operator.missing else need for need in operator.needs
        )
        table.add_row(
            Text(operator.name),
            operator.modality,
            Text(", ".join(operator.statistics) or "-"),
            Text(word, style=colour),
            Text(needs or "nothing"),
        )
    return table
