from __future__ import annotations

import math

import numpy as np
import pytest
from factories import rung_report, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulations import mostly_slow

from djsandbox_ray.analysis.verdicts.racing import (
    AuditReport,
    RaceRule,
    audited,
    compare,
    saved,
    wrong_stops,
)
from djsandbox_ray.records import TrialState

NAN = math.nan
CONTROLS = np.random.default_rng(5).normal(0.5, 0.01, size=(8, 3))
ONE = RaceRule(keep=1, alpha=0.05, rungs=1)


def flat(**means):
    return {pool: np.full(3, mean) for pool, mean in means.items()}


def test_two_pools_and_one_seed_are_one_t_test():
    controls = CONTROLS[:, :1]
    found = compare({"a": np.array([0.5]), "b": np.array([0.6])}, controls, ONE)
    # One other pool, one needed: c is where P(T > c) = alpha, T a Student t of C - 1 degrees.
    spread = controls.std(ddof=1)
    assert found.margin == pytest.approx(stats.t.isf(0.05, 7) * spread * math.sqrt(2), rel=0.01)
    assert found.effects == pytest.approx(
        {p: m - controls.mean() for p, m in (("a", 0.5), ("b", 0.6))}
    )
    assert found.behind == ("a",)


def noisy(pools, seeds=3, seed=0, scale=0.01):
    """Pools as noisy as the controls, each with the mean given."""
    rng = np.random.default_rng(seed)
    found = {}
    for pool, mean in pools.items():
        row = rng.normal(0, scale, seeds)
        found[pool] = mean + row - row.mean()
    return found


def test_behind_begins_at_the_margin():
    margin = compare(noisy({"a": 0.5, "b": 0.6}), CONTROLS, ONE).margin
    close, far = ({"a": 0.5, "b": 0.5 + share * margin} for share in (0.999, 1.001))
    # Two pools: the median of their variances is their mean.
    assert compare(noisy(close), CONTROLS, ONE).behind == ()
    assert compare(noisy(far), CONTROLS, ONE).behind == ("a",)


def test_the_margin_by_simulation():
    """P(the r-th best is led by keep - r + 1 equals), summed over r, is alpha / rungs."""
    rng, pools, keep = np.random.default_rng(0), 12, 3
    controls = CONTROLS[:, :1]
    rule = RaceRule(keep=keep, alpha=0.4, rungs=2)
    c = compare({f"p{i}": np.full(1, 0.5) for i in range(pools)}, controls, rule).margin
    c /= math.sqrt(2) * controls.std(ddof=1)
    spread = np.sqrt(rng.chisquare(7, 40_000) / 7)
    noise = np.sort(rng.normal(size=(40_000, pools - 1)), axis=1)[:, ::-1]
    own = rng.normal(size=40_000)
    total = 0.0
    for rank in range(1, keep + 1):
        others = rng.permuted(noise, axis=1)[:, : pools - rank]
        leads = (others - own[:, None] > math.sqrt(2) * c * spread[:, None]).sum(axis=1)
        total += float((leads >= keep - rank + 1).mean())
    assert total == pytest.approx(0.2, abs=0.01)


def test_keep_pools_must_lead():
    scores = flat(low=0.0, a=0.9, b=0.9)
    assert compare(scores, CONTROLS, RaceRule(keep=3)).behind == ()
    assert compare(scores, CONTROLS, RaceRule(keep=2)).behind == ("low",)
    assert compare(scores | flat(c=0.9), CONTROLS, RaceRule(keep=3)).behind == ("low",)


@pytest.mark.parametrize("pools", [0, 1, 3])
def test_no_more_pools_than_are_kept(pools):
    scores = {f"p{i}": np.full(3, float(i)) for i in range(pools)}
    found = compare(scores, CONTROLS, RaceRule(keep=3))
    assert (found.behind, found.margin) == ((), math.inf)
    assert list(found.effects) == list(scores)


def test_too_few_complete_controls():
    controls = CONTROLS[:3].copy()
    assert compare(flat(a=0.0, b=1.0), controls, ONE).behind == ("a",)
    controls[0, 1] = NAN
    found = compare(flat(a=0.0, b=1.0), controls, ONE)
    assert (found.effects, found.margin, found.behind) == ({}, math.inf, ())


