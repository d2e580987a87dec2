from __future__ import annotations

import math
from dataclasses import replace

from djsandbox_ray.analysis.verdicts.second_look import candidates
from djsandbox_ray.records import ConfirmationRow, PoolKind, RankingRow


def ranked(pool: str, change: float, verdict: str, shrunken: float = math.nan) -> RankingRow:
    statistic, bucket = pool.split("/")
    return RankingRow(
        rank=1,
        pool=pool,
        kind=PoolKind.BUCKET,
        statistic=statistic,
        bucket=bucket,
        change=change,
        std=0.01,
        low=change - 0.1,
        high=change + 0.1,
        p=0.01,
        q=0.02,
        verdict=verdict,
        seeds=3,
        failed=0,
        shrunken=shrunken,
    )


def again(pool: str, confirmed: float, verdict: str) -> ConfirmationRow:
    return ConfirmationRow(pool, 0.2, 0.1, 0.3, 0.15, confirmed, 0.0, 0.2, verdict, 3)


def test_the_second_study_has_the_last_word() -> None:
    test = replace(ranked("a/low", 1.0, "better"), kind=PoolKind.SELF_TEST)
    rows = [
        ranked("a/high", 0.3, "better", 0.2),
        ranked("b/low", 0.25, "better", 0.2),
        ranked("c/low", 0.5, "better", 0.4),
        ranked("d/low", 0.1, "undecided"),
        ranked("e/low", 0.1, "better"),
        test,
    ]
    seconds = [
        again("a/high", 0.1, "better"),
        again("b/low", 0.01, "undecided"),
        again("e/low", -0.3, "worse"),
    ]
    found = candidates(rows, seconds, only_confirmed=True)
    assert [(item.pool, item.effect, item.confirmed, item.unfit) for item in found] == [
        ("a/high", 0.1, True, ""),
        ("c/low", 0.4, False, "has had no second look"),
        ("b/low", 0.2, False, "is undecided in the second look"),
        ("d/low", 0.1, False, "was not called better, but undecided"),
        ("e/low", 0.1, False, "is worse in the second look"),
    ], "the best first; self-tests are none"
    lenient = candidates(rows, seconds, only_confirmed=False)
    assert [item.pool for item in lenient if not item.unfit] == ["a/high", "c/low", "b/low"]
    assert {item.unfit for item in candidates(rows, [], only_confirmed=True)} == {
        "has had no second look",
        "was not called better, but undecided",
    }


def test_a_pool_without_a_result_is_the_last_and_one_of_no_statistic_is_not_combined() -> None:
    rows = [
        replace(ranked("a/low", 0.3, "failed"), change=math.nan),
        ranked("b/low", -0.3, "worse", -0.2),
        replace(ranked("short/inside", 0.9, "better", 0.8), statistic=None),
    ]
    found = candidates(rows, [], only_confirmed=False)
    assert [item.pool for item in found] == ["short/inside", "b/low", "a/low"]
    assert found[0].unfit == "is no part of a statistic, so that it cannot be combined"
    assert found[2].unfit == "was not called better, but failed"
