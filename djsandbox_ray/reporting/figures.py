"""The ranking as a bar chart. Drawn on its own ``Figure``: no state of pyplot, no display."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from djsandbox_ray.records import RankingRow
from djsandbox_ray.reporting.ranking import Section, Unit, sections, seeds

# Okabe and Ito (2008): told apart with every common colour blindness, and in grey.
COLOURS = {"better": "#0072B2", "worse": "#D55E00", "undecided": "#B8B8B8", "failed": "#CC79A7"}

_ROW_INCHES = 0.27
_DPI = 150


def bar_chart(rows: Sequence[RankingRow], *, title: str, unit: Unit = Unit.PERCENT) -> bytes:
    """Return the changes of a ranking as horizontal bars with their intervals, as a PNG.

    Args:
        rows: the ranking, in any order.
        title: shown above, as plain text.
        unit: what the changes are measured in.
    """
    buffer = io.BytesIO()
    bar_figure(rows, title=title, unit=unit).savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def bar_figure(rows: Sequence[RankingRow], *, title: str, unit: Unit = Unit.PERCENT) -> Figure:
    """Return the figure of :func:`bar_chart`: best on top, self-tests apart, failed ones first."""
    parts = sections(rows)
    lines = len(rows) + len(parts)
    figure = Figure(figsize=(9, 1.6 + _ROW_INCHES * max(lines, 3)), layout="constrained")
    axes = figure.add_subplot()
    labels: dict[float, str] = {}
    bottom = 0.0
    for part in parts:
        labels |= _draw_section(axes, part, bottom, unit, named=len(parts) > 1)
        bottom += len(part.rows) + 1
    axes.axvline(0, color="black", linewidth=0.8, zorder=3)
    axes.set_yticks(list(labels), [_plain(label) for label in labels.values()], fontsize=9)
    axes.set_ylim(bottom - 0.4, -1.0)
    axes.set_title(_plain(title), loc="left", fontsize=12, pad=28)
    axes.set_xlabel(f"change against the random controls ({unit}), with simultaneous interval")
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    _legend(axes, rows)
    return figure


def _draw_section(
    axes: Axes, section: Section, top: float, unit: Unit, *, named: bool
) -> dict[float, str]:
    """Draw the rows of a section from ``top`` down; return their labels by position."""
    labels = {}
    for offset, row in enumerate(section.rows):
        y = top + offset
        labels[y] = row.pool
        if not math.isfinite(row.change):
            axes.text(0, y, f"  {row.verdict}: {seeds(row)}", va="center", fontsize=8)
            continue
        change, low, high = (unit.scaled(value) for value in (row.change, row.low, row.high))
        colour = COLOURS.get(row.verdict, COLOURS["undecided"])
        axes.barh(y, change, height=0.68, color=colour, zorder=2)
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [y, y], color="#333333", linewidth=1.1, zorder=4)
            axes.plot([low, high], [y, y], "|", color="#333333", markersize=5, zorder=4)
    if named:
        axes.text(
            0.0,
            top - 0.62,
            section.title,
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            style="italic",
            color="#555555",
            va="center",
        )
    return labels


def _legend(axes: Axes, rows: Sequence[RankingRow]) -> None:
    shown = {row.verdict for row in rows if math.isfinite(row.change)}
    handles: list[Patch | Line2D] = [
        Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in shown
    ]
    handles.append(Line2D([], [], color="#333333", linewidth=1.1, label="interval"))
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        borderaxespad=0.2,
    )


def _plain(text: str) -> str:
    """Escape dollars, which would begin a formula."""
    return text.replace("$", r"\$")
