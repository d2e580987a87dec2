from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from factories import confirmation_row, pool, ranking_row, trial_record

from djsandbox_ray.analysis.verdicts.ranking import rank
from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.analysis.verdicts.second_look import candidates, confirm, flips, selected
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import ConfirmationRow, FlipRow, PoolKind

DRAW_SHARE, BUCKETS, SEEDS, CONTROLS = 0.5, 3, 3, 8


FIRST = [
    ranking_row("c/low", 0.2, "better", rank=3),
    ranking_row("a/low", 0.5, "better", rank=1),
    ranking_row("self_test/x", 0.3, "better", rank=2, expected="undecided"),
    ranking_row("b/low", 0.1, "undecided", rank=4),
    ranking_row("d/low", math.nan, "stopped", rank=5, stopped_at=100),
]


def test_the_best_pools_that_are_better_are_selected():
    assert selected(FIRST, 3) == ["a/low", "c/low"]
    assert selected(FIRST, 1) == ["a/low"]
    assert selected(FIRST, 0) == []
    assert selected([], 3) == []
    with pytest.raises(BadInput, match="top is -1"):
        selected(FIRST, -1)


def test_both_effects_stand_side_by_side():
    second = [
        ranking_row("c/low", 0.15, "undecided", rank=1),
        ranking_row("a/low", math.nan, "failed", rank=2),
    ]
    best, other = confirm(FIRST, second)
    assert (best.pool, best.first, best.verdict) == ("a/low", 0.5, "failed")
    assert math.isnan(best.confirmed)
    assert other == ConfirmationRow(
        pool="c/low",
        first=0.2,
        first_low=0.2 - 0.05,
        first_high=0.2 + 0.05,
        shrunken=0.75 * 0.2,
        confirmed=0.15,
        low=0.15 - 0.05,
        high=0.15 + 0.05,
        verdict="undecided",
        seeds=3,
    )
    tests = [ranking_row("self_test/x", 0.0, "undecided", rank=3, expected="undecided")]
    assert len(confirm(FIRST, second + tests)) == 2
    assert confirm(FIRST, []) == []


def test_what_was_not_chosen_cannot_be_confirmed():
    with pytest.raises(BadInput, match="did not call the pool 'b/low' better"):
        confirm(FIRST, [ranking_row("b/low", 0.1, "better", rank=1)])
    with pytest.raises(BadInput, match="'a/low' was given up early"):
        confirm(FIRST, [ranking_row("a/low", math.nan, "stopped", rank=1, stopped_at=5)])


def study(arms, scores, metric="score"):
    """Pools and completed trials from scores of shape (arms, seeds)."""
    trials = []
    for arm, row_ in zip(arms, scores, strict=True):
        for seed, value in enumerate(row_):
            trials.append(trial_record(arm.id, seed, {metric: float(value)}))
    return {"pools": arms, "trials": trials, "seeds": range(scores.shape[1])}


def simulate(rng, pools, studies, spread, data=0.5):
    """Two studies after one another; return the chosen pools' truths and their three estimates.

    A pool's truth is the effect of its own bucket: of its operator, and of which samples are in
    the bucket, as both studies draw from that one bucket.
    """
    make_up = math.sqrt(data * DRAW_SHARE * (1 - 1 / BUCKETS))
    trial = math.sqrt(data * (1 - DRAW_SHARE) + 1 - data)

    def look(names, truths):
        arms = [
            *map(pool, names),
            *(pool(f"control/{i}") for i in range(CONTROLS)),
        ]
        bases = np.append(truths, rng.normal(0, make_up, CONTROLS))
        scores = bases[:, None] + rng.normal(0, trial, (len(arms), SEEDS))
        # Judged as if nothing were known of the draws: that is quick, and valid for all.
        return rank(**study(arms, 100 + scores), aggregate="pooled")

    chosen = []
    for number in range(studies):
        names = [f"p{i}/low" for i in range(pools)]
        truths = rng.normal(0, spread, pools) + rng.normal(0, make_up, pools)
        first = look(names, truths)
        if best := selected(first, 3):
            own = dict(zip(names, truths, strict=True))
            for r in confirm(first, look(best, [own[name] for name in best])):
                estimates = (own[r.pool], 100 * r.first, 100 * r.shrunken, 100 * r.confirmed)
                chosen.append((number, *estimates))
    return np.array(chosen)


def test_the_confirmed_effect_of_the_chosen_is_unbiased_where_the_first_is_not():
    study_, truth, *estimates = simulate(np.random.default_rng(0), 30, 350, spread=1.0).T
    errors = np.array(estimates) - truth
    first, shrunken, confirmed = errors.mean(axis=1)
    # Pools of one study share controls: the standard error is that of the studies' sums.
    sums = np.array([errors[:, study_ == number].sum(axis=1) for number in np.unique(study_)])
    first_se, _, confirmed_se = np.sqrt((sums**2).sum(axis=0)) / len(truth)
    assert len(sums) > 30
    assert abs(confirmed) < 2.5 * confirmed_se
    assert first > 4 * first_se
    assert confirmed - 2.5 * confirmed_se < shrunken < first / 2
    squares = (errors**2).mean(axis=1)
    assert squares[1] < squares[0] / 1.5


