from __future__ import annotations

import math

from djsandbox_ray.records import DiversityRow, RepetitionRow, ScalingRow
from djsandbox_ray.reporting.blocks import Picture, ReportTable, Sentences
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.scale import diversity_chapter, repetition_chapter, scaling_chapter

PNG = b"\x89PNG"
NAN = math.nan


def table_of(chapter):
    (table,) = [block for block in chapter.blocks if isinstance(block, ReportTable)]
    assert all(len(row) == len(table.header) for row in table.rows)
    return table


def test_strategies_stand_side_by_side_factor_by_factor():
    rows = [
        RepetitionRow("repeat", 2, 2000, 1000, 0.1, 0.05, 0.15, 3),
        RepetitionRow("repeat", 1, 1000, 1000, 0.02, -0.01, 0.05, 3),
        RepetitionRow("random", 1, 1000, 1000, NAN, NAN, NAN, 0),
    ]
    chapter = repetition_chapter(rows, ["repetition pays"], PNG, Unit.PERCENT)
    assert "against random rows %" in table_of(chapter).header
    assert table_of(chapter).rows == [
        ["repeat", "x1", "1,000", "1,000", "+2.00", "-1.00 .. +5.00", "3"],
        ["random", "x1", "1,000", "1,000", "-", "-", "0"],
        ["repeat", "x2", "2,000", "1,000", "+10.00", "+5.00 .. +15.00", "3"],
    ]
    assert [type(block) for block in chapter.blocks] == [Sentences, Picture, ReportTable]
    silent = repetition_chapter(rows, [], PNG, Unit.PERCENT)
    assert [type(block) for block in silent.blocks] == [Picture, ReportTable]


def test_errors_of_every_budget_with_and_without_a_count_of_operations():
    rows = [
        ScalingRow("a/high", "tiny", 4000, 2.5e10, 0.25, 0.2, 0.3, 3),
        ScalingRow("controls", "own", 4000, NAN, 0.5, NAN, NAN, 1),
    ]
    assert table_of(scaling_chapter(rows, [], PNG)).rows == [
        ["a/high", "tiny", "4,000", "25 GFLOP", "0.25", "0.2 .. 0.3", "3"],
        ["controls", "own", "4,000", "not counted", "0.5", "-", "1"],
    ]


def test_pools_by_effect_with_every_measure_beside_it():
    rows = [
        DiversityRow("control/0", "word_entropy", 7.5, 7.25, 7.75, NAN),
        DiversityRow("a/low", "word_entropy", 7.0, NAN, NAN, -0.1),
        DiversityRow("a/high", "word_entropy", 8.0, 7.5, 8.5, 0.2),
        DiversityRow("a/high", "embedding", NAN, NAN, NAN, 0.2),
    ]
    table = table_of(diversity_chapter(rows, Unit.PERCENT))
    assert table.header == ["pool", "effect %", "word_entropy", "embedding"]
    assert table.rows == [
        ["a/high", "+20.00", "8 [7.5, 8.5]", "-"],
        ["a/low", "-10.00", "7", "-"],
        ["control/0", "-", "7.5 [7.25, 7.75]", "-"],
    ]
