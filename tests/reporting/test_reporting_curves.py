from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from djsandbox_ray.analysis.together.clusters import ward
from djsandbox_ray.analysis.together.correlation import Correlation, correlate
from djsandbox_ray.records import RepetitionRow, ScalingRow
from djsandbox_ray.reporting.curves import (
    STRATEGY_COLOURS,
    Curve,
    repetition_chart,
    scaling_chart,
)
from djsandbox_ray.reporting.figures import png
from djsandbox_ray.reporting.heatmap import heat_map
from djsandbox_ray.reporting.ranking import Unit

FACTORS = (1, 2, 4)


@pytest.fixture
def repeated():
    return [
        RepetitionRow(
            name,
            factor,
            factor * 100,
            100 if name == "repeat" else factor * 100,
            0.1 * factor,
            0.1 * factor - 0.02,
            0.1 * factor + 0.02,
            3,
        )
        for name in ("repeat", "expand", "random")
        for factor in FACTORS
    ]


@pytest.fixture
def scaled():
    return [
        ScalingRow(arm, "tiny", budget, budget * 1e9, error, error - 0.01, error + 0.01, 3)
        for arm, first in (("a/high", 0.4), ("controls", 0.5))
        for budget, error in ((100, first), (200, first - 0.1), (400, first - 0.15))
    ]


CURVE = Curve("a/high", "tiny", (1e11, 2e11, 4e11, 8e11), (0.4, 0.3, 0.25, 0.2))


def lines(figure, marker):
    return [line for line in figure.axes[0].lines if line.get_marker() == marker]


def test_every_strategy_has_its_curve_and_intervals(repeated):
    figure = repetition_chart(repeated, title="demo", unit=Unit.PERCENT)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert [line.get_color() for line in curves] == list(STRATEGY_COLOURS.values())
    for line in curves:
        assert list(line.get_ydata()) == pytest.approx([10, 20, 40])
        assert list(line.get_xdata()) == pytest.approx([100, 200, 400], rel=0.02)
    assert list(lines(figure, "_")[0].get_ydata()) == pytest.approx([8, 12])
    assert figure.axes[0].get_xscale() == "log"
    assert len(figure.axes[0].get_legend().get_texts()) == 3
    assert figure.get_supxlabel() == ""
    assert figure.axes[0].get_ylabel() == "change against random rows (%)"


def test_rows_that_ran_out_and_results_that_lack_are_named(repeated):
    repeated[5] = replace(repeated[5], rows=150)
    repeated[8] = replace(repeated[8], effect=math.nan, low=math.nan, high=math.nan, seeds=0)
    repeated[0] = replace(repeated[0], low=math.nan, high=math.nan, seeds=1)
    figure = repetition_chart(repeated, title="demo", unit=Unit.SD)
    assert "some repeat: expand x4" in figure.get_supxlabel()
    assert "without a result: random x4" in figure.get_supxlabel()
    assert len(lines(figure, "_")) == 7
    assert png(repetition_chart(repeated, title="$x_{$", unit=Unit.SD)).startswith(b"\x89PNG")


def test_laws_are_dashed_beyond_what_was_measured(scaled):
    figure = scaling_chart(scaled, [CURVE], title="demo", target=800)
    drawn = {line.get_linestyle(): line for line in figure.axes[0].lines if len(line.get_xdata())}
    assert list(drawn["--"].get_xdata()) == [4e11, 8e11]
    solid = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert [1e11, 2e11, 4e11] in [list(line.get_xdata()) for line in solid]
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_ydata()) for line in hollow] == [[0.2]]
    assert "800 samples" in figure.get_supxlabel()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "a/high",
        "controls",
    ]


def test_without_laws_and_without_counted_operations(scaled):
    uncounted = [replace(row, flops=math.nan) for row in scaled]
    figure = scaling_chart(uncounted, [], title="demo", target=800)
    assert figure.axes[0].get_xlabel() == "samples seen in training"
    points = lines(figure, "o")[0]
    assert list(points.get_xdata()) == [100, 200, 400]
    assert figure.get_supxlabel() == "no law was fitted"


def test_models_are_told_apart_and_failed_budgets_left_out(scaled):
    rows = [*scaled, *(replace(row, model="small", flops=4 * row.flops) for row in scaled)]
    rows[0] = replace(rows[0], error=math.nan, low=math.nan, high=math.nan, seeds=0)
    figure = scaling_chart(rows, [CURVE], title="demo", target=800)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["a/high, tiny", "controls, tiny", "a/high, small", "controls, small"]
    assert len(lines(figure, "o")[0].get_xdata()) == 2


