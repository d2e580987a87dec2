from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from djsandbox_ray.analysis.verdicts.ranking import rank
from djsandbox_ray.analysis.verdicts.second_look import (
    confirm,
    selected,
)
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import (
    ConfirmationRow,
    Pool,
    PoolKind,
    RankingRow,
    RungReport,
    TrialRecord,
    TrialSpec,
    TrialState,
)

DRAW_SHARE, BUCKETS, SEEDS, CONTROLS = 0.5, 3, 3, 8


def row(rank, pool, change, verdict, kind=PoolKind.BUCKET, **more):
    numbers = {"std": 0.1, "low": change - 0.1, "high": change + 0.1, "p": 0.01, "q": 0.01}
    plain = RankingRow(
        rank, pool, kind, None, None, change, verdict=verdict, seeds=3, failed=0, **numbers
    )
    return replace(plain, shrunken=0.8 * change, **more)


FIRST = [
    row(3, "c/low", 0.2, "better"),
    row(1, "a/low", 0.5, "better"),
    row(2, "self_test/x", 0.3, "better", PoolKind.SELF_TEST, expected="undecided"),
    row(4, "b/low", 0.1, "undecided"),
    row(5, "d/low", math.nan, "stopped", stopped_at=100),
]


def test_the_best_pools_that_are_better_are_selected():
    assert selected(FIRST, 3) == ["a/low", "c/low"]
    assert selected(FIRST, 1) == ["a/low"]
    assert selected(FIRST, 0) == []
    assert selected([], 3) == []
    with pytest.raises(BadInput, match="top is -1"):
        selected(FIRST, -1)


def test_both_effects_stand_side_by_side():
    second = [row(1, "c/low", 0.15, "undecided"), row(2, "a/low", math.nan, "failed")]
    best, other = confirm(FIRST, second)
    assert (best.pool, best.first, best.verdict) == ("a/low", 0.5, "failed")
    assert math.isnan(best.confirmed)
    assert other == ConfirmationRow(
        pool="c/low",
        first=0.2,
        first_low=0.2 - 0.1,
        first_high=0.2 + 0.1,
        shrunken=0.8 * 0.2,
        confirmed=0.15,
        low=0.15 - 0.1,
        high=0.15 + 0.1,
        verdict="undecided",
        seeds=3,
    )
    tests = [row(3, "self_test/x", 0.0, "undecided", PoolKind.SELF_TEST, expected="undecided")]
    assert len(confirm(FIRST, second + tests)) == 2
    assert confirm(FIRST, []) == []


def test_what_was_not_chosen_cannot_be_confirmed():
    with pytest.raises(BadInput, match="did not call the pool 'b/low' better"):
        confirm(FIRST, [row(1, "b/low", 0.1, "better")])
    with pytest.raises(BadInput, match="'a/low' was given up early"):
        confirm(FIRST, [row(1, "a/low", math.nan, "stopped", stopped_at=5)])


def pool(pool_id, kind=PoolKind.BUCKET):
    return Pool(id=pool_id, kind=kind, column=pool_id, code=0, size=100, hash=pool_id)


def study(arms, scores, metric="score"):
    """Pools and completed trials from scores of shape (arms, seeds)."""
    trials = []
    for arm, row_ in zip(arms, scores, strict=True):
        for seed, value in enumerate(row_):
            spec = TrialSpec(f"{arm.id}-{seed}", arm.id, seed, "", 1)
            report = RungReport(1, 1.0, {metric: float(value)}, 1.0, 1.0, 0)
            trials.append(TrialRecord(spec, TrialState.COMPLETED, (report,)))
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
            *(pool(f"control/{i}", PoolKind.CONTROL) for i in range(CONTROLS)),
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
    study_, truth, *estimates = simulate(np.random.default_rng(0), 30, 200, spread=1.0).T
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
    arms = [pool("p/low"), *(pool(f"control/{i}", PoolKind.CONTROL) for i in range(5))]
    first = study(arms, 10 + rng.normal(0, 0.5, (6, 3)))
    noisy = study(arms, 10 + rng.normal(0, 2.0, (6, 3)) + 4 * (np.arange(6) == 0)[:, None])
    controls = [t for t in first["trials"] if t.spec.pool != "p/low"]
    (own,) = rank(**noisy, aggregate="standardized")
    (row_,) = rank(**noisy, aggregate="standardized", measured_in=controls)
    values = np.array([t.final.metrics["score"] for t in controls]).reshape(5, 3)
    plain = np.array([t.final.metrics["score"] for t in noisy["trials"]]).reshape(6, 3)
    unit = math.sqrt(values.var(axis=0, ddof=1).mean())
    assert row_.change == pytest.approx((plain[0].mean() - plain[1:].mean()) / unit)
    assert (row_.p, row_.verdict) == (pytest.approx(own.p), own.verdict)
    assert row_.change > 2 * own.change
    failed = [replace(t, state=TrialState.FAILED, reports=()) for t in controls]
    with pytest.raises(BadInput, match="no control trial of the other study"):
        rank(**noisy, aggregate="standardized", measured_in=failed)
    other = study(arms[1:], values, metric="recall")["trials"]
    with pytest.raises(BadInput, match=r"the metrics \['score'\].*\['recall'\]"):
        rank(**noisy, aggregate="standardized", measured_in=other)
