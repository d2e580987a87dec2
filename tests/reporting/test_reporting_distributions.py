"""Every statistic with its values, its cuts and its samples; samples of pools."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from factories import pool as pool_of
from factories import ranking_row
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch
from PIL import Image
from written_tables import written

from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.records import Pools
from djsandbox_ray.reporting.blocks import Gallery
from djsandbox_ray.reporting.distributions import (
    Groups,
    Shown,
    correlation_picture,
    histogram,
    pools_chapter,
    statistics_chapter,
)
from djsandbox_ray.reporting.figures import VERDICT_COLOURS, svg
from djsandbox_ray.reporting.page import report_html
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.sample_cards import SampleCards
from djsandbox_ray.storage.store import Storage

ROWS = 90
Make = Callable[..., Shown]


@pytest.fixture
def shown(storage: Storage, tmp_path: Path) -> Make:
    values = {
        "length": np.arange(ROWS, dtype=np.float64),
        "noise": np.random.default_rng(0).normal(size=ROWS),
    }
    values["length"][5] = np.nan
    built = construct(np.arange(ROWS), values, PoolConfig(controls=5))
    table = pa.table({"row_id": np.arange(ROWS), **built.assignments})
    storage.write_table("assignments.parquet", table)
    pools = Pools("pools", "assignments.parquet", built.pools, built.size, built.draw_size, ROWS, 0)
    pools = replace(pools, contrast=built.contrast)
    rows = [
        ranking_row("length/high", 0.5, "better", rank=1),
        ranking_row("noise/low", 0.1, "undecided", rank=2),
        ranking_row("length/low", -0.5, "worse", rank=3),
    ]
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    samples = [Sample(buffer.getvalue(), f"text {row}", "here", {}, ()) for row in range(ROWS)]
    table_of_samples, _ = written(samples, tmp_path / "table")

    def made(*, with_samples: bool = True, **changes) -> Shown:
        cards = SampleCards(table_of_samples, None, str) if with_samples else None
        return Shown(storage, pools, rows, changes.get("columns", values), Unit.PERCENT, cards)

    return made


def captions(gallery: Gallery) -> dict[str, list[int]]:
    return {
        name: [int(card.caption.removeprefix("text ")) for card in cards]
        for name, cards in gallery.groups
    }


def test_a_statistic_is_seen_at_its_ends_and_at_its_cuts(shown: Make) -> None:
    chapter = statistics_chapter(shown())
    assert chapter is not None
    first, second = chapter.blocks
    assert isinstance(first, Gallery)
    assert isinstance(second, Gallery)
    # That with the greatest change comes first.
    assert first.title.startswith("length: ")
    assert "high better" in first.title
    found = captions(first)
    assert list(found) == [
        "lowest",
        "at the cut between low and middle",
        "at the cut between middle and high",
        "highest",
    ]
    assert found["lowest"] == [0, 1, 2, 3]
    assert found["highest"] == [86, 87, 88, 89]
    cut = found["at the cut between low and middle"]
    assert cut == sorted(cut)
    assert len(cut) == 4
    assert 5 not in {row for rows in found.values() for row in rows}  # it has no value
    assert first.groups[0][1][0].note == "0"
    assert first.picture is not None
    assert first.picture.source.startswith("data:image/svg+xml;base64,")


def test_without_samples_there_are_still_the_values(shown: Make) -> None:
    bare = shown(with_samples=False)
    assert pools_chapter(bare) is None
    chapter = statistics_chapter(bare)
    assert chapter is not None
    assert all(isinstance(one, Gallery) and not one.groups for one in chapter.blocks)
    assert statistics_chapter(shown(columns={})) is None
    assert "text 1" not in report_html("demo", [], chapters=[chapter])


def test_samples_of_the_best_the_worst_and_a_control(shown: Make) -> None:
    it = shown()
    chapter = pools_chapter(it)
    assert chapter is not None
    (gallery,) = chapter.blocks
    assert isinstance(gallery, Gallery)
    found = captions(gallery)
    best, worst, control = found
    assert best == "length/high: +50.00 %, better"
    assert worst == "length/low: -50.00 %, worse"
    assert control.startswith("control/")
    assert all(len(set(rows)) == 12 for rows in found.values())
    assert min(found[best]) > max(found[worst])
    assert captions(pools_chapter(shown()).blocks[0]) == found  # type: ignore[union-attr,arg-type]
    page = report_html("demo", [], chapters=[chapter])
    assert page.count("data:image/webp;base64,") == 36


def test_bars_have_the_colours_of_verdicts(shown: Make) -> None:
    it = shown()
    buckets = [pool for pool in it.pools.pools if pool.statistic == "length"]
    figure = histogram(it.columns["length"], buckets, it.verdicts, title="length")
    bars = figure.axes[0].patches
    assert sum(bar.get_height() for bar in bars) == ROWS - 1
    assert to_hex(bars[-1].get_facecolor()).upper() == VERDICT_COLOURS["better"]
    assert to_hex(bars[0].get_facecolor()).upper() == VERDICT_COLOURS["worse"]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [
        pool.low for pool in buckets[1:]
    ]
    assert figure.get_supxlabel() == "89 samples, 1 without a value"


def test_every_group_has_a_line_of_its_own(shown: Make) -> None:
    it = shown()
    buckets = [pool for pool in it.pools.pools if pool.statistic == "length"]
    groups = Groups.of([["odd", "even"] * 20, ["odd", "even"] * 25])
    figure = histogram(it.columns["length"], buckets, it.verdicts, title="length", groups=groups)
    lines = {
        line.get_label(): line.get_data().values.sum()
        for line in figure.axes[0].patches
        if isinstance(line, StepPatch)
    }
    assert lines == {"odd": 45, "even": 44}, "one of the even has no value"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["odd", "even"]


def test_groups_beyond_those_that_can_be_told_apart_are_one() -> None:
    labels = [letter for count, letter in enumerate("abcdefg", start=1) for _ in range(count)]
    groups = Groups.of([labels[:10], labels[10:]])
    assert groups.names == ("g", "f", "e", "d", "others")
    assert np.bincount(groups.codes).tolist() == [7, 6, 5, 4, 6]
    assert Groups.of([list("aab")]).names == ("a", "b")
    assert Groups.of([]).names == ()


def test_statistics_are_shown_by_group_where_groups_are_known(shown: Make) -> None:
    groups = Groups.of([["odd", "even"] * (ROWS // 2)])
    plain = statistics_chapter(shown(with_samples=False))
    grouped = statistics_chapter(replace(shown(with_samples=False), groups=groups))
    assert plain is not None
    assert grouped is not None
    for one, other in zip(plain.blocks, grouped.blocks, strict=True):
        assert isinstance(one, Gallery)
        assert isinstance(other, Gallery)
        assert one.picture != other.picture


@pytest.mark.parametrize("values", [[np.nan], [np.inf, np.nan], [1.0, 1.0], []])
def test_a_histogram_of_next_to_nothing_is_drawn(values: list[float]) -> None:
    buckets = [pool_of("a/low"), pool_of("a/high")]
    figure = histogram(np.array(values), buckets, {}, title="a $ sign")
    assert svg(figure).startswith(b"<?xml")


def test_correlations_need_two_statistics(shown: Make) -> None:
    picture = correlation_picture(shown())
    assert picture is not None
    assert picture.kind == "image/svg+xml"
    it = shown()
    assert correlation_picture(shown(columns={"noise": it.columns["noise"]})) is None
    flat = {**it.columns, "length": np.ones(ROWS)}
    assert correlation_picture(shown(columns=flat)) is None