def test_missing_seeds():
    seed_effect = np.array([0.0, 5.0, -70.0])
    whole = {"a": np.array([0.51, 0.5, 0.52]), "b": np.array([0.61, 0.6, 0.62])}
    part = whole | {"b": np.array([0.61, NAN, 0.62]), "none": np.full(3, NAN)}
    found = compare(part, CONTROLS, ONE)
    assert list(found.effects) == ["a", "b"]
    assert found.effects["b"] == pytest.approx(0.615 - CONTROLS[:, [0, 2]].mean())
    assert found.margin > compare(whole, CONTROLS, ONE).margin
    shifted = compare(
        {p: row + seed_effect for p, row in part.items()}, CONTROLS + seed_effect, ONE
    )
    assert shifted.effects == pytest.approx(found.effects)
    assert shifted.behind == found.behind


def test_a_pool_with_one_seed_is_given_up_less_easily():
    pools = {"a": 0.5, "few": 0.5, **{f"p{i}": 0.5 for i in range(8)}}
    margin = compare(noisy(pools), CONTROLS, ONE).margin
    scores = noisy(pools | {"b": 0.5 + 1.5 * margin})
    scores["few"][1:] = NAN
    behind = compare(scores, CONTROLS, ONE).behind
    assert "a" in behind
    assert "few" not in behind


def test_a_noisy_pool_is_given_up_less_easily_and_leads_less_easily():
    steady = {f"p{i}": 0.5 for i in range(12)}
    margin = compare(noisy(steady), CONTROLS, ONE).margin
    lead = noisy({"ahead": 0.5 + 2 * margin})
    behind = noisy(steady) | lead | noisy({"noisy": 0.5}, scale=0.2)
    assert "noisy" not in compare(behind, CONTROLS, ONE).behind
    leads = noisy(steady) | noisy({"ahead": 0.5 + 2 * margin}, scale=0.2)
    assert compare(leads, CONTROLS, ONE).behind == ()


def test_controls_without_any_spread():
    controls = np.tile([0.1, 0.7, 0.3], (5, 1))
    scores = {"same": controls[0], "rounding": controls[0] * 3 / 3, "more": controls[0] + 0.1}
    assert compare(scores, controls, RaceRule(keep=1)).behind == ("same", "rounding")


@pytest.mark.parametrize(
    ("scores", "controls", "message"),
    [
        ({"a": np.ones(2)}, CONTROLS, r"'a' has scores of shape \(2,\) and the controls have 3"),
        ({"a": np.array([1.0, math.inf, 1.0])}, CONTROLS, "'a' has an infinite score"),
        ({"a": np.ones(3)}, np.full((8, 3), -math.inf), "'control 0' has an infinite score"),
        ({"a": np.ones(3)}, np.ones(3), r"shape \(3,\); \(controls, seeds\) is needed"),
    ],
)
def test_bad_scores(scores, controls, message):
    with pytest.raises(ValueError, match=message):
        compare(scores, controls, ONE)


