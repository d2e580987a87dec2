"""The ranking as one HTML page that needs nothing else: no script, no font, no address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from djsandbox_ray.records import NotTestable, RankingRow
from djsandbox_ray.reporting.blocks import (
    Chapter,
    Picture,
    ReportTable,
    cell_html,
    chapter_html,
    grid_html,
    picture_html,
    table_html,
)
from djsandbox_ray.reporting.ranking import (
    GIVEN_UP,
    PAGE_COLUMNS,
    Column,
    RankingSection,
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
td:first-child, .short { white-space: nowrap; }
th { font-weight: 600; color: #555; } .number { text-align: right; white-space: nowrap; }
img { max-width: 100%; height: auto; margin-top: 1.6rem; }
.wide, pre { overflow-x: auto; }
pre { background: #f6f6f6; padding: .8rem 1rem; font: 13px/1.45 ui-monospace, monospace; }
nav { margin: 1.2rem 0; } nav a { margin-right: 1.2rem; color: #005a8f; }
.better, .helps { color: #005a8f; font-weight: 600; }
.worse, .hurts { color: #b04a00; font-weight: 600; }
.undecided, .stopped { color: #666; } .failed { color: #a0457a; font-weight: 600; }
.alarm { background: #fdecea; border-left: .3rem solid #c62828; padding: .6rem 1rem; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def report_html(
    title: str,
    rows: Sequence[RankingRow],
    *,
    unit: Unit = Unit.PERCENT,
    lines: Sequence[str] = (),
    before: Sequence[ReportTable] = (),
    figures: Mapping[str, bytes] | None = None,
    chapters: Sequence[Chapter] = (),
    facts: Mapping[str, str] | None = None,
    not_testable: Sequence[NotTestable] = (),
    tables: Sequence[ReportTable] = (),
) -> str:
    """Return the page. Every text is escaped.

    Args:
        title: name of the run.
        rows: the ranking, in any order.
        unit: what its changes are measured in.
        lines: what else a reader must know, after the notes on the ranking and the headlines of
            chapters.
        before: tables that come before the ranking, such as the confirmed effects.
        figures: PNG files by what they show.
        chapters: what followed the ranking, in order; the page links to them at its beginning.
        facts: what the run was: dataset, model, budget, versions.
        not_testable: statistics that got no pools.
        tables: further tables.

    Raises:
        ValueError: a row of a table is not as long as its header.
    """
    linked = {f"chapter-{number}": chapter for number, chapter in enumerate(chapters, start=1)}
    said = [*(chapter.headline for chapter in chapters if chapter.headline), *lines]
    parts = [f"<h1>{escape(title)}</h1>", _notes(rows, said), *_contents(linked)]
    parts += [table_html(table) for table in before]
    parts += [_section(section, unit) for section in sections(rows)]
    for caption, png in (figures or {}).items():
        parts.append(picture_html(Picture(caption, png)))
    parts += [chapter_html(chapter, anchor) for anchor, chapter in linked.items()]
    if not_testable:
        skipped = [(item.statistic, item.reason) for item in not_testable]
        parts.append(table_html(ReportTable("Not testable", ("statistic", "reason"), skipped)))
    if any(row.metrics for row in rows):
        parts.append(table_html(_metrics(rows)))
    parts += [table_html(table) for table in tables]
    if facts:
        parts.append(table_html(ReportTable("This run", ("", ""), list(facts.items()))))
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


def _contents(linked: Mapping[str, Chapter]) -> list[str]:
    """Return links to the chapters; nothing where there are none."""
    links = [f'<a href="#{escape(a)}">{escape(c.title)}</a>' for a, c in linked.items()]
    return [f"<nav>{' '.join(links)}</nav>"] if links else []


def _section(section: RankingSection, unit: Unit) -> str:
    if section.title == GIVEN_UP:
        head = cell_html("pool", tag="th") + cell_html("samples seen", "number", "th")
        lines = [
            cell_html(row.pool) + cell_html(f"{row.stopped_at:,}", "number") for row in section.rows
        ]
    else:
        head = "".join(cell_html(c.title(unit), _align(c), "th") for c in PAGE_COLUMNS)
        lines = ["".join(_ranking_cell(row, c, unit) for c in PAGE_COLUMNS) for row in section.rows]
    return f"<h3>{escape(section.title)}</h3>\n{grid_html(head, lines)}"


def _ranking_cell(row: RankingRow, column: Column, unit: Unit) -> str:
    css = row.verdict if column.name == "verdict" else _align(column)
    return cell_html(column.text(row, unit), css)


def _align(column: Column) -> str:
    return "number" if column.number else ""


def _metrics(rows: Sequence[RankingRow]) -> ReportTable:
    names = sorted({name for row in rows for name in row.metrics})
    body = [
        [row.pool, *(f"{row.metrics[name]:.4g}" if name in row.metrics else "-" for name in names)]
        for section in sections(rows)
        for row in section.rows
        if row.stopped_at is None
    ]
    return ReportTable("Mean of every metric", ["pool", *names], body)
