from __future__ import annotations

import math

from djsandbox_ray.records import InteractionRow, SurrogateRow
from djsandbox_ray.reporting.interactions import (
    interactions_notes,
    interactions_section,
    surrogate_notes,
    surrogate_section,
)
from djsandbox_ray.reporting.ranking import Unit

ROWS = [
    InteractionRow("main", "a", 0.09, 0.05, 0.13, "helps"),
    InteractionRow("interaction", "a & b", 0.02, -0.02, 0.06, "undecided"),
    InteractionRow("interaction", "a & c", -0.08, -0.12, -0.04, "hurts"),
    InteractionRow("interaction", "b & c", 0.06, 0.02, 0.1, "helps"),
    InteractionRow("shapley", "a", 0.05, -math.inf, math.inf, "undecided"),
]
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
        "The strongest interaction: a & c hurt each other. Together they do 8.00 % less than their "
        "effects apart add up to (-8.00 % [-12.00 .. -4.00]).",
        "Further interactions beyond noise: b & c +6.00 % [+2.00 .. +10.00].",
    ]
    assert (
        "b & c help each other. Together they do 6.00 % more"
        in (interactions_notes([ROWS[3]], Unit.PERCENT)[0])
    )


def test_no_interaction_beyond_noise_in_words():
    assert interactions_notes(ROWS[:2], Unit.SD) == [
        "No interaction is beyond noise. The one interaction is undecided; the largest, a & b: "
        "+0.02 sd [-0.02 .. +0.06]."
    ]
    assert "All 2 are undecided" in interactions_notes([ROWS[1], ROWS[1]], Unit.SD)[0]
    assert interactions_notes(ROWS[:1], Unit.SD) == []


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