@pytest.mark.parametrize("bad", [{"keep": 0}, {"rungs": 0}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_bad_rules(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RaceRule(**bad)


def study(rng, truth, controls=8, seeds=3, rungs=3, data=0.5, log_sd=0.0):
    """Scores (arms, seeds, rungs) with bucket, draw, training and seed noise; controls first.

    ``data`` is the share of a draw's variance that its samples cause, of 1 in all; draws of half a
    bucket, three buckets. Effects grow over the rungs, curves of different pools do not cross.
    """
    arms, m = controls + len(truth), 0.5
    bucket = rng.normal(0, math.sqrt(data * m * (1 - 1 / 3)), (arms, 1))
    draws = rng.normal(0, math.sqrt(data * (1 - m)), (arms, seeds))
    steady, fresh = rng.normal(size=(arms, seeds, 1)), rng.normal(size=(arms, seeds, rungs))
    training = math.sqrt((1 - data) / 2) * (steady + fresh)
    scale = np.exp(log_sd * rng.normal(size=(arms, 1)))
    effects = np.concatenate([np.zeros(controls), truth])[:, None] + scale * (bucket + draws)
    growth = np.linspace(0.5, 1, rungs)
    training = scale[..., None] * training
    return effects[:, :, None] * growth + training + rng.normal(0, 3, (seeds, 1))


def race(scores, pools, rule):
    """Return all pools that are stopped, rung by rung."""
    controls, racing = len(scores) - pools, list(range(pools))
    for rung in range(scores.shape[2]):
        at = {str(pool): scores[controls + pool, :, rung] for pool in racing}
        behind = compare(at, scores[:controls, :, rung], rule).behind
        assert set(behind) <= set(at)  # so that no control is ever among them
        racing = [pool for pool in racing if str(pool) not in behind]
    return set(range(pools)) - set(racing)


SPREAD = np.random.default_rng(9).normal(0, 2, 18)
TRUTHS = {
    "all equal": np.zeros(18),
    "two far ahead": np.r_[[40, 40], np.zeros(16)],  # one of the best is at risk: the worst case
    "half far behind": np.r_[np.zeros(9), np.full(9, -20.0)],
    "half a little behind": np.r_[np.zeros(9), np.full(9, -3.0)],
    "spread": np.sort(SPREAD)[::-1],
}
UNEQUAL = 0.9
"""Standard deviation of the logarithm of arms' noise."""


@pytest.mark.parametrize("missing", mostly_slow([0.0, 0.1], 0.0))
@pytest.mark.parametrize(
    ("truth", "studies"),
    [
        ("two far ahead", 60),
        ("half far behind", 40),
        *(pytest.param(truth, 400, marks=pytest.mark.slow) for truth in TRUTHS),
    ],
)
def test_the_best_are_stopped_with_probability_alpha_at_most(truth, studies, missing):
    """Three rungs, with samples or training as the main source of noise; 20 % allowed error."""
    alpha = 0.2
    rule, wrong, stopped = RaceRule(keep=3, alpha=alpha, rungs=3), 0, 0
    for seed in range(studies):
        rng = np.random.default_rng(seed)
        scores = study(rng, TRUTHS[truth], data=0.2 if seed % 2 else 0.8)
        scores[rng.random(scores.shape[:2]) < missing] = NAN
        out = race(scores, 18, rule)
        wrong += bool(out & {0, 1, 2})
        stopped += len(out)
    assert stats.binomtest(wrong, studies, alpha, alternative="greater").pvalue > 0.01
    if truth == "half far behind":
        assert stopped >= 8 * studies  # the bound is not kept by stopping nobody


@pytest.mark.parametrize("truth", mostly_slow([*TRUTHS], "two far ahead"))
def test_the_best_are_stopped_no_more_often_where_arms_are_not_equally_noisy(truth):
    rule, wrong, studies = RaceRule(keep=3, alpha=0.2, rungs=2), 0, 60
    for seed in range(studies):
        scores = study(np.random.default_rng(seed), TRUTHS[truth], rungs=2, log_sd=UNEQUAL)
        wrong += bool(race(scores, 18, rule) & {0, 1, 2})
    assert stats.binomtest(wrong, studies, 0.2, alternative="greater").pvalue > 1e-3


rows = st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3).map(np.array)
tables = st.lists(rows, min_size=4, max_size=9)
holes = st.sets(st.integers(0, 26), max_size=6)


def with_holes(table, missing):
    scores = {f"p{i}": row.copy() for i, row in enumerate(table)}
    for hole in missing:
        if f"p{hole // 3}" in scores:
            scores[f"p{hole // 3}"][hole % 3] = NAN
    return scores


RULE = RaceRule(keep=2, alpha=0.5, rungs=1)


@given(tables, holes, st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_order_of_pools_does_not_matter(table, missing, random):
    scores = with_holes(table, missing)
    names = list(scores)
    random.shuffle(names)
    first = compare(scores, CONTROLS, RULE)
    second = compare({name: scores[name] for name in names}, CONTROLS, RULE)
    assert set(first.behind) == set(second.behind) or _at_the_margin(first)
    assert first.effects == second.effects
    assert first.margin == pytest.approx(second.margin, rel=1e-9)


@given(tables, holes, rows, st.sampled_from([0.125, 1.0, 64.0]))
@settings(max_examples=20, deadline=None)
def test_a_shift_of_a_seed_and_a_scale_change_nothing(table, missing, shift, scale):
    scores = with_holes(table, missing)
    first = compare(scores, CONTROLS, RULE)
    moved = {pool: scale * (row + shift) for pool, row in scores.items()}
    second = compare(moved, scale * (CONTROLS + shift), RULE)
    assert second.margin == pytest.approx(scale * first.margin)
    assert second.effects == pytest.approx(
        {pool: scale * effect for pool, effect in first.effects.items()}, abs=1e-12 * scale
    )
    assert first.behind == second.behind or _at_the_margin(first)


def _at_the_margin(found):
    """Whether some lead equals the margin up to rounding."""
    effects = np.array(list(found.effects.values()))
    leads = np.abs(effects[:, None] - effects[None, :])
    return bool((np.abs(leads / found.margin - 1) < 1e-9).any())


@given(tables)
@settings(max_examples=10, deadline=None)
def test_as_many_as_are_kept_survive(table):
    found = compare(with_holes(table, ()), CONTROLS, RULE)
    assert len(found.effects) - len(found.behind) >= RULE.keep


@given(tables, holes, st.floats(0.05, 0.9), st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_a_stricter_rule_stops_no_more(table, missing, alpha, rungs):
    scores = with_holes(table, missing)
    loose = compare(scores, CONTROLS, RaceRule(keep=2, alpha=alpha, rungs=1)).behind
    for rule in (RaceRule(2, alpha / 2, 1), RaceRule(2, alpha, 1 + rungs)):
        assert set(compare(scores, CONTROLS, rule).behind) <= set(loose)


def test_audits_are_a_seeded_share():
    pools = [f"statistic_{i}/low" for i in range(4000)]
    chosen = [pool for pool in pools if audited(pool, 0.1, seed=0)]
    assert len(chosen) == pytest.approx(400, abs=80)
    assert chosen == [pool for pool in pools if audited(pool, 0.1, seed=0)]
    assert set(chosen) <= {pool for pool in pools if audited(pool, 0.3, seed=0)}
    assert chosen != [pool for pool in pools if audited(pool, 0.1, seed=1)]
    assert not any(audited(pool, 0.0, seed=0) for pool in pools)
    assert all(audited(pool, 1.0, seed=0) for pool in pools)
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        audited("a", 1.5, seed=0)


def test_wrong_stops():
    finals = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 1.0}
    found = wrong_stops(["b", "d", "e", "failed"], finals, keep=3)
    assert (found.audited, found.wrong, found.rate) == (3, 1, 1 / 3)
    interval = stats.binomtest(1, 3).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert wrong_stops([], finals, keep=3) == AuditReport(0, 0, None, 0.0, 1.0)
    none_wrong, all_wrong = wrong_stops(["e"], finals, 1), wrong_stops(["a"], finals, 1)
    assert (none_wrong.low, none_wrong.high) == pytest.approx((0.0, 0.975))
    assert (all_wrong.low, all_wrong.high) == pytest.approx((0.025, 1.0))
    with pytest.raises(ValueError, match="'x' is NaN"):
        wrong_stops([], {"x": NAN}, keep=3)


def record(pool, state, *samples):
    return trial_record(pool, state=state, reports=tuple(map(rung_report, samples)))


def test_saved():
    trials = [
        record("control/0", TrialState.COMPLETED, 25, 100),
        record("a/low", TrialState.COMPLETED, 25, 100),
        record("a/high", TrialState.STOPPED, 25),
        record("b/low", TrialState.FAILED, 25, 50),
        record("b/high", TrialState.FAILED),
    ]
    found = saved(trials, {"a/low", "a/high", "b/low", "b/high"})
    assert (found.samples, found.share, found.share_of_stoppable) == (75, 75 / 350, 75 / 250)
    nothing = saved([], set())
    assert (nothing.samples, nothing.share, nothing.share_of_stoppable) == (0, 0.0, 0.0)
