"""What a run found as one HTML page that needs nothing else: no font, no address, no server.

Its only script sorts tables; the page allows no other one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from pydantic import Field

from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import NotTestable, RankingRow
from djsandbox_ray.reporting.blocks import Block, Chapter, Listing, Picture, ReportTable
from djsandbox_ray.reporting.ranking import (
    GIVEN_UP,
    NOTHING,
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
_TEMPLATES = resources.files("djsandbox_ray.reporting") / "templates"


class ReportConfig(Section):
    """What the report shows beside the verdicts."""

    labels: list[str] = Field(default=[])
    """Keys of the samples' metadata, such as ``defect``: the report says how large a share of every
    pool has each value, and how the values of every statistic are spread in the groups that the
    first key makes. They are only shown, never used."""
    samples: bool = True
    """Whether samples are shown: of the best pool, the worst and a control, and of every statistic.
    Those that lie beyond a policy never are."""


def report_html(
    title: str,
    rows: Sequence[RankingRow],
    *,
    unit: Unit = Unit.PERCENT,
    about: str = "",
    answer: Sequence[tuple[str, str]] = (),
    answer_tables: Sequence[ReportTable] = (),
    lines: Sequence[str] = (),
    before: Sequence[ReportTable] = (),
    figures: Sequence[Picture] = (),
    chapters: Sequence[Chapter] = (),
    facts: Mapping[str, str] | None = None,
    not_testable: Sequence[NotTestable] = (),
    tables: Sequence[Block] = (),
    metrics: Sequence[Metric] = (),
    controls: Mapping[str, float] | None = None,
    configuration: str = "",
) -> str:
    """Return the page. Every text is escaped.

    Args:
        title: name of the run.
        rows: the ranking, in any order.
        unit: what its changes are measured in.
        about: what it is, in a line below its name.
        answer: what to keep, what it is worth, how sure it is, what to do next: see
            :func:`.answer.answer_lines`.
        answer_tables: what belongs to it.
        lines: what else a reader must know, after the notes on the ranking and the headlines of
            chapters.
        before: tables that come before the ranking, such as the confirmed effects.
        figures: of the ranking.
        chapters: what followed the ranking, in order; the page links to them at its beginning.
        facts: what the run was: dataset, model, budget, versions.
        not_testable: statistics that got no pools.
        tables: further tables, and pictures among them.
        metrics: what is known of the metrics of the ranking.
        controls: the mean of every metric over the control trials, where they are known.
        configuration: of the run, as YAML without secrets.
    """
    ranking: list[Block] = [*figures, *(_section(section, unit) for section in sections(rows))]
    after: list[Block] = []
    if not_testable:
        skipped = [(item.statistic, item.reason) for item in not_testable]
        after.append(ReportTable("Not testable", ("statistic", "reason"), skipped))
    if any(row.metrics for row in rows):
        known = {metric.name: metric for metric in metrics}
        after.append(_metrics(rows, known, controls or {}))
    after += tables
    if facts:
        after.append(ReportTable("This run", ("", ""), list(facts.items())))
    if configuration:
        after.append(Listing("Its configuration", configuration, is_long=True))
    script = _file("report.js")
    return _page().render(
        title=title,
        about=about,
        answer=answer,
        answer_tables=answer_tables,
        style=_file("report.css"),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        lines=[*notes(rows), *filter(None, (chapter.headline for chapter in chapters)), *lines],
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


def _file(name: str) -> str:
    """Return a file that is put into the page as it is: one of this package's own."""
    return (_TEMPLATES / name).read_text()


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


def _metrics(
    rows: Sequence[RankingRow], known: Mapping[str, Metric], controls: Mapping[str, float]
) -> ReportTable:
    """Show the mean of every metric; above them chance, what there can be, and the controls."""
    names = sorted({name for row in rows for name in row.metrics})
    metrics = [known.get(name, Metric(name)) for name in names]
    body = []
    for what, cells in (("chance", map(_chance, metrics)), ("range", map(_range, metrics))):
        if (found := [what, *cells])[1:].count("-") < len(names):
            body.append(found)
    if controls:
        body.append(["controls", *(_number(controls.get(name)) for name in names)])
    body += [
        [row.pool, *(_number(row.metrics.get(name)) for name in names)]
        for section in sections(rows)
        for row in section.rows
        if row.stopped_at is None
    ]
    heads = [f"{one.shown}{'' if one.scored else ' (not scored)'}" for one in metrics]
    falls = any(one.better == "less" for one in metrics)
    title = f"Mean of every metric{' (↓: better when less)' if falls else ''}"
    return ReportTable(title, ["pool", *heads], body)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _chance(metric: Metric) -> str:
    return _number(metric.chance)


def _range(metric: Metric) -> str:
    if metric.low is None and metric.high is None:
        return "-"
    low, high = ("" if end is None else f"{end:g}" for end in (metric.low, metric.high))
    return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"
