"""The ranking as one HTML page that needs nothing else: no script, no font, no address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from pydantic import Field

from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import NotTestable, RankingRow
from djsandbox_ray.reporting.blocks import Block, Chapter, Picture, ReportTable
from djsandbox_ray.reporting.ranking import (
    GIVEN_UP,
    RankingSection,
    Unit,
    notes,
    page_table,
    sections,
)
from djsandbox_ray.settings.sections import Section

_COLOURED = ("better", "worse", "undecided", "stopped", "failed", "helps", "hurts")
"""Words that have a colour of their own in a table, also with a remark in brackets behind them."""
_SHORT = 28
"""Cells of up to as many characters stay on one line, whatever stands beside them."""


class ReportConfig(Section):
    """What the report shows beside the verdicts."""

    labels: list[str] = Field(default=[])
    """Keys of the samples' metadata, such as ``defect``: the report says how large a share of every
    pool has each value. They are only shown, never used."""


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
    metrics: Sequence[Metric] = (),
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
        metrics: what is known of the metrics of the ranking.
    """
    ranking: list[Block] = [_section(section, unit) for section in sections(rows)]
    ranking += [Picture(*figure) for figure in (figures or {}).items()]
    after = []
    if not_testable:
        skipped = [(item.statistic, item.reason) for item in not_testable]
        after.append(ReportTable("Not testable", ("statistic", "reason"), skipped))
    if any(row.metrics for row in rows):
        after.append(_metrics(rows, {metric.name: metric for metric in metrics}))
    after += tables
    if facts:
        after.append(ReportTable("This run", ("", ""), list(facts.items())))
    return _page().render(
        title=title,
        lines=[
            *notes(rows),
            *_doubts(rows, metrics),
            *filter(None, (chapter.headline for chapter in chapters)),
            *lines,
        ],
        alarms=sum(row.self_test_failed for row in rows),  # notes() says these first
        before=before,
        ranking=ranking,
        chapters=chapters,
        after=after,
    )


@lru_cache(maxsize=1)
def _page() -> Template:
    environment = Environment(
        loader=PackageLoader("djsandbox_ray", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["look"] = _look
    return environment.get_template("report.html")


def _look(table: ReportTable, column: int, cell: str) -> str:
    """Return the class that gives a cell its look; empty for a plain one."""
    if column in table.numbers:
        return "number"
    word = cell.partition(" (")[0]
    if word in _COLOURED:
        return word
    return "short" if len(cell) <= _SHORT else ""


def _section(section: RankingSection, unit: Unit) -> ReportTable:
    if section.title != GIVEN_UP:
        return page_table(section.title, section.rows, unit)
    body = [(row.pool, f"{row.stopped_at:,}") for row in section.rows]
    return ReportTable(section.title, ("pool", "samples seen"), body, numbers=(1,))


def _metrics(rows: Sequence[RankingRow], known: Mapping[str, Metric]) -> ReportTable:
    """Show the mean of every metric; above them, what chance gets and what there can be."""
    names = sorted({name for row in rows for name in row.metrics})
    metrics = [known.get(name, Metric(name)) for name in names]
    body = []
    for what, cells in (("chance", map(_chance, metrics)), ("range", map(_range, metrics))):
        if (found := [what, *cells])[1:].count("-") < len(names):
            body.append(found)
    body += [
        [row.pool, *(f"{row.metrics[name]:.4g}" if name in row.metrics else "-" for name in names)]
        for section in sections(rows)
        for row in section.rows
        if row.stopped_at is None
    ]
    heads = [f"{one.shown}{'' if one.scored else ' (not scored)'}" for one in metrics]
    falls = any(one.better == "less" for one in metrics)
    title = f"Mean of every metric{' (↓: better when less)' if falls else ''}"
    return ReportTable(title, ["pool", *heads], body)


def _doubts(rows: Sequence[RankingRow], metrics: Sequence[Metric]) -> list[str]:
    """Say of which pools a metric tells that the others of its evaluator say little."""
    lines = []
    for metric in metrics:
        if (most := metric.doubtful_above) is None:
            continue
        values = {row.pool: row.metrics[metric.name] for row in rows if metric.name in row.metrics}
        beyond = {pool: value for pool, value in values.items() if value > most}
        if beyond:
            worst = max(beyond, key=lambda pool: beyond[pool])
            lines.append(
                f"{metric.name} is above {most:g} in {len(beyond)} of {len(values)} pools, at most "
                f"{beyond[worst]:.3g} ({worst}): what {metric.name.partition('/')[0]} says of them "
                "is little."
            )
    return lines


def _chance(metric: Metric) -> str:
    return "-" if metric.chance is None else f"{metric.chance:.4g}"


def _range(metric: Metric) -> str:
    if metric.low is None and metric.high is None:
        return "-"
    low, high = ("" if end is None else f"{end:g}" for end in (metric.low, metric.high))
    return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"
