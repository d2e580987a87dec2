from __future__ import annotations

import math

import pytest

from djsandbox_ray.analysis.verdicts.second_look import carried_by, flips
from djsandbox_ray.analysis.verdicts.verdicts import Verdict
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import FlipRow, PoolKind, RankingRow


def verdict(effect, word):
    return Verdict("a/low", effect, effect - 1, effect + 1, 0.01, 0.01, word)


@pytest.mark.parametrize("word", ["better", "worse"])
def test_a_metric_carries_a_verdict_that_falls_without_it(word):
    whole, same, gone = verdict(3.0, word), verdict(2.0, word), verdict(0.5, "undecided")
    assert carried_by(whole, {"x": same, "y": same}) is None
    assert carried_by(whole, {"x": same, "y": gone}) == "y"
    assert carried_by(whole, {}) is None


def test_of_several_the_one_that_changes_the_effect_most():
    whole = verdict(3.0, "better")
    less = {"x": verdict(2.5, "undecided"), "y": verdict(4.0, "undecided")}
    assert carried_by(whole, less) == "y"
    assert carried_by(whole, {**less, "z": verdict(-0.5, "worse")}) == "z"
    assert carried_by(whole, {"z": verdict(-9.0, "worse"), "n": None}) == "n"


def test_nothing_carries_what_is_undecided():
    assert carried_by(verdict(1.0, "undecided"), {"x": verdict(9.0, "better")}) is None


def row(rank, pool, change, word, kind=PoolKind.BUCKET):
    nan = math.nan
    return RankingRow(
        rank, pool, kind, None, None, change, nan, nan, nan, nan, nan, word, seeds=3, failed=0
    )


FIRST = [
    row(2, "b/low", 0.1, "undecided"),
    row(1, "a/low", 0.5, "better"),
    row(3, "c/low", 0.0, "undecided"),
    row(4, "self_test/x", -0.1, "worse", PoolKind.SELF_TEST),
    row(5, "d/low", -0.5, "worse"),
]


def test_flips_are_of_pools_decided_in_either_study():
    second = [
        row(1, "b/low", 0.4, "better"),
        row(2, "a/low", 0.45, "better"),
        row(3, "d/low", -0.1, "undecided"),
        row(4, "c/low", 0.01, "undecided"),
        row(5, "self_test/x", 0.1, "undecided", PoolKind.SELF_TEST),
    ]
    found = flips(FIRST, second)
    assert found == [
        FlipRow("a/low", 0.5, "better", 0.45, "better"),
        FlipRow("b/low", 0.1, "undecided", 0.4, "better"),
        FlipRow("d/low", -0.5, "worse", -0.1, "undecided"),
    ]
    assert [r.flips for r in found] == [False, True, True]


def test_pools_that_were_undecided_may_be_missing():
    second = [row(1, "a/low", 0.45, "better"), row(2, "d/low", -0.1, "worse")]
    assert [r.pool for r in flips(FIRST, second)] == ["a/low", "d/low"]
    with pytest.raises(BadInput, match="lacks the pool 'd/low', which the first decided"):
        flips(FIRST, second[:1])
    with pytest.raises(BadInput, match="has the pool 'z/low', which the first has not"):
        flips(FIRST, [*second, row(3, "z/low", 0.0, "undecided")])
