"""A chain of trainings as the paper's Table 10 has it: a row per stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from djsandbox_ray.records import EvolutionMetric, EvolutionRow
from djsandbox_ray.reporting.blocks import Chapter, ReportTable
from djsandbox_ray.reporting.ranking import NOTHING

TITLE = "Self-evolution, stage by stage"
_AVERAGES = ("quality", "semantic", "total")
_HEADER = (
    "stage",
    "data pool",
    "initialised from",
    "self-distillation",
    "real-data loss",
    "self-evolution",
)
_PERCENT = 100


def evolution_table(
    rows: Sequence[EvolutionRow], metrics: Sequence[EvolutionMetric]
) -> ReportTable:
    """Tabulate the stages; VBench's averages in percent where there are any.

    Args:
        rows: the stages, in order.
        metrics: of the stages: each gets a column.
    """
    averages = [name for name in _AVERAGES if any(math.isfinite(getattr(r, name)) for r in rows)]
    names = list(dict.fromkeys(one.metric for one in metrics))
    found = {(one.stage, one.metric): one for one in metrics}
    body = [
        [
            row.stage,
            row.pool,
            row.init,
            _mark(row.self_distillation),
            _mark(row.real_loss),
            _mark(row.self_evolution),
            *(_number(_PERCENT * getattr(row, name), 2) for name in averages),
            *(_value(found.get((row.stage, name))) for name in names),
        ]
        for row in rows
    ]
    header = [*_HEADER, *(f"{name} %" for name in averages), *names]
    return ReportTable(TITLE, header, body, numbers=range(len(_HEADER), len(header)))


def changes_table(metrics: Sequence[EvolutionMetric]) -> ReportTable:
    """Tabulate what each stage has changed against the one before."""
    body = [
        [
            one.stage,
            one.metric,
            _number(one.value, 4),
            _number(one.change, 4, sign=True),
            _between(one.change_low, one.change_high),
            str(one.seeds),
        ]
        for one in metrics
        if math.isfinite(one.change)
    ]
    header = ["stage", "metric", "value", "change", "95 % interval over seeds", "seeds"]
    return ReportTable("Against the stage before", header, body, numbers=(2, 3))


def evolution_chapter(rows: Sequence[EvolutionRow], metrics: Sequence[EvolutionMetric]) -> Chapter:
    """Return both tables as a chapter of the page."""
    return Chapter("Self-evolution", [], [evolution_table(rows, metrics), changes_table(metrics)])


def evolution_markdown(
    name: str,
    rows: Sequence[EvolutionRow],
    metrics: Sequence[EvolutionMetric],
    models: Mapping[str, str],
) -> str:
    """Return the tables as text, and where the models are.

    Args:
        name: of the run.
        rows: the stages.
        metrics: of the stages.
        models: by stage, where what it has trained lies.
    """
    lines = [f"# {name}: self-evolution", ""]
    for table in (evolution_table(rows, metrics), changes_table(metrics)):
        if table.rows:
            lines += [f"## {table.title}", "", *_markdown(table), ""]
    lines += [
        "## Models",
        "",
        "What each stage has trained, a folder per seed: adapters as peft writes them.",
        "",
        *(f"- {stage}: `{path}`" for stage, path in models.items()),
    ]
    return "\n".join(lines) + "\n"


def _markdown(table: ReportTable) -> list[str]:
    rule = ["---:" if at in table.numbers else "---" for at in range(len(table.header))]
    return [f"| {' | '.join(row)} |" for row in (table.header, rule, *table.rows)]


def _mark(value: bool) -> str:
    return "yes" if value else NOTHING


def _value(found: EvolutionMetric | None) -> str:
    return NOTHING if found is None else _number(found.value, 4)


def _number(value: float, digits: int, sign: bool = False) -> str:
    if not math.isfinite(value):
        return NOTHING
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _between(low: float, high: float) -> str:
    if not math.isfinite(low):
        return NOTHING
    return f"[{_number(low, 4, sign=True)}, {_number(high, 4, sign=True)}]"
