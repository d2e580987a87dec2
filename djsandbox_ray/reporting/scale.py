"""Repetition, compute and diversity: what changes with scale, as chapters of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from djsandbox_ray.records import DiversityRow, RepetitionRow, ScalingRow
from djsandbox_ray.reporting.blocks import Chapter, Picture, ReportTable, Sentences
from djsandbox_ray.reporting.costs import operations
from djsandbox_ray.reporting.ranking import NOTHING, Unit


def repetition_chapter(
    rows: Sequence[RepetitionRow], sentences: Sequence[str], png: bytes, unit: Unit
) -> Chapter:
    """Set the strategies side by side, factor by factor, under what was found."""
    header = [
        "strategy",
        "factor",
        "samples seen",
        "different rows",
        f"against random rows {unit}",
        "interval",
        "seeds",
    ]
    body = [
        [
            row.strategy,
            f"x{row.factor}",
            f"{row.samples:,}",
            f"{row.rows:,}",
            unit.text(row.effect),
            unit.between(row.low, row.high),
            str(row.seeds),
        ]
        for row in sorted(rows, key=lambda row: row.factor)
    ]
    title = "Repetition against diversity"
    table = ReportTable("At equal samples seen", header, body)
    return Chapter(title, [], [*_found(sentences), Picture(title, png), table])


def scaling_chapter(rows: Sequence[ScalingRow], sentences: Sequence[str], png: bytes) -> Chapter:
    """Tabulate the errors of every arm, model and budget under what was found."""
    header = ["arm", "model", "samples seen", "operations", "error", "interval", "seeds"]
    body = [
        [
            row.arm,
            row.model,
            f"{row.budget:,}",
            operations(row.flops if math.isfinite(row.flops) else None),
            _number(row.error),
            _interval(row.low, row.high),
            str(row.seeds),
        ]
        for row in rows
    ]
    title = "Error against compute"
    table = ReportTable("At every budget and model", header, body)
    return Chapter(title, [], [*_found(sentences), Picture(title, png), table])


def diversity_chapter(rows: Sequence[DiversityRow], unit: Unit) -> Chapter:
    """Tabulate every measure over the pools, those with the largest effect first."""
    measures = list(dict.fromkeys(row.measure for row in rows))
    changes = {row.pool: row.change for row in rows}
    found = {(row.pool, row.measure): row for row in rows}
    body = []
    for pool in sorted(changes, key=lambda name: _descending(changes[name])):
        cells = [found.get((pool, measure)) for measure in measures]
        body.append([pool, unit.text(changes[pool]), *map(_measured, cells)])
    table = ReportTable(
        "Every pool, with 95 % intervals", ["pool", f"effect {unit}", *measures], body
    )
    return Chapter("Diversity of the pools", [], [table])


def _found(sentences: Sequence[str]) -> list[Sentences]:
    return [Sentences("What was found", sentences)] if sentences else []


def _descending(change: float) -> float:
    return -change if math.isfinite(change) else math.inf


def _measured(row: DiversityRow | None) -> str:
    if row is None or not math.isfinite(row.value):
        return NOTHING
    if not (math.isfinite(row.low) and math.isfinite(row.high)):
        return _number(row.value)
    return f"{_number(row.value)} [{_number(row.low)}, {_number(row.high)}]"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else NOTHING


def _interval(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return NOTHING
    return f"{low:.4g} .. {high:.4g}"
