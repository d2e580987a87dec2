from __future__ import annotations

from djsandbox_ray.reporting.method import (
    confirmation_notes,
    confirmation_section,
    flips_notes,
    flips_section,
)
from djsandbox_ray.reporting.ranking import Unit


def test_confirmed_effects_beside_the_first(confirmed):
    table = confirmation_section(confirmed, Unit.PERCENT)
    assert table.header == ["pool", "first %", "shrunken %", "confirmed %", "verdict"]
    assert table.rows == [
        ["similarity/high", "+20.00 [14.00, 26.00]", "+15.00", "+12.00 [5.00, 19.00]", "better"],
        ["text_len/middle", "+10.00 [4.00, 16.00]", "+7.00", "-10.00 [-17.00, -3.00]", "worse"],
        ["text_len/high", "+10.00 [4.00, 16.00]", "+7.00", "-", "failed"],
    ]
    assert confirmation_section(confirmed, Unit.SD).rows[0][1] == "+0.20 [0.14, 0.26]"
    assert confirmation_notes(confirmed) == [
        "Confirmed: 1 of 3 pools that were called better are better again.",
        "Contradicted, worse in the second study: text_len/middle.",
    ]
    assert len(confirmation_notes(confirmed[:1])) == 1
    assert confirmation_notes([]) == []


def test_flips_come_first(flips):
    table = flips_section(flips, Unit.PERCENT)
    assert table.rows == [
        ["text_len/low", "-15.00", "worse", "-2.00", "undecided", "flips"],
        ["similarity/high", "+20.00", "better", "+18.00", "better", ""],
    ]
    assert len(table.header) == len(table.rows[0])
    assert flips_notes(flips) == [
        "1 of 2 decided verdicts flip at the second learning rate: "
        "text_len/low (worse, then undecided)."
    ]
    assert flips_notes(flips[:1]) == [
        "All 1 decided verdicts are the same at the second learning rate."
    ]
    assert flips_notes([]) == []
