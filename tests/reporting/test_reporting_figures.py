from __future__ import annotations

import io
import math
import sys
from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from PIL import Image

from djsandbox_ray.reporting.figures import VERDICT_COLOURS, bar_chart, png
from djsandbox_ray.reporting.ranking import Unit


def bars(figure) -> list[tuple[float, float, str]]:
    """Return position, length and colour of every bar."""
    patches = figure.axes[0].patches
    return [
        (bar.get_y() + bar.get_height() / 2, bar.get_width(), to_hex(bar.get_facecolor()).upper())
        for bar in patches
    ]


def intervals(figure) -> list[list[float]]:
    ends = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    return [[round(float(x), 6) for x in line.get_xdata()] for line in ends]


def labels(figure) -> list[str]:
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


def test_what_is_drawn_is_the_ranking(rows):
    figure = bar_chart(rows, title="demo")
    assert labels(figure) == [
        "similarity/high",
        "text_len/low",
        "text_len/high",
        "self_test/shuffled_statistic",
        "self_test/shuffled_captions",
    ]
    drawn = bars(figure)
    assert [length for _, length, _ in drawn] == pytest.approx([20, -15, 1, -30])
    assert [colour for *_, colour in drawn] == [
        VERDICT_COLOURS[name] for name in ("better", "worse", "undecided", "worse")
    ]
    assert intervals(figure) == [[14, 26], [-21, -9], [-5, 7], [-36, -24]]
    assert [y for y, *_ in drawn] == pytest.approx([0, 1, 4, 5])  # a gap before the self-tests
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text.strip() for text in texts] == ["failed: 0/3 (3 failed)", "pools", "self-tests"]
    assert any(set(line.get_xdata()) == {0} for line in figure.axes[0].lines)


def test_what_was_given_up_is_only_counted(raced, rows):
    figure = bar_chart(raced, title="demo")
    assert labels(figure) == labels(bar_chart(rows, title="demo"))
    assert figure.get_supxlabel() == "2 pools were given up early and not judged"
    assert bar_chart(rows, title="demo").get_supxlabel() == ""
    assert png(bar_chart(raced[-2:], title="demo")).startswith(b"\x89PNG")


def test_confirmed_effects_stand_beside_the_first(rows, confirmed):
    figure = bar_chart(rows, title="demo", confirmed=confirmed)
    assert intervals(figure)[:3] == [[14, 26], [5, 19], [-21, -9]]
    diamonds = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert [round(float(line.get_xdata()[0]), 6) for line in diamonds] == [12]
    assert round(float(diamonds[0].get_ydata()[0])) == 0
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts[-2:] == ["interval", "confirmed with fresh seeds"]
    plain = bar_chart(rows, title="demo").axes[0].get_legend().get_texts()
    assert len(plain) == len(texts) - 1
    assert png(bar_chart(rows, title="demo", confirmed=confirmed)).startswith(b"\x89PNG")


def test_best_is_on_top_and_nothing_is_cut_off(many):
    figure = bar_chart(many(5), title="demo")
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > 4.5
    assert top < -0.5
    left, right = figure.axes[0].get_xlim()
    assert left < min(low for low, _ in intervals(figure))
    assert right > max(high for _, high in intervals(figure))


def test_a_failed_self_test_is_on_top(broken):
    assert labels(bar_chart(broken, title="demo"))[0] == "self_test/shuffled_captions"


def test_units(rows):
    figure = bar_chart(rows, title="demo", unit=Unit.SD)
    assert intervals(figure)[0] == pytest.approx([0.14, 0.26])
    assert "(sd)" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize("count", [0, 1, 3, 30, 93])
def test_a_png_whose_height_grows_with_the_pools(count, many):
    image = Image.open(io.BytesIO(png(bar_chart(many(count), title="demo"))))
    image.load()
    assert image.format == "PNG"
    assert image.width == 1350
    assert 35 * count < image.height < 400 + 45 * count
    if count:
        assert len(set(image.convert("L").get_flattened_data())) > 10  # not a blank page


def test_hostile_names_and_missing_intervals(rows):
    rows[1] = replace(rows[1], pool="$\\frac{x$ </svg>", low=-math.inf, high=math.inf)
    figure = bar_chart(rows, title="$x_{$")
    assert len(intervals(figure)) == 3
    assert png(bar_chart(rows, title="$x_{$")).startswith(b"\x89PNG")


def test_pyplot_is_not_needed():
    import subprocess

    code = "import sys, djsandbox_ray.reporting; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
