from __future__ import annotations

import math
from dataclasses import replace

from djsandbox_ray.records import InteractionRow, SurrogateRow
from djsandbox_ray.reporting.blocks import Picture, ReportTable
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.together import (
    COMBINATIONS,
    beyond,
    clusters_section,
    combinations_chapter,
    combinations_section,
    interactions_notes,
    interactions_section,
    surrogate_notes,
    surrogate_section,
)

ROWS = [
    InteractionRow("main", "a", 1, 0.09, 0.05, 0.13, "helps", 4, 4),
    InteractionRow("interaction", "a & b", 2, 0.02, -0.02, 0.06, "undecided", 2, 2),
    InteractionRow("interaction", "a & c", 2, -0.08, -0.12, -0.04, "hurts", 2, 2),
    InteractionRow("interaction", "b & c", 2, 0.06, 0.02, 0.1, "helps", 2, 2),
    InteractionRow("shapley", "a", 1, 0.05, -math.inf, math.inf, "undecided", 4, 4),
]
ALL = InteractionRow("interaction", "a & b & c", 3, -0.3, -0.35, -0.25, "less", 1, 1)
PREDICTED = [
    SurrogateRow("a&b&c", 0.1, 0.05, 0.15, 0.12, held_out=True),
    SurrogateRow("a&b&d", 0.1, 0.05, 0.15, 0.2, held_out=True),
    SurrogateRow("a&c&d", 0.1, 0.05, 0.15),
]


def test_effects_with_their_intervals():
    table = interactions_section(ROWS, Unit.PERCENT)
    assert table.header == ["quantity", "pools", "effect %", "interval", "verdict"]
    assert table.rows[0] == ["main", "a", "+9.00", "+5.00 .. +13.00", "helps"]
    assert table.rows[-1] == ["shapley", "a", "+5.00", "-", "undecided"]
    assert interactions_section(ROWS, Unit.SD).rows[0][2] == "+0.09"


def test_the_strongest_interaction_in_words():
    assert interactions_notes(ROWS, Unit.PERCENT) == [
        "The strongest interaction of two pools: a & c hurt each other. Together they do 8.00 % "
        "less than their effects apart add up to, averaged over the other pool being in or not "
        "(-8.00 % [-12.00 .. -4.00]).",
        "Further interactions of two pools beyond noise: b & c +6.00 % [+2.00 .. +10.00].",
    ]
    assert (
        "b & c help each other. Together they do 6.00 % more"
        in (interactions_notes([ROWS[3]], Unit.PERCENT)[0])
    )


def test_no_interaction_beyond_noise_in_words():
    assert interactions_notes(ROWS[:2], Unit.SD) == [
        "No interaction of two pools is beyond noise. The one that was tested is undecided; the "
        "largest, a & b: +0.02 sd [-0.02 .. +0.06]."
    ]
    assert "All 2 are undecided" in interactions_notes([ROWS[1], ROWS[1]], Unit.SD)[0]
    assert interactions_notes(ROWS[:1], Unit.SD) == []


def test_three_pools_neither_help_nor_hurt_each_other():
    # a, b and c do 10 % each, 40 % in pairs and 60 % together: they help each other, and their
    # interaction of three is 60 - 3 x 40 + 3 x 10 = -30 %.
    pairs, more = interactions_notes([*ROWS[:2], ALL], Unit.PERCENT)
    assert pairs.startswith("No interaction of two pools is beyond noise.")
    assert more == (
        "Together, a & b & c: -30.00 % [-35.00 .. -25.00] beyond what their single and pairwise "
        "effects add up to."
    )
    assert (
        "The strongest interaction of two pools: a & c"
        in (interactions_notes([*ROWS, ALL], Unit.PERCENT)[0])
    )
    assert interactions_notes([replace(ALL, verdict="undecided")], Unit.PERCENT) == [
        "No interaction of three or more pools is beyond noise."
    ]


def test_what_an_interaction_is_averaged_over_is_said():
    pair = ROWS[2]
    assert beyond(replace(pair, contexts=1, all_contexts=1)) == "beyond what they give apart"
    assert beyond(pair).endswith(", averaged over the other pool being in or not")
    assert beyond(replace(pair, contexts=4, all_contexts=4)).endswith("other pools being in or not")
    assert beyond(replace(pair, contexts=1, all_contexts=4)).endswith(
        ", over 1 of the 4 ways in which the other pools can be in or not"
    )
    assert "the effects of fewer of them add up to" in beyond(replace(ALL, order=4))


def test_predicted_beside_measured():
    table = surrogate_section(PREDICTED, Unit.PERCENT)
    assert table.rows == [
        ["a&b&c", "+10.00", "+5.00 .. +15.00", "+12.00", "as predicted"],
        ["a&b&d", "+10.00", "+5.00 .. +15.00", "+20.00", "not as predicted"],
        ["a&c&d", "+10.00", "+5.00 .. +15.00", "-", "not trained"],
    ]
    assert len(table.header) == len(table.rows[0])
    assert surrogate_notes(PREDICTED) == [
        "Main and pairwise effects foresee 1 of 2 held-out combinations of three and more pools.",
        "Not as predicted: a&b&d.",
    ]
    assert len(surrogate_notes(PREDICTED[:1])) == 1
    assert surrogate_notes(PREDICTED[2:]) == []


FOUND_TOGETHER = [
    InteractionRow("main", "a/high", 1, 0.09, 0.05, 0.13, "helps", 2, 2),
    InteractionRow("interaction", "a/high & b/low", 2, -0.08, -0.12, -0.04, "hurts", 1, 1),
]
FORESEEN = [SurrogateRow("a&b&c", 0.1, 0.05, 0.15, 0.12, held_out=True)]


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
    chapter = combinations_chapter(rows[1:3], FOUND_TOGETHER, FORESEEN, ["one fell out"], Unit.SD)
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
    assert chapter.blocks[1].data.startswith(b"\x89PNG")


def test_what_there_is_none_of_is_left_out(rows):
    only = combinations_chapter([], FOUND_TOGETHER, [], [], Unit.PERCENT)
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