def test_two_studies_can_be_measured_in_one_unit():
    rng = np.random.default_rng(3)
    arms = [pool("p/low"), *(pool(f"control/{i}") for i in range(5))]
    first = study(arms, 10 + rng.normal(0, 0.5, (6, 3)))
    noisy = study(arms, 10 + rng.normal(0, 2.0, (6, 3)) + 4 * (np.arange(6) == 0)[:, None])
    controls = [t for t in first["trials"] if t.spec.pool != "p/low"]
    (own,) = rank(**noisy, aggregate="standardized")
    measured = {(t.spec.pool, t.spec.seed): t.final.metrics for t in controls}
    unit_of_first = Yardstick.from_controls(measured, None, "standardized")
    (row_,) = rank(**noisy, aggregate="standardized", measured_in=unit_of_first)
    values = np.array([t.final.metrics["score"] for t in controls]).reshape(5, 3)
    plain = np.array([t.final.metrics["score"] for t in noisy["trials"]]).reshape(6, 3)
    unit = math.sqrt(values.var(axis=0, ddof=1).mean())
    assert row_.change == pytest.approx((plain[0].mean() - plain[1:].mean()) / unit)
    assert (row_.p, row_.verdict) == (pytest.approx(own.p), own.verdict)
    assert row_.change > 2 * own.change
    other = {key: {"recall": metrics["score"]} for key, metrics in measured.items()}
    recall = Yardstick.from_controls(other, None, "standardized")
    with pytest.raises(BadInput, match=r"lack the metric 'recall'.*they have: score"):
        rank(**noisy, aggregate="standardized", measured_in=recall)


def test_the_second_study_has_the_last_word() -> None:
    test = replace(ranking_row("a/low", 1.0, "better", shrunken=math.nan), kind=PoolKind.SELF_TEST)
    rows = [
        ranking_row("a/high", 0.3, "better", shrunken=0.2),
        ranking_row("b/low", 0.25, "better", shrunken=0.2),
        ranking_row("c/low", 0.5, "better", shrunken=0.4),
        ranking_row("d/low", 0.1, "undecided", shrunken=math.nan),
        ranking_row("e/low", 0.1, "better", shrunken=math.nan),
        test,
    ]
    seconds = [
        confirmation_row("a/high", 0.1, "better"),
        confirmation_row("b/low", 0.01, "undecided"),
        confirmation_row("e/low", -0.3, "worse"),
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
        replace(ranking_row("a/low", 0.3, "failed", shrunken=math.nan), change=math.nan),
        ranking_row("b/low", -0.3, "worse", shrunken=-0.2),
        replace(ranking_row("short/inside", 0.9, "better", shrunken=0.8), statistic=None),
    ]
    found = candidates(rows, [], only_confirmed=False)
    assert [item.pool for item in found] == ["short/inside", "b/low", "a/low"]
    assert found[0].unfit == "is no part of a statistic, so that it cannot be combined"
    assert found[2].unfit == "was not called better, but failed"


DECIDED_FIRST = [
    ranking_row("b/low", 0.1, "undecided", rank=2),
    ranking_row("a/low", 0.5, "better", rank=1),
    ranking_row("c/low", 0.0, "undecided", rank=3),
    ranking_row("self_test/x", -0.1, "worse", rank=4),
    ranking_row("d/low", -0.5, "worse", rank=5),
]


def test_flips_are_of_pools_decided_in_either_study():
    second = [
        ranking_row("b/low", 0.4, "better", rank=1),
        ranking_row("a/low", 0.45, "better", rank=2),
        ranking_row("d/low", -0.1, "undecided", rank=3),
        ranking_row("c/low", 0.01, "undecided", rank=4),
        ranking_row("self_test/x", 0.1, "undecided", rank=5),
    ]
    found = flips(DECIDED_FIRST, second)
    assert found == [
        FlipRow("a/low", 0.5, "better", 0.45, "better"),
        FlipRow("b/low", 0.1, "undecided", 0.4, "better"),
        FlipRow("d/low", -0.5, "worse", -0.1, "undecided"),
    ]
    assert [r.flips for r in found] == [False, True, True]


def test_pools_that_were_undecided_may_be_missing():
    second = [
        ranking_row("a/low", 0.45, "better", rank=1),
        ranking_row("d/low", -0.1, "worse", rank=2),
    ]
    assert [r.pool for r in flips(DECIDED_FIRST, second)] == ["a/low", "d/low"]
    with pytest.raises(BadInput, match="lacks the pool 'd/low', which the first decided"):
        flips(DECIDED_FIRST, second[:1])
    with pytest.raises(BadInput, match="has the pool 'z/low', which the first has not"):
        flips(DECIDED_FIRST, [*second, ranking_row("z/low", 0.0, "undecided", rank=3)])
