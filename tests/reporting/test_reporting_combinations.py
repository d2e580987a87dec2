from __future__ import annotations

from dataclasses import replace

from djsandbox_ray.records import InteractionRow, SurrogateRow
from djsandbox_ray.reporting.blocks import Picture, ReportTable
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.together import (
    COMBINATIONS,
    clusters_section,
    combinations_chapter,
    combinations_section,
)

INTERACTIONS = [
    InteractionRow("main", "a/high", 1, 0.09, 0.05, 0.13, "helps", 2, 2),
    InteractionRow("interaction", "a/high & b/low", 2, -0.08, -0.12, -0.04, "hurts", 1, 1),
]
PREDICTED = [SurrogateRow("a&b&c", 0.1, 0.05, 0.15, 0.12, held_out=True)]


def test_combinations_stand_in_the_order_of_rank_with_their_intervals(rows):
    joined = replace(rows[1], rank=9, pool="a/high&b/low", statistic=None, bucket=None)
    table = combinations_section([joined, rows[2]], Unit.PERCENT)
    assert [row[1] for row in table.rows] == ["text_len/low", "a/high&b/low"]
    found = dict(zip(table.header, table.rows[1], strict=True))
    assert found["interval"] == "+14.00 .. +26.00"
    assert found["change %"] == "+20.00"
    assert found["verdict"] == "better"
    # A trial that failed is said, as in the first ranking.
    assert table.rows[0][-1] == "2/3 (1 failed)"


def test_the_chapter_says_the_strongest_interaction_first(rows):
    chapter = combinations_chapter(rows[1:3], INTERACTIONS, PREDICTED, ["one fell out"], Unit.SD)
    assert "a/high & b/low hurt each other" in chapter.headline
    assert chapter.lines == [
        chapter.headline,
        "Main and pairwise effects foresee 1 of 1 held-out combinations of three and more pools.",
        "one fell out",
    ]
    titles = [block.title for block in chapter.blocks]
    assert titles[0] == COMBINATIONS
    assert [type(block) for block in chapter.blocks] == [
        ReportTable,
        Picture,
        ReportTable,
        ReportTable,
    ]
    assert isinstance(chapter.blocks[1], Picture)
    assert chapter.blocks[1].png.startswith(b"\x89PNG")


def test_what_there_is_none_of_is_left_out(rows):
    only = combinations_chapter([], INTERACTIONS, [], [], Unit.PERCENT)
    assert [block.title for block in only.blocks] == ["What combined pools do together and apart"]
    bare = combinations_chapter(rows[1:2], [], [], [], Unit.PERCENT)
    assert (bare.headline, bare.lines, len(bare.blocks)) == ("", [], 2)


def test_clusters_with_and_without_a_pool():
    found = {
        "clusters": [
            {"members": ["a", "b"], "pool": "a/high", "effect": 0.0, "why": "the best"},
            {"members": ["c"], "pool": None, "effect": None, "why": "skipped"},
        ]
    }
    table = clusters_section("Alike", found, Unit.PERCENT)
    assert table.rows == [["a/high", "+0.00", "a, b", "the best"], ["-", "-", "c", "skipped"]]
    assert clusters_section("Alike", {"clusters": []}, Unit.SD).rows == []
