"""A ranking with everything in it: pools, self-tests, failures, and no numbers at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from djsandbox_ray.records import PoolKind, RankingRow

NAN = math.nan


def pool(rank: int, name: str, change: float, verdict: str, **more) -> RankingRow:
    statistic, _, bucket = name.partition("/")
    row = RankingRow(
        rank=rank,
        pool=name,
        kind=PoolKind.BUCKET,
        statistic=statistic,
        bucket=bucket,
        change=change,
        std=0.01,
        low=change - 0.06,
        high=change + 0.06,
        p=0.01,
        q=0.02,
        verdict=verdict,
        seeds=3,
        failed=0,
        metrics={"zero_shot/top1": 0.5 + change},
    )
    return replace(row, **more)


def self_test(rank: int, name: str, change: float, verdict: str, expected: str) -> RankingRow:
    test = {"kind": PoolKind.SELF_TEST, "statistic": None, "bucket": None, "expected": expected}
    return pool(rank, f"self_test/{name}", change, verdict, **test)


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
def many() -> Callable[[int], list[RankingRow]]:
    return lambda count: [
        pool(n + 1, f"statistic_{n}/middle", 0.02 * (count / 2 - n), "undecided")
        for n in range(count)
    ]
