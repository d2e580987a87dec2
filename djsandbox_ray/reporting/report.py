"""The ranking as one HTML page that needs nothing else: no script, no font, no address."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from djsandbox_ray.records import NotTestable, RankingRow
from djsandbox_ray.reporting.ranking import (
    GIVEN_UP,
    PAGE_COLUMNS,
    Column,
    Section,
    Unit,
    notes,
    sections,
)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; } h3::first-letter { text-transform: uppercase; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e5e5e5;
         vertical-align: top; overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
th { font-weight: 600; color: #555; } .number { text-align: right; white-space: nowrap; }
img { max-width: 100%; height: auto; margin-top: 1.6rem; }
.wide { overflow-x: auto; }
.better { color: #005a8f; font-weight: 600; } .worse { color: #b04a00; font-weight: 600; }
.undecided, .stopped { color: #666; } .failed { color: #a0457a; font-weight: 600; }
.alarm { background: #fdecea; border-left: .3rem solid #c62828; padding: .6rem 1rem; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_VERDICTS = ("better", "worse", "undecided", "stopped", "failed")


@dataclass(frozen=True)
class ReportTable:
    """A further table of the page."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def report_html(
    title: str,
    rows: Sequence[RankingRow],
    *,
    unit: Unit = Unit.PERCENT,
    lines: Sequence[str] = (),
    before: Sequence[ReportTable] = (),
    figures: Mapping[str, bytes] | None = None,
    facts: Mapping[str, str] | None = None,
    not_testable: Sequence[NotTestable] = (),
    tables: Sequence[ReportTable] = (),
) -> str:
    """Return the page. Every text is escaped.

    Args:
        title: name of the run.
        rows: the ranking, in any order.
        unit: what its changes are measured in.
        lines: what else a reader must know, after the notes on the ranking.
        before: tables that come before the ranking, such as the confirmed effects.
        figures: PNG files by what they show.
        facts: what the run was: dataset, model, budget, versions.
        not_testable: statistics that got no pools.
        tables: further tables.

    Raises:
        ValueError: a row of a table is not as long as its header.
    """
    parts = [f"<h1>{escape(title)}</h1>", _notes(rows, lines)]
    parts += [_table(table) for table in before]
    parts += [_section(section, unit) for section in sections(rows)]
    for caption, png in (figures or {}).items():
        data = base64.b64encode(png).decode()
        parts.append(f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">')
    if not_testable:
        skipped = [(item.statistic, item.reason) for item in not_testable]
        parts.append(_table(ReportTable("Not testable", ("statistic", "reason"), skipped)))
    if any(row.metrics for row in rows):
        parts.append(_table(_metrics(rows)))
    parts += [_table(table) for table in tables]
    if facts:
        parts.append(_table(ReportTable("This run", ("", ""), list(facts.items()))))
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _notes(rows: Sequence[RankingRow], lines: Sequence[str]) -> str:
    alarms = sum(row.self_test_failed for row in rows)  # notes() says these first
    paragraphs = [
        f"<p{' class=alarm' if number < alarms else ''}>{escape(line)}</p>"
        for number, line in enumerate([*notes(rows), *lines])
    ]
    return "\n".join(paragraphs)


def _section(section: Section, unit: Unit) -> str:
    if section.title == GIVEN_UP:
        head = _cell("pool", tag="th") + _cell("samples seen", "number", "th")
        lines = [_cell(row.pool) + _cell(f"{row.stopped_at:,}", "number") for row in section.rows]
    else:
        head = "".join(_cell(c.title(unit), _align(c), "th") for c in PAGE_COLUMNS)
        lines = ["".join(_ranking_cell(row, c, unit) for c in PAGE_COLUMNS) for row in section.rows]
    return f"<h3>{escape(section.title)}</h3>\n{_grid(head, lines)}"


def _ranking_cell(row: RankingRow, column: Column, unit: Unit) -> str:
    css = row.verdict if column.name == "verdict" else _align(column)
    return _cell(column.text(row, unit), css)


def _align(column: Column) -> str:
    return "number" if column.number else ""


def _table(table: ReportTable) -> str:
    lines = []
    for row in table.rows:
        if len(row) != len(table.header):
            raise ValueError(f"table {table.title!r}: {row!r} is not as long as {table.header!r}")
        lines.append("".join(_cell(cell, cell if cell in _VERDICTS else "") for cell in row))
    head = "".join(_cell(name, tag="th") for name in table.header) if any(table.header) else ""
    return f"<h2>{escape(table.title)}</h2>\n{_grid(head, lines)}"


def _cell(text: str, css: str = "", tag: str = "td") -> str:
    name = f' class="{escape(css)}"' if css else ""
    return f"<{tag}{name}>{escape(text)}</{tag}>"


def _grid(head: str, lines: Sequence[str]) -> str:
    rows = "\n".join(f"<tr>{line}</tr>" for line in (head, *lines))
    return f'<div class="wide"><table>{rows}</table></div>'


def _metrics(rows: Sequence[RankingRow]) -> ReportTable:
    names = sorted({name for row in rows for name in row.metrics})
    body = [
        [row.pool, *(f"{row.metrics[name]:.4g}" if name in row.metrics else "-" for name in names)]
        for section in sections(rows)
        for row in section.rows
        if row.stopped_at is None
    ]
    return ReportTable("Mean of every metric", ["pool", *names], body)
