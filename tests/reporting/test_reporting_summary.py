from __future__ import annotations

import math

from factories import confirmation_row, pool, ranking_row

from djsandbox_ray.records import PoolKind
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.summary import summary_line

BOUNDS = {"low": (3.0, 20.0), "middle": (20.0, 31.0), "high": (31.0, 90.0)}
POOLS = {
    f"text_len/{bucket}": pool(f"text_len/{bucket}", low=low, high=high)
    for bucket, (low, high) in BOUNDS.items()
} | {"a/high": pool("a/high")}
BEST = ranking_row("text_len/low", 0.2, "better", rank=1, low=0.1, high=0.3)
OTHER = ranking_row("a/high", 0.01, "undecided", rank=2, low=-0.1, high=0.12)


def line(*rows: object, confirmed: object = (), unit: Unit = Unit.PERCENT) -> str:
    return summary_line("demo", rows, confirmed, POOLS, unit)  # type: ignore[arg-type]


def test_what_is_confirmed_is_said_with_the_values_to_keep() -> None:
    again = confirmation_row("text_len/low", verdict="better", confirmed=0.15, low=0.05, high=0.25)
    assert line(OTHER, BEST, confirmed=[again]) == (
        "demo: keep text_len/low (text_len of 20 or less): +15.00 % [+5.00, +25.00], confirmed "
        "with fresh seeds. Of 2 pools: 1 better, 0 worse, 1 undecided."
    )


def test_what_was_seen_once_is_no_promise() -> None:
    assert line(BEST, OTHER).startswith(
        "demo: perhaps keep text_len/low (text_len of 20 or less): +20.00 % [+10.00, +30.00], seen "
        "once. Of 2 pools"
    )
    again = confirmation_row("text_len/low", verdict="undecided")
    assert "not confirmed by the second look. Of" in line(BEST, confirmed=[again])


def test_nothing_may_be_better() -> None:
    assert line(OTHER) == (
        "demo: no pool is better than random data of the same size. Of 1 pools: 0 better, 0 worse, "
        "1 undecided."
    )


def test_a_failed_self_test_promises_nothing() -> None:
    failed = ranking_row(
        "self_test/shuffled_statistic",
        0.3,
        "better",
        rank=3,
        kind=PoolKind.SELF_TEST,
        expected="undecided",
    )
    said = line(BEST, failed)
    assert said.startswith("demo: SELF-TEST FAILED: self_test/shuffled_statistic is better but")
    assert "keep" not in said


def test_effects_without_an_interval_and_in_other_units() -> None:
    bare = ranking_row("a/high", 1.5, "better", rank=1, low=math.nan, high=math.nan)
    assert line(bare, unit=Unit.SD).startswith(
        "demo: perhaps keep a/high (any a): +1.50 sd, seen once"
    )
