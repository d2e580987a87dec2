"""The ranking as a bar chart, and what all charts of a report have in common.

Everything is drawn on a ``Figure`` of its own: no state of pyplot, no display. Matplotlib is
imported where something is drawn: a plan draws nothing, and is to answer at once.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from djsandbox_ray.records import ConfirmationRow, RankingRow
from djsandbox_ray.reporting.ranking import GIVEN_UP, RankingSection, Unit, sections, seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

# Okabe and Ito (2008): told apart with every common colour blindness, and in grey.
VERDICT_COLOURS = {
    "better": "#0072B2",
    "worse": "#D55E00",
    "undecided": "#B8B8B8",
    "failed": "#CC79A7",
}

_INTERVAL = "#333333"
_CONFIRMED = "#000000"
_SHIFT = 0.2
"""How far the first interval and the confirmed effect of one pool stand from its middle."""
_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 5,
    "markerfacecolor": "white",
    "markeredgecolor": _CONFIRMED,
    "zorder": 5,
}
_ROW_INCHES = 0.27
_DPI = 150


def bar_chart(
    rows: Sequence[RankingRow],
    *,
    title: str,
    unit: Unit = Unit.PERCENT,
    confirmed: Sequence[ConfirmationRow] = (),
) -> Figure:
    """Draw the changes of a ranking as horizontal bars with their intervals.

    The best is on top; self-tests stand apart, failed ones before everything.

    Args:
        rows: the ranking, in any order; pools that were given up early are only counted.
        title: shown above, as plain text.
        unit: what the changes are measured in.
        confirmed: what a second study found, drawn beside the bars of the same pools.
    """
    from matplotlib.figure import Figure

    parts = [part for part in sections(rows) if part.title != GIVEN_UP]
    lines = sum(len(part.rows) + 1 for part in parts)
    figure = Figure(figsize=(9, 1.6 + _ROW_INCHES * max(lines, 3)), layout="constrained")
    axes = figure.add_subplot()
    again = {row.pool: row for row in confirmed if math.isfinite(row.confirmed)}
    labels: dict[float, str] = {}
    bottom = 0.0
    for part in parts:
        labels |= _draw_section(axes, part, bottom, unit, again)
        if len(parts) > 1:
            _name_section(axes, part, bottom)
        bottom += len(part.rows) + 1
    _style(axes, title, unit)
    axes.set_yticks(list(labels), [escaped(label) for label in labels.values()], fontsize=9)
    axes.set_ylim(max(bottom - 1.2, 0.0), -1.0)
    _legend(axes, [row for part in parts for row in part.rows], again)
    if stopped := sum(row.stopped_at is not None for row in rows):
        noun = "pool was" if stopped == 1 else "pools were"
        caption(figure, f"{stopped} {noun} given up early and not judged")
    return figure


def _draw_section(
    axes: Axes,
    section: RankingSection,
    top: float,
    unit: Unit,
    again: Mapping[str, ConfirmationRow],
) -> dict[float, str]:
    """Draw the rows of a section from ``top`` down; return their labels by position."""
    labels = {}
    for offset, row in enumerate(section.rows):
        y = top + offset
        labels[y] = row.pool
        if not math.isfinite(row.change):
            axes.text(0, y, f"  {row.verdict}: {seeds(row)}", va="center", fontsize=8)
            continue
        colour = VERDICT_COLOURS.get(row.verdict, VERDICT_COLOURS["undecided"])
        axes.barh(y, unit.scaled(row.change), height=0.68, color=colour, zorder=2)
        second = again.get(row.pool)
        shift = _SHIFT if second else 0.0
        _draw_interval(axes, y - shift, unit.scaled(row.low), unit.scaled(row.high), _INTERVAL)
        if second:
            _draw_interval(
                axes, y + shift, unit.scaled(second.low), unit.scaled(second.high), _CONFIRMED
            )
            axes.plot([unit.scaled(second.confirmed)], [y + shift], **_DIAMOND)
    return labels


def _draw_interval(axes: Axes, y: float, low: float, high: float, colour: str) -> None:
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [y, y], color=colour, linewidth=1.1, zorder=4)
        axes.plot([low, high], [y, y], "|", color=colour, markersize=5, zorder=4)


def _name_section(axes: Axes, section: RankingSection, top: float) -> None:
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


def _style(axes: Axes, title: str, unit: Unit) -> None:
    axes.axvline(0, color="black", linewidth=0.8, zorder=3)
    axes.set_title(escaped(title), loc="left", fontsize=12, pad=28)
    axes.set_xlabel(f"change against the random controls ({unit}), with simultaneous interval")
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _legend(axes: Axes, rows: Sequence[RankingRow], again: Mapping[str, ConfirmationRow]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = {row.verdict for row in rows if math.isfinite(row.change)}
    handles: list[Patch | Line2D] = [
        Patch(color=colour, label=name) for name, colour in VERDICT_COLOURS.items() if name in shown
    ]
    handles.append(Line2D([], [], color=_INTERVAL, linewidth=1.1, label="interval"))
    if again:
        label = "confirmed with fresh seeds"
        handles.append(Line2D([], [], color=_CONFIRMED, linewidth=1.1, label=label, **_DIAMOND))
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        borderaxespad=0.2,
    )


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG, its texts as outlines: the same wherever it is shown."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Without a date, and with ids that do not change: the same figure is the same file.
    with rc_context({"svg.hashsalt": "djsandbox"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def caption(figure: Figure, text: str) -> None:
    """Write a remark below a figure, as plain text."""
    figure.supxlabel(escaped(text), x=0.99, ha="right", fontsize=8, style="italic", color="#666666")


def escaped(text: str) -> str:
    """Escape dollars, which would begin a formula."""
    return text.replace("$", r"\$")
