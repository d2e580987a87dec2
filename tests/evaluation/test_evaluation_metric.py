"""Which way metrics count, and which of them make a score."""

from __future__ import annotations

import pytest

from djsandbox_ray.evaluation.metric import Metric, ScoreMetrics

LOSS = Metric("loss", "less")
KNOWN = ScoreMetrics(None, (Metric("right"), LOSS, Metric("cut", "less", scored=False)))


def test_the_score_is_made_of_what_was_asked_for_or_of_all_that_count() -> None:
    available = ("right", "loss", "cut", "unforeseen")
    assert KNOWN.chosen(available) == ("right", "loss", "unforeseen")
    assert ScoreMetrics(("cut",), KNOWN.known).chosen(available) == ("cut",)
    assert ScoreMetrics.of(None).chosen(available) == available
    assert ScoreMetrics.of(["loss"]).chosen(available) == ("loss",)
    assert ScoreMetrics.of(KNOWN) is KNOWN
    assert [KNOWN.sign(name) for name in available] == [1, -1, -1, 1]


@pytest.mark.parametrize(
    ("metric", "value", "error"),
    [
        (Metric("a"), 0.25, 0.75),
        (Metric("a", "less"), 0.25, 0.25),
        (Metric("a", low=0, high=2000), 1500, 0.25),
        (Metric("a", "less", low=-1, high=1), 0.0, 0.5),
        (Metric("a"), 1.5, None),
        (Metric("a", low=0), 0.5, 0.5),
    ],
)
def test_an_error_is_the_distance_from_the_best_as_a_share_of_the_range(
    metric: Metric, value: float, error: float | None
) -> None:
    assert metric.error(value) == error


def test_tables_show_the_direction() -> None:
    assert (LOSS.shown, Metric("right").shown) == ("loss ↓", "right")
