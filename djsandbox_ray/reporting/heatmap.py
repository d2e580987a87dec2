"""Correlations as a heat map beside the tree of their clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from djsandbox_ray.analysis.together.clusters import Clustering
from djsandbox_ray.analysis.together.correlation import Correlation, Floats
from djsandbox_ray.reporting.figures import caption, escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR_MAP = "RdBu_r"
"""Diverging, white at 0: told apart with every common colour blindness."""
_GAP = "#D9D9D9"
_MOST_WRITTEN = 16
"""Columns up to which the correlation is written into its cell."""
_DARK = 0.6
"""|r| from which writing is white."""


def heat_map(correlation: Correlation, clustering: Clustering, *, title: str, note: str) -> Figure:
    """Draw correlations with rows and columns in the order of the tree, and clusters framed.

    Args:
        correlation: of at least the names of the clustering.
        clustering: the tree and its cut.
        title: shown above, as plain text.
        note: shown below: what the distance of the tree is.
    """
    from matplotlib.figure import Figure

    count = len(clustering.order)
    side = max(3.2, (0.42 if count <= _MOST_WRITTEN else 0.21) * count)
    figure = Figure(figsize=(side + 5.2, side + 2.6), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=[1.5, side, 0.16])
    tree, map_, bar = (figure.add_subplot(grid[0, place]) for place in range(3))
    matrix = correlation.of(clustering.order).matrix
    image = _draw_map(map_, matrix, clustering)
    _draw_tree(tree, clustering)
    figure.colorbar(image, cax=bar, label="Pearson correlation")
    figure.suptitle(escaped(title), x=0.01, ha="left", fontsize=12)
    if np.isnan(matrix).any():
        note = f"{note}; grey: no correlation"
    caption(figure, note)
    return figure


def _draw_map(axes: Axes, matrix: Floats, clustering: Clustering) -> Any:
    from matplotlib.patches import Rectangle

    count = len(matrix)
    image = axes.imshow(matrix, cmap=_COLOUR_MAP, vmin=-1, vmax=1, aspect="auto")
    axes.set_facecolor(_GAP)
    labels = [escaped(name) for name in clustering.order]
    size = 9 if count <= _MOST_WRITTEN else 7
    axes.set_xticks(range(count), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(count), labels, fontsize=size)
    axes.yaxis.tick_right()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= _MOST_WRITTEN:
        _write_cells(axes, matrix)
    start = -0.5
    for members in clustering.clusters:
        width = len(members)
        frame = Rectangle((start, start), width, width, fill=False, linewidth=2, clip_on=False)
        axes.add_patch(frame)
        start += width
    return image


def _write_cells(axes: Axes, matrix: Floats) -> None:
    for (row, column), r in np.ndenumerate(matrix):
        if not np.isnan(r):
            colour = "white" if abs(r) >= _DARK else "black"
            # "-0.00" says no more than "0.00".
            text = f"{round(float(r), 2) + 0.0:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _draw_tree(axes: Axes, clustering: Clustering) -> None:
    """Draw the tree with its root to the left and leaf i beside row i of the map."""
    count = len(clustering.order)
    if count == 1:
        axes.set_axis_off()
    else:
        drawn = scipy.cluster.hierarchy.dendrogram(clustering.linkage, no_plot=True)
        cut = _cut(clustering)
        for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True):
            # scipy puts leaf i at 10 i + 5.
            rows = [(place - 5) / 10 for place in places]
            inside = max(heights) < cut
            colour, width = ("#000000", 1.3) if inside else ("#999999", 1.0)
            axes.plot(heights, rows, color=colour, linewidth=width)
    axes.set_ylim(count - 0.5, -0.5)
    axes.invert_xaxis()
    axes.set_yticks([])
    axes.set_xlabel("distance", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if len(clustering.clusters) > 1:
        _name_clusters(axes, clustering.clusters)


def _cut(clustering: Clustering) -> float:
    """Return a height between the last join inside a cluster and the first one of clusters."""
    heights = clustering.linkage[:, 2]
    joins = len(heights) - (len(clustering.clusters) - 1)
    if joins == len(heights):
        return float("inf")
    return float(heights[joins] + (heights[joins - 1] if joins else 0.0)) / 2


def _name_clusters(axes: Axes, clusters: Sequence[Sequence[str]]) -> None:
    start = 0
    for number, members in enumerate(clusters, start=1):
        axes.text(
            -0.03,
            start + (len(members) - 1) / 2,
            f"cluster {number}",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=8,
            rotation=90 if len(members) > 2 else 0,
        )
        start += len(members)
