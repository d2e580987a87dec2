from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from djsandbox_ray.analysis.together.clusters import ward
from djsandbox_ray.analysis.together.correlation import Correlation, correlate
from djsandbox_ray.reporting.figures import png
from djsandbox_ray.reporting.heatmap import heat_map


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
        figure._suptitle,
        figure._supxlabel,
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
    assert figure._supxlabel.get_text() == "note; grey: no correlation"
    assert len(figure.axes[1].texts) == 7


def test_the_picture_is_a_png() -> None:
    found = correlation(5)
    data = png(heat_map(found, ward(found, 2, absolute=True), title="title", note="note"))
    assert Image.open(io.BytesIO(data)).format == "PNG"
