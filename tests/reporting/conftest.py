"""A ranking with everything in it: pools, self-tests, failures, and no numbers at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from factories import ranking_row

from djsandbox_ray.records import ConfirmationRow, FlipRow, RankingRow

NAN = math.nan


def pool(rank: int, name: str, change: float, verdict: str, **more) -> RankingRow:
    wide = {
        "low": change - 0.06,
        "high": change + 0.06,
        "metrics": {"zero_shot/top1": 0.5 + change},
    }
    return ranking_row(name, change, verdict, rank=rank, **(wide | more))


def self_test(rank: int, name: str, change: float, verdict: str, expected: str) -> RankingRow:
    own = {"expected": expected, "shrunken": NAN}
    return pool(rank, f"self_test/{name}", change, verdict, **own)


@pytest.fixture
def rows() -> list[RankingRow]:
    lost = {"low": NAN, "high": NAN, "p": NAN, "q": NAN, "std": NAN, "seeds": 0, "failed": 3}
    return [
        self_test(4, "shuffled_captions", -0.3, "worse", "worse"),
        pool(1, "similarity/high", 0.2, "better", q=0.0002),
        pool(3, "text_len/low", -0.15, "worse", seeds=2, failed=1),
        self_test(2, "shuffled_statistic", 0.01, "undecided", "undecided"),
        pool(5, "text_len/high", NAN, "failed", metrics={}, **lost),
    ]


@pytest.fixture
def broken(rows: list[RankingRow]) -> list[RankingRow]:
    """The same ranking with a self-test that failed."""
    return [replace(row, verdict="better") if row.rank == 4 else row for row in rows]


@pytest.fixture
def raced(rows: list[RankingRow]) -> list[RankingRow]:
    """The same ranking with two pools more, which were given up early, and a carried verdict."""
    rows = [replace(r, carried_by="zero_shot/top1") if r.rank == 1 else r for r in rows]
    none = dict.fromkeys(("low", "high", "p", "q", "std"), NAN)
    stopped = {"metrics": {}, "seeds": 0, **none}
    return [
        *rows,
        pool(7, "sharpness/low", NAN, "stopped", stopped_at=2_500, failed=1, **stopped),
        pool(6, "sharpness/high", NAN, "stopped", stopped_at=15_000, **stopped),
    ]


@pytest.fixture
def confirmed() -> list[ConfirmationRow]:
    """One pool that is better again, one that is not, one that failed."""
    return [
        ConfirmationRow("similarity/high", 0.2, 0.14, 0.26, 0.15, 0.12, 0.05, 0.19, "better", 3),
        ConfirmationRow("text_len/middle", 0.1, 0.04, 0.16, 0.07, -0.1, -0.17, -0.03, "worse", 3),
        ConfirmationRow("text_len/high", 0.1, 0.04, 0.16, 0.07, NAN, NAN, NAN, "failed", 0),
    ]


@pytest.fixture
def flips() -> list[FlipRow]:
    return [
        FlipRow("similarity/high", 0.2, "better", 0.18, "better"),
        FlipRow("text_len/low", -0.15, "worse", -0.02, "undecided"),
    ]


@pytest.fixture
def many() -> Callable[[int], list[RankingRow]]:
    return lambda count: [
        pool(n + 1, f"statistic_{n}/middle", 0.02 * (count / 2 - n), "undecided")
        for n in range(count)
    ]
