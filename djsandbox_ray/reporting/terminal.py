"""Rankings, tables of the page and the catalogue of operators, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from djsandbox_ray.records import RankingRow
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.ranking import COLUMNS, Unit, sections
from djsandbox_ray.stats.catalogue import OperatorInfo, OperatorPage

_STYLES = {
    "better": "green",
    "worse": "red",
    "undecided": "dim",
    "stopped": "dim",
    "failed": "bold magenta",
}

_ROOM_FOR_NEEDS = 110
"""Characters of a window in which a column of what operators need can be read."""


def ranking_table(
    rows: Sequence[RankingRow], unit: Unit = Unit.PERCENT, title: str | None = None
) -> Table:
    """Return the ranking as a table with a section each for pools and self-tests.

    Args:
        rows: the ranking, in any order.
        unit: what its changes are measured in.
        title: shown above, as plain text.
    """
    table = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for column in COLUMNS:
        table.add_column(
            column.title(unit),
            justify="right" if column.number else "left",
            overflow="fold",
            no_wrap=column.name != "pool",  # the one that may need two lines
        )
    for section in sections(rows):
        for row in section.rows:
            styles = {
                "verdict": _STYLES.get(row.verdict, ""),
                "seeds": "magenta" if row.failed else "",
            }
            texts = [Text(c.text(row, unit), style=styles.get(c.name, "")) for c in COLUMNS]
            table.add_row(*texts, style="bold reverse" if row.self_test_failed else None)
        table.add_section()
    return table


def section_table(section: ReportTable) -> Table:
    """Return a table of the page for the terminal, verdicts in their colours."""
    table = Table(
        title=Text(section.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for place, name in enumerate(section.header):
        # In a narrow window intervals need two lines; what they are of stays whole.
        table.add_column(Text(name), overflow="fold", no_wrap=place == 0)
    for row in section.rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


def operators_table(operators: Sequence[OperatorInfo], width: int) -> Table:
    """Return one line per filter: what it computes, and what keeps it from being used.

    Args:
        operators: the filters.
        width: of the window, in characters; a narrow one has no room for what each needs.
    """
    wide = width >= _ROOM_FOR_NEEDS
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=None if wide else "`djsandbox operators NAME` says what one needs",
        caption_justify="left",
    )
    table.add_column("operator", no_wrap=True)
    for title in ("modality", "statistics", "usable", *(["needs"] if wide else [])):
        table.add_column(title, overflow="fold")
    for operator in operators:
        colour, word = ("green", "yes") if operator.available else ("yellow", "no")
        cells = [
            Text(operator.name),
            Text(operator.modality),
            Text(", ".join(operator.statistics) or "-"),
            Text(word, style=colour),
        ]
        table.add_row(*cells, *([_needs(operator)] if wide else []))
    return table


def _needs(operator: OperatorInfo) -> Text:
    needs = operator.obstacle or ", ".join(
        f"{need} (missing)" if need in operator.missing else need for need in operator.needs
    )
    return Text(needs or "nothing")


def operator_page(page: OperatorPage) -> Text:
    """Return all about one filter: what it computes, with which parameters, and its needs."""
    text = Text.assemble((page.name, "bold"), f"\n  {page.does}\n")
    if page.obstacle:
        text.append(f"  cannot be used: {page.obstacle}\n", style="yellow")
    text.append(f"  reads       {page.modality}\n")
    text.append(f"  statistics  {', '.join(page.statistics) or '-'}\n")
    for title, thresholds in (("parameters", False), ("thresholds", True)):
        listed = [item for item in page.parameters if item.threshold == thresholds]
        why = " (they decide what is kept, and change no statistic)" if thresholds else ""
        text.append(f"  {title}{why if listed else '  none'}\n")
        for item in listed:
            source = "" if item.given else " (default)"
            text.append(f"    {item.name}: {_shortened(repr(item.value))}{source}\n")
    text.append("  needs\n" if page.needs else "  needs       nothing\n")
    for need in page.needs:
        colour, word = ("green", "found  ") if need.there else ("yellow", "missing")
        text.append(f"    {word}", style=colour)
        text.append(f"  {need.what}\n")
        text.append(f"             {'at' if need.there else 'looked for at'}: {need.where}\n")
        if not need.there:
            text.append(f"             to get it: {need.remedy}\n")
    return text


def _shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
