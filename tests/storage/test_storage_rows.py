"""Records as CSV and back, for every kind of row that a run writes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from factories import confirmation_row, ranking_row

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import (
    ConfirmationRow,
    DiversityRow,
    FlipRow,
    InteractionRow,
    MetricRow,
    RankingRow,
    RepetitionRow,
    ScalingRow,
    SurrogateRow,
)
from djsandbox_ray.storage.rows import columns_of, from_csv, to_csv

NAN = math.nan
ODD = 'a "quoted", name/low'
ROWS = {
    RankingRow: [
        ranking_row(ODD, 1 / 3, metrics={"recall": 0.1, "top 1": 1e-9}, carried_by="line\nbreak"),
        ranking_row("self_test/x", expected="worse", metrics={"recall": NAN}),
        ranking_row("b/high", NAN, "stopped", low=-math.inf, stopped_at=250, metrics={}),
    ],
    ConfirmationRow: [confirmation_row(ODD, 1 / 3), confirmation_row("b/low", NAN, "failed")],
    MetricRow: [MetricRow(ODD, 0.5, 0.01, 0.03, NAN, sees=False, scored=True)],
    FlipRow: [FlipRow(ODD, 0.2, "better", NAN, "failed")],
    InteractionRow: [
        InteractionRow("interaction", "a & b", 2, 1 / 3, -math.inf, 1.0, "helps", 1, 2)
    ],
    SurrogateRow: [
        SurrogateRow("a&b", 0.1, 0.0, 0.2, 0.15, held_out=True),
        SurrogateRow("a&c", 0.1, 0.0, 0.2),
    ],
    RepetitionRow: [RepetitionRow("repeat", 4, 400, 100, 0.1, NAN, NAN, 1)],
    ScalingRow: [ScalingRow("a/high", "tiny", 100, 1.5e10, 0.25, 0.2, 0.3, 3)],
    DiversityRow: [DiversityRow("a/high", "distinct_2", 0.5, 0.4, 0.6, NAN)],
}
NUMBERS = {
    RankingRow: "rank",
    ConfirmationRow: "seeds",
    MetricRow: "seen",
    FlipRow: "change",
    InteractionRow: "effect",
    SurrogateRow: "held_out",
    RepetitionRow: "factor",
    ScalingRow: "budget",
    DiversityRow: "value",
}
KINDS = pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)


@KINDS
def test_rows_come_back_as_they_were(kind):
    text = to_csv(kind, ROWS[kind])
    assert text.splitlines()[0].split(",")[: len(columns_of(kind))] == columns_of(kind)
    back = from_csv(kind, text)
    assert [repr(row) for row in back] == [repr(row) for row in ROWS[kind]]
    assert to_csv(kind, back) == text
    assert from_csv(kind, to_csv(kind, [])) == []


@KINDS
@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "{header},recall\n"])
def test_other_columns_are_named_beside_those_needed(kind, text):
    header = to_csv(kind, []).strip()
    with pytest.raises(BadInput, match=f"not a ranking.*needed.*{columns_of(kind)[-1]}"):
        from_csv(kind, text.format(header=header), "ranking")


@KINDS
def test_a_bad_cell_is_named_by_line_and_column(kind):
    column, (row, *_) = NUMBERS[kind], ROWS[kind]
    text = to_csv(kind, [replace(row, **{column: "half"})])
    with pytest.raises(BadInput, match=rf"ranking, line \d, column '{column}'"):
        from_csv(kind, text, "ranking")
    with pytest.raises(BadInput, match=r"line \d: 1 cells"):
        from_csv(kind, f"{to_csv(kind, [])}short\n")


def test_a_bad_number_per_name_is_named_by_its_column():
    text = to_csv(RankingRow, [ranking_row(metrics={"m": "high"})])
    with pytest.raises(BadInput, match="line 2, column 'metric:m'"):
        from_csv(RankingRow, text)
