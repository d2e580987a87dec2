"""How effects and errors change with samples and compute, in the style of ``figures``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from djsandbox_ray.records import RepetitionRow, ScalingRow
from djsandbox_ray.reporting.costs import operations
from djsandbox_ray.reporting.figures import caption, escaped
from djsandbox_ray.reporting.ranking import Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), as in the bar chart.
STRATEGY_COLOURS = {"repeat": "#D55E00", "expand": "#0072B2", "random": "#8A8A8A"}
_CYCLE = ("#0072B2", "#8A8A8A", "#009E73", "#CC79A7", "#E69F00", "#D55E00", "#56B4E9", "#000000")
_LABELS = {
    "repeat": "the top pool again",
    "expand": "next layers, new rows",
    "random": "random rows",
}
_MARKERS = "osD^vP"
_APART = 0.008
"""Curves at the same place are drawn that far apart, as a fraction of it, so that all are seen."""


@dataclass(frozen=True)
class Curve:
    """A fitted law to draw beside what was measured."""

    arm: str
    model: str
    x: Sequence[float]
    """In the unit of the axis, rising."""
    errors: Sequence[float]


def repetition_chart(rows: Sequence[RepetitionRow], *, title: str, unit: Unit) -> Figure:
    """Draw the effect of every strategy beside random rows, over the samples seen.

    Args:
        rows: in any order; those without an effect are left out and named below.
        title: shown above, as plain text.
        unit: what the effects are measured in.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = _canvas(title)
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    for index, strategy in enumerate(strategies):
        own = sorted((r for r in rows if r.strategy == strategy), key=lambda row: row.samples)
        shown = [row for row in own if math.isfinite(row.effect)]
        _points(
            axes,
            [row.samples * (1 + _APART * (index - len(strategies) // 2)) for row in shown],
            [unit.scaled(row.effect) for row in shown],
            [(unit.scaled(row.low), unit.scaled(row.high)) for row in shown],
            STRATEGY_COLOURS.get(strategy, _CYCLE[index % len(_CYCLE)]),
            _MARKERS[index % len(_MARKERS)],
            _LABELS.get(strategy, strategy),
        )
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    ticks = {row.samples: f"{row.samples:,}\nx{row.factor}" for row in rows}
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: ticks.get(round(x), f"{x:,.0f}")))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("samples seen, and how often the top pool's draw fits into them")
    axes.set_ylabel(f"change against random rows ({unit})")
    _legend(axes)
    short = [row for row in rows if row.rows < row.samples and row.strategy != "repeat"]
    lost = [row for row in rows if not math.isfinite(row.effect)]
    parts = [f"rows ran out, so that some repeat: {_named(short)}"] if short else []
    parts += [f"without a result: {_named(lost)}"] if lost else []
    if parts:
        caption(figure, "; ".join(parts))
    return figure


def scaling_chart(
    rows: Sequence[ScalingRow], curves: Sequence[Curve], *, title: str, target: int
) -> Figure:
    """Draw errors against compute with the fitted laws; over samples where FLOPs were not counted.

    Args:
        rows: in any order.
        curves: dashed where they leave what was measured of their arm and model; they end, hollow,
            at the full run.
        title: shown above, as plain text.
        target: samples of the full run.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure, axes = _canvas(title)
    counted = all(math.isfinite(row.flops) for row in rows)
    names = list(dict.fromkeys((row.arm, row.model) for row in rows))
    several = len({model for _, model in names}) > 1
    for index, (arm, model) in enumerate(names):
        own = sorted((r for r in rows if (r.arm, r.model) == (arm, model)), key=lambda r: r.budget)
        shown = [row for row in own if math.isfinite(row.error)]
        x = [row.flops if counted else float(row.budget) for row in shown]
        colour = _CYCLE[index % len(_CYCLE)]
        label = f"{arm}, {model}" if several else arm
        ends = [(row.low, row.high) for row in shown]
        errors, marker = [row.error for row in shown], _MARKERS[index % len(_MARKERS)]
        _points(axes, x, errors, ends, colour, marker, label, line="none")
        for curve in curves:
            if (curve.arm, curve.model) == (arm, model):
                _draw(axes, curve, max(x, default=0.0), colour, marker)
    wide = axes.get_xlim()[1] > 200 * axes.get_xlim()[0]
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: operations(x) if counted else f"{x:,.0f}")
    )
    axes.set_xlabel("operations of the training" if counted else "samples seen in training")
    axes.set_ylabel("error (1 - mean of the metrics)")
    _legend(axes)
    predicted = f"dashed: extrapolated to the full run of {target:,} samples"
    caption(figure, predicted if curves else "no law was fitted")
    return figure


def _canvas(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_title(escaped(title), loc="left")
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _points(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    ends: Sequence[tuple[float, float]],
    colour: str,
    marker: str,
    label: str,
    line: str = "-",
) -> None:
    """Draw what was measured; a missing interval is left out."""
    axes.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.4,
        linestyle=line,
        label=escaped(label),
        zorder=3,
    )
    for place, (low, high) in zip(x, ends, strict=True):
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([place, place], [low, high], color=colour, linewidth=1.1, zorder=2)
            axes.plot([place, place], [low, high], "_", color=colour, markersize=6, zorder=2)


def _draw(axes: Axes, curve: Curve, measured: float, colour: str, marker: str) -> None:
    """Draw a law: solid as far as it was measured, dashed beyond, hollow where it ends."""
    points = list(zip(curve.x, curve.errors, strict=True))
    inside = [point for point in points if point[0] <= measured]
    beyond = points[max(len(inside) - 1, 0) :]
    for part, style in ((inside, "-"), (beyond, "--")):
        if len(part) > 1:
            axes.plot(*zip(*part, strict=True), color=colour, linewidth=1.2, linestyle=style)
    if len(beyond) > 1:
        end: dict[str, Any] = {"marker": marker, "markersize": 6, "markerfacecolor": "white"}
        axes.plot(*beyond[-1], color=colour, zorder=4, **end)


def _legend(axes: Axes) -> None:
    """Put the legend between the title and the axes."""
    labels = axes.get_legend_handles_labels()[1]
    columns = 3 if sum(map(len, labels[:3])) < 90 else 1
    if labels:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=columns,
            frameon=False,
            fontsize=9,
            borderaxespad=0.2,
        )
    lines = math.ceil(len(labels) / columns)
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=12, pad=12 + 16 * lines)


def _named(rows: Sequence[RepetitionRow]) -> str:
    return ", ".join(f"{row.strategy} x{row.factor}" for row in rows)
