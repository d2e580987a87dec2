"""Sends what jobs gave to the tracker: files under their names in the run's folder, and numbers."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.ledger.cost import from_json, total
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.records import (
    Acceptance,
    Choice,
    Confirmation,
    Dataset,
    Diversity,
    Evaluation,
    Evolution,
    EvolutionMetric,
    Insights,
    Interactions,
    Ledger,
    PoolKind,
    Ranking,
    RankingRow,
    Recipe,
    Repetition,
    Report,
    Scaling,
)
from djsandbox_ray.reporting.ranking import Unit, interval, notes
from djsandbox_ray.tracking.tracker import DatasetInput

_FILES: dict[type, tuple[str, ...]] = {
    Ranking: ("path",),
    Confirmation: ("path",),
    Choice: ("path", "figure"),
    Interactions: ("path", "surrogate"),
    Repetition: ("path", "law", "figure"),
    Scaling: ("path", "law", "figure"),
    Diversity: ("path",),
    Evolution: ("path", "metrics", "text"),
    Recipe: ("path", "evidence"),
    Acceptance: ("path",),
    Insights: ("path",),
    Ledger: ("path",),
    Report: ("path", "figure"),
}
"""Which fields of a record are paths of files that a tracker shows."""
_MAIN = "ranking.csv"
_NAMED = 3
"""Of the pools that are better, so many are named in a description."""
_VERDICTS = ("better", "worse", "undecided", "stopped", "failed")


def publish(context: Context, output: Any) -> None:
    """Send what a job gave to the tracker; what was sent before changes nothing."""
    tracker, storage = context.tracker, context.storage
    sets = output.sets if isinstance(output, Evaluation) else (output,)
    for one in sets:
        if isinstance(one, Dataset):
            source = without_secrets(storage.uri(one.table))
            name = "evaluation" if one.use == "evaluation" else "dataset"
            tracker.dataset(DatasetInput(name, one.id, source, one.rows, one.use))
    for field in _FILES.get(type(output), ()):
        if path := getattr(output, field):  # a recipe that breaks a policy has no YAML
            tracker.artifact(_name(context, path), storage.read_bytes(path))
    found = _metrics(context, output).items()
    if known := {n: value for n, value in found if value is not None and math.isfinite(value)}:
        tracker.metrics(known)
    if isinstance(output, Report):
        tracker.describe(_description(context, output))


def _description(context: Context, report: Report) -> str:
    """Return what a run has found, as Markdown: its best pools, what to know, where the report is.

    Args:
        context: of the run.
        report: of the run; the ranking of single operators lies beside it.
    """
    ranking = str(PurePosixPath(report.path).with_name(_MAIN))
    lines = list(report.summary)
    if context.storage.exists(ranking):
        rows = context.storage.read_rows(RankingRow, ranking)
        unit = Unit.of(context.config.evaluation.kind)
        better = [row for row in rows if row.kind is PoolKind.BUCKET and row.verdict == "better"]
        lines = [
            *(
                f"{row.pool} is better than the controls by {unit.text(row.change)} {unit} "
                f"({interval(row, unit)})"
                for row in sorted(better, key=lambda row: row.rank)[:_NAMED]
            ),
            *notes(rows),
            *lines,
        ]
    where = without_secrets(context.storage.uri(report.path))
    name = _name(context, report.path)
    listed = "\n".join(f"- {line}" for line in lines)
    return f"{listed}\n\nThe report: `{name}` among the files of this run, and `{where}`."


def is_main(ranking: Ranking) -> bool:
    """Return whether a ranking is that of single operators; others have a name before theirs."""
    return PurePosixPath(ranking.path).name == _MAIN


def combined(row: RankingRow) -> bool:
    """Return whether a row is an intersection of pools: it has no one statistic."""
    return row.kind is PoolKind.BUCKET and row.statistic is None


def _metrics(context: Context, output: Any) -> dict[str, float | None]:
    """Return the numbers of the run as a whole; NaN or None for what is not known."""
    if isinstance(output, Ranking):
        rows = context.storage.read_rows(RankingRow, output.path)
        if is_main(output):
            # Self-tests ask whether the run can tell at all: they are no pools in question.
            verdicts = Counter(row.verdict for row in rows if row.kind is PoolKind.BUCKET)
            return {f"pools_{verdict}": float(verdicts[verdict]) for verdict in _VERDICTS}
        changes = [row.change for row in rows if combined(row) and math.isfinite(row.change)]
        name = PurePosixPath(output.path).name.removesuffix(f"_{_MAIN}")
        return {f"best_{name}_effect": max(changes, default=math.nan)}
    if isinstance(output, Evolution):
        told = context.storage.read_rows(EvolutionMetric, output.metrics)
        return {f"stage_{one.stage}/{one.metric}": one.value for one in told}
    if isinstance(output, Recipe):
        return {"recipe_retention": output.retention, "recipe_effect": output.effect}
    if isinstance(output, Acceptance):
        return {"recipe_rows_differing": float(output.differing)}
    if isinstance(output, Ledger):
        spent = total(from_json(context.storage.read_sealed(output.path)))
        return {
            "cost_samples": float(spent.samples),
            "cost_flops": spent.flops,
            "cost_cpu_seconds": spent.cpu_seconds,
            "cost_gpu_seconds": spent.gpu_seconds,
            "cost_wall_seconds": spent.wall_seconds,
        }
    return {}


def _name(context: Context, path: str) -> str:
    """Return the path of a file in the folder of the run, whichever round that is of."""
    whole = PurePosixPath(path)
    inside = whole.is_relative_to(context.folder)
    return str(whole.relative_to(context.folder)) if inside else whole.name
