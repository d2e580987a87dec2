"""How the trials of a study went, for the page: what they learnt on the way, and the money.

Curves show metrics as they are measured, pools against the band of the control arms.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.ledger.cost import total
from djsandbox_ray.records import Cost, Pool, PoolKind, RankingRow, TrialRecord
from djsandbox_ray.reporting.costs import duration
from djsandbox_ray.reporting.figures import VERDICT_COLOURS, caption, escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_CHARTS = 6
"""Metrics that get a chart."""
_MOST_STAGES = 15
_BAND = "#BBBBBB"
_THIN = "#8A8A8A"
_NAMED = 4
"""Pools whose curves are named, from either end of the ranking."""
_LINE = 0.045
"""Height of a line of small writing, as a share of a chart."""
_LEAST_SHARE = 0.005
"""Of all seconds: what takes less has no bar of its own."""

Curve = dict[int, float]
"""By samples seen, the mean of a metric over the trials of a pool that came so far."""


def mean_metrics(trials: Iterable[TrialRecord], names: Iterable[str]) -> dict[str, float]:
    """Return the mean of every metric over the completed trials of some pools.

    Args:
        trials: of a study.
        names: of the pools.
    """
    wanted = set(names)
    found: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.spec.pool in wanted and trial.final is not None:
            for metric, value in trial.final.metrics.items():
                found[metric].append(value)
    return {metric: math.fsum(values) / len(values) for metric, values in found.items()}


def mean_curves(trials: Iterable[TrialRecord]) -> dict[str, dict[str, Curve]]:
    """Return by metric and pool what was reported on the way.

    Only rungs that all trials of a pool reached that came furthest count: a mean over other seeds
    at every rung would bend where nothing does.
    """
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for trial in trials:
        for report in trial.reports:
            for metric, value in report.metrics.items():
                by_pool = values.setdefault(metric, {}).setdefault(trial.spec.pool, {})
                by_pool.setdefault(report.samples, []).append(value)
    return {
        metric: {
            pool: {
                samples: math.fsum(found) / len(found)
                for samples, found in sorted(rungs.items())
                if len(found) == max(map(len, rungs.values()))
            }
            for pool, rungs in pools.items()
        }
        for metric, pools in values.items()
    }


def curve_charts(
    trials: Sequence[TrialRecord],
    pools: Sequence[Pool],
    rows: Sequence[RankingRow],
    metrics: Sequence[Metric],
) -> list[tuple[str, Figure]]:
    """Draw the metrics over the samples seen: pools as lines, controls as a band.

    Args:
        trials: of the study.
        pools: of the study.
        rows: its ranking.
        metrics: those that are drawn, the first ones of them.

    Returns:
        Titles and figures; none of a metric that nobody reported twice.
    """
    found = mean_curves(trials)
    kinds = {pool.id: pool.kind for pool in pools}
    drawn: list[tuple[str, Figure]] = []
    for metric in metrics:
        curves = found.get(metric.name, {})
        if any(len(curve) > 1 for curve in curves.values()) and len(drawn) < _MOST_CHARTS:
            drawn.append((metric.shown, _curves(curves, kinds, rows, metric)))
    return drawn


def _curves(
    curves: Mapping[str, Curve],
    kinds: Mapping[str, PoolKind],
    rows: Sequence[RankingRow],
    metric: Metric,
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    _band(axes, [curve for name, curve in curves.items() if kinds.get(name) is PoolKind.CONTROL])
    judged = [
        row
        for row in sorted(rows, key=lambda row: row.rank)
        if row.kind is PoolKind.BUCKET and row.pool in curves
    ]
    named = {row.pool for row in (*judged[:_NAMED], *judged[-_NAMED:]) if row.stopped_at is None}
    ends: dict[str, tuple[int, float]] = {}
    for row in judged:
        curve = curves[row.pool]
        stopped = row.stopped_at is not None
        is_named = row.pool in named and row.verdict in ("better", "worse")
        colour = VERDICT_COLOURS[row.verdict] if is_named else _THIN
        axes.plot(
            [*curve],
            [*curve.values()],
            color=colour,
            linewidth=1.6 if is_named else 0.7,
            linestyle="--" if stopped else "-",
            marker="x" if stopped else ".",
            markevery=[len(curve) - 1] if stopped else None,
            markersize=5,
        )
        if is_named and curve:
            ends[row.pool] = [*curve.items()][-1]
    _name_ends(axes, ends, {row.pool: VERDICT_COLOURS.get(row.verdict, _THIN) for row in judged})
    if metric.chance is not None:
        axes.axhline(metric.chance, color="black", linewidth=0.8, linestyle=":")
    axes.set_title(escaped(metric.shown), loc="left", fontsize=10)
    axes.set_xlabel("samples seen", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    parts = ["grey band: the control arms"]
    parts += ["dashed: given up early"] if any(row.stopped_at is not None for row in judged) else []
    parts += ["dotted: chance"] if metric.chance is not None else []
    caption(figure, "; ".join(parts))
    return figure


def _name_ends(
    axes: Axes, ends: Mapping[str, tuple[int, float]], colours: Mapping[str, str]
) -> None:
    """Write the names of pools behind their curves, one above the other where these meet."""
    bottom, top = axes.get_ylim()
    lowest = -math.inf
    for name, (samples, value) in sorted(ends.items(), key=lambda item: item[1][1]):
        lowest = max(value, lowest + _LINE * (top - bottom))
        axes.annotate(
            f" {escaped(name)}", (samples, lowest), fontsize=7, color=colours[name], va="center"
        )


def _band(axes: Axes, controls: Sequence[Curve]) -> None:
    """Draw from the least to the greatest of the control arms, and their mean."""
    places = sorted(set.intersection(*map(set, controls))) if controls else []
    if not places:
        return
    table = np.array([[curve[place] for place in places] for curve in controls])
    low, high = table.min(axis=0), table.max(axis=0)
    axes.fill_between(places, low, high, color=_BAND, alpha=0.6, linewidth=0)
    axes.plot(places, table.mean(axis=0), color="black", linewidth=1)


def costs_chart(costs: Sequence[Cost]) -> Figure | None:
    """Draw what every stage held of what is dearest, GPUs or else CPUs; None where nobody did."""
    on_gpus = any(cost.gpu_seconds for cost in costs)
    seconds = {cost.stage: cost.gpu_seconds if on_gpus else cost.cpu_seconds for cost in costs}
    whole = total(costs).gpu_seconds if on_gpus else total(costs).cpu_seconds
    shown = {stage: spent for stage, spent in seconds.items() if spent > _LEAST_SHARE * whole}
    if not whole or not shown:
        return None
    dearest = dict(sorted(shown.items(), key=lambda item: -item[1])[:_MOST_STAGES])
    bars = {stage: spent for stage, spent in shown.items() if stage in dearest}  # in their order
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 0.9 + 0.24 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(bars))
    axes.barh(places, [*bars.values()], color="#0072B2", height=0.7)
    for place, spent in zip(places, bars.values(), strict=True):
        axes.annotate(
            f" {duration(spent)}, {100 * spent / whole:.0f} %",
            (spent, place),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(places, [escaped(stage) for stage in bars], fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xticks([])
    axes.margins(x=0.3)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(f"{'GPU' if on_gpus else 'CPU'} time by stage", loc="left", fontsize=10)
    return figure