@pytest.mark.parametrize("name", ["short", "long_statistic/high&" * 8])
def test_a_png(scaled, name):
    rows = [replace(row, arm=name) if row.arm != "controls" else row for row in scaled]
    image = Image.open(io.BytesIO(png(scaling_chart(rows, [], title="demo", target=800))))
    image.load()
    assert image.size == (1200, 720)
    assert len(set(image.convert("L").get_flattened_data())) > 10  # not a blank page


def correlation(count: int) -> Correlation:
    rng = np.random.default_rng(count)
    hidden = rng.normal(size=(300, 3))
    values = hidden[:, np.arange(count) % 3] + rng.normal(size=(300, count))
    names = [f"image_text_matching_score_{i}" if i % 4 else f"text_len_{i}" for i in range(count)]
    return correlate(names, [values])


def drawn(count: int, clusters: int = 3):
    found = correlation(count)
    tree = ward(found, clusters, absolute=True)
    figure = heat_map(found, tree, title="statistics at $5", note="Ward linkage")
    return figure, tree, found


@pytest.mark.parametrize("count", [1, 2, 5, 16, 60])
def test_nothing_that_is_written_overlaps_or_is_cut_off(count: int) -> None:
    figure, _, _ = drawn(count)
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    tree, map_, bar = figure.axes
    labels = [
        *map_.get_xticklabels(),
        *map_.get_yticklabels(),
        *map_.texts,
        *tree.texts,
        *figure.texts,
    ]
    boxes = [label.get_window_extent() for label in labels]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    corners = np.array([box.extents for box in boxes])
    low, high = corners[:, :2], corners[:, 2:]
    # Half a point may touch: boxes have a little air around the letters.
    apart = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    overlap = (apart > 0.7).all(axis=2) & ~np.eye(len(boxes), dtype=bool)
    pairs = [(labels[i].get_text(), labels[j].get_text()) for i, j in np.argwhere(overlap)]
    assert not pairs
    assert bar.get_window_extent().x0 >= max(box.x1 for box in boxes[count : 2 * count])


def test_rows_follow_the_tree_and_clusters_are_framed() -> None:
    figure, tree, found = drawn(9)
    side, map_, _ = figure.axes
    labels = [label.get_text() for label in map_.get_yticklabels()]
    assert labels == list(tree.order)
    image = map_.images[0]
    assert (image.norm.vmin, image.norm.vmax) == (-1, 1)
    np.testing.assert_array_equal(np.asarray(image.get_array()), found.of(tree.order).matrix)
    frames = [patch for patch in map_.patches if isinstance(patch, Rectangle)]
    assert [frame.get_width() for frame in frames] == [len(m) for m in tree.clusters]
    assert len(side.lines) == 8  # one bracket per join
    inside = [line for line in side.lines if line.get_color() == "#000000"]
    assert len(inside) == 9 - 3
    assert max(line.get_xdata().max() for line in inside) < tree.linkage[-2, 2]
    assert map_.get_ylim() == side.get_ylim()


def test_values_are_written_while_there_is_room() -> None:
    figure, tree, found = drawn(4)
    written = {
        (int(t.get_position()[1]), int(t.get_position()[0])): t.get_text()
        for t in figure.axes[1].texts
    }
    matrix = found.of(tree.order).matrix
    assert written == {
        cell: f"{r:.2f}".replace("-0.00", "0.00") for cell, r in np.ndenumerate(matrix)
    }
    assert not drawn(30)[0].axes[1].texts


def test_gaps_are_grey_and_named() -> None:
    values = np.random.default_rng(0).normal(size=(20, 3))
    values[:10, 0] = values[10:, 1] = np.nan
    found = correlate("abc", [values])
    figure = heat_map(found, ward(found, 2, absolute=True), title="gaps", note="note")
    assert figure.get_supxlabel() == "note; grey: no correlation"
    assert len(figure.axes[1].texts) == 7


def test_the_picture_is_a_png() -> None:
    found = correlation(5)
    data = png(heat_map(found, ward(found, 2, absolute=True), title="title", note="note"))
    assert Image.open(io.BytesIO(data)).format == "PNG"
