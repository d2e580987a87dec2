from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.dunnett import critical_value
from djsandbox_ray.analysis.verdicts.moderated import Moderation, between_variance, within_variance
from djsandbox_ray.analysis.verdicts.verdicts import Verdict, verdicts

CONTROLS = np.random.default_rng(3).normal(0.5, 0.01, size=(5, 3))
NAN = math.nan


def test_the_formula_by_hand():
    pools = {"a/high": [0.60, 0.61, 0.59], "a/low": [0.50, 0.51, 0.49]}
    found = verdicts(pools, CONTROLS)
    assert [v.pool for v in found] == list(pools)
    means = CONTROLS.mean(axis=1)
    error = means.std(ddof=1) * math.sqrt(1 + 1 / 5)
    for verdict, mean in zip(found, (0.60, 0.50), strict=True):
        effect = mean - means.mean()
        assert verdict.effect == pytest.approx(effect)
        half = critical_value(0.05, 2, 5, 4) * error
        assert (verdict.low, verdict.high) == pytest.approx((effect - half, effect + half))
        assert verdict.p == pytest.approx(2 * stats.t.sf(abs(effect) / error, 4))
    assert [v.verdict for v in found] == ["better", "undecided"]
    assert found[0].q == pytest.approx(2 * found[0].p)


def test_worse_and_the_verdict_is_frozen():
    (found,) = verdicts({"x": [0.3, 0.3, 0.3]}, CONTROLS)
    assert found.verdict == "worse"
    assert isinstance(found, Verdict)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.verdict = "better"  # type: ignore[misc]


def test_one_pool_is_the_t_test_of_one_value_against_the_control_means():
    (found,) = verdicts({"x": [0.52, 0.50, 0.51]}, CONTROLS, alpha=0.1)
    assert (found.p < 0.1) == (found.low > 0 or found.high < 0)
    half = stats.t.isf(0.05, 4) * CONTROLS.mean(axis=1).std(ddof=1) * math.sqrt(1.2)
    assert found.high - found.effect == pytest.approx(half)


def test_seed_effects_cancel_also_where_a_score_is_missing():
    seed_effect = np.array([0.0, 5.0, -70.0])
    pools = {"whole": np.array([0.52, 0.5, 0.51]), "part": np.array([0.52, NAN, 0.51])}
    plain = verdicts(pools, CONTROLS)
    shifted = verdicts({k: v + seed_effect for k, v in pools.items()}, CONTROLS + seed_effect)
    for before, after in zip(plain, shifted, strict=True):
        assert dataclasses.astuple(after)[1:6] == pytest.approx(dataclasses.astuple(before)[1:6])


def test_a_missing_score_compares_the_same_seeds_and_widens_the_interval():
    whole, part = verdicts({"a": [0.5, 0.6, 0.7], "b": [0.5, NAN, 0.7]}, CONTROLS)
    assert part.effect == pytest.approx(0.6 - CONTROLS[:, [0, 2]].mean())
    ratio = (part.high - part.low) / (whole.high - whole.low)
    assert ratio == pytest.approx(math.sqrt(3 / 2))
    # No longer one control mean for all: the critical value holds under any correlation.
    error = CONTROLS.mean(axis=1).std(ddof=1) * math.sqrt(1.2)
    any_correlation = critical_value(0.05, 2, math.inf, 4)
    assert whole.high - whole.effect == pytest.approx(any_correlation * error)


def test_incomplete_control_arms_are_left_out():
    holed = np.vstack([CONTROLS, [0.1, NAN, 0.9]])
    pools = {"x": [0.52, 0.50, 0.51]}
    assert verdicts(pools, holed) == verdicts(pools, CONTROLS)


def test_fewer_than_three_complete_control_arms():
    with pytest.raises(ValueError, match="2 of 2 control arms"):
        verdicts({"x": [1.0]}, [[1.0], [2.0]])
    with pytest.raises(ValueError, match="2 of 3 control arms"):
        verdicts({"x": [1.0, 2.0]}, [[1.0, 2.0], [2.0, 2.0], [3.0, NAN]])


def test_no_pools_no_verdicts_but_the_input_is_still_checked():
    assert verdicts({}, CONTROLS) == []
    with pytest.raises(ValueError, match="control arms"):
        verdicts({}, [])
    with pytest.raises(ValueError, match="alpha"):
        verdicts({}, CONTROLS, alpha=2)


@pytest.mark.parametrize(
    ("pools", "controls", "message"),
    [
        ({"x": [1.0, 2.0]}, CONTROLS, "pool 'x' has 2 scores and the control arms have 3"),
        ({"x": [NAN] * 3}, CONTROLS, "pool 'x' has no score at all"),
        ({"x": [1.0, 2.0, math.inf]}, CONTROLS, "pool 'x' has an infinite score"),
        ({"x": 1.0}, CONTROLS, r"pool 'x' has scores of shape \(\)"),
        ({"x": ["good"]}, CONTROLS, "pool 'x': one number per seed"),
        ({"x": [[1.0] * 3]}, CONTROLS, r"pool 'x' has scores of shape \(1, 3\)"),
        ({"x": [1.0]}, [[1.0], [2.0], [2.0, 3.0]], "control arm 2 has 2 scores and arm 0 has 1"),
        ({"x": [1.0]}, [1.0, 2.0, 3.0], r"control arm 0 has scores of shape \(\)"),
        ({"x": [1.0]}, [[1.0], [2.0], [-math.inf]], "control arm 2 has an infinite score"),
        ({"x": []}, [[], [], []], r"control arm 0 has scores of shape \(0,\)"),
    ],
)
def test_bad_scores(pools, controls, message):
    with pytest.raises(ValueError, match=message):
        verdicts(pools, controls)


@pytest.mark.parametrize("alpha", [0, 1, -0.05, NAN])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        verdicts({"x": [1.0] * 3}, CONTROLS, alpha=alpha)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 1e9])
def test_controls_without_any_spread(constant):
    controls = constant + np.tile([0.1, 0.7, 0.3], (7, 1))  # equal arms, unequal seeds
    pools = {"same": controls[0], "more": controls[0] + 0.01, "less": controls[0] - 0.01}
    with np.errstate(all="raise"):
        same, more, less = verdicts(pools, controls)
    assert (same.effect, same.p, same.verdict) == (0.0, 1.0, "undecided")
    assert (more.p, more.verdict, more.low) == (0.0, "better", more.effect)
    assert (less.p, less.verdict, less.high) == (0.0, "worse", less.effect)


def test_q_values_are_benjamini_hochberg():
    scores = {str(i): [0.45 + 0.005 * i] * 3 for i in range(20)}
    found = verdicts(scores, CONTROLS)
    p = np.array([v.p for v in found])
    ranks = stats.rankdata(p, method="max")
    by_hand = [min(1.0, (p / ranks * 20)[p >= own].min()) for own in p]
    assert [v.q for v in found] == pytest.approx(by_hand)
    assert verdicts({}, CONTROLS) == []


def test_the_interval_grows_with_the_number_of_pools():
    scores = {str(i): [0.5, 0.5, 0.5] for i in range(18)}
    alone = verdicts({"0": scores["0"]}, CONTROLS)[0]
    among = verdicts(scores, CONTROLS)[0]
    assert among.high > alone.high
    assert among.p == alone.p


def test_draws_that_are_smaller_than_the_bucket_moderate_the_variance():
    pools = {"a": [0.56, 0.57, 0.55], "b": [0.5, 0.5, 0.52], "c": [0.49, 0.52, 0.5]}
    found = verdicts(pools, CONTROLS, draw_share=0.5, bucket_share=1 / 4)
    arms = np.concatenate([list(pools.values()), CONTROLS])
    moderation = Moderation(Design(3, 5, 3, 0.5, 1 / 4), 0.05)
    variances = between_variance(CONTROLS), within_variance(arms)
    half = float(moderation.half_width(*variances))
    for verdict in found:
        assert verdict.high - verdict.effect == pytest.approx(half)
        assert verdict.p == pytest.approx(
            float(moderation.p_values(verdict.effect, *variances)), rel=1e-9
        )
    assert half != pytest.approx(verdicts(pools, CONTROLS)[0].high - found[0].effect, rel=0.01)


def test_one_seed_has_no_variance_within_arms_to_moderate_with():
    pools, controls = {"a": [0.6], "b": [0.5]}, CONTROLS[:, :1]
    assert verdicts(pools, controls, draw_share=0.5) == verdicts(pools, controls)


def test_a_pool_given_up_early_counts_in_the_family():
    scores = {str(i): [0.5 + 0.01 * i, 0.5, 0.51] for i in range(6)}
    three = {name: scores[name] for name in "012"}
    for share in (1.0, 0.5):
        alone = verdicts(three, CONTROLS, draw_share=share)
        counted = verdicts(three, CONTROLS, draw_share=share, pools=6)
        for a, b in zip(alone, counted, strict=True):
            assert b.high - b.low > a.high - a.low
            assert b.effect == a.effect
    assert verdicts(scores, CONTROLS, pools=6) == verdicts(scores, CONTROLS)


def test_a_missing_score_with_smaller_draws():
    pools = {"a": [0.52, 0.5, 0.51], "b": [0.52, NAN, 0.51], "c": [0.49, 0.5, 0.5]}
    whole, part, _ = verdicts(pools, CONTROLS, draw_share=0.5)
    ratio = (part.high - part.low) / (whole.high - whole.low)
    assert ratio == pytest.approx(math.sqrt(3 / 2))
    # The variance within arms is that of the complete ones.
    complete = np.concatenate([[pools["a"], pools["c"]], CONTROLS])
    moderation = Moderation(Design(3, 5, 3), 0.05, within_df=6 * 2, shared=False)
    half = moderation.half_width(between_variance(CONTROLS), within_variance(complete))
    assert whole.high - whole.effect == pytest.approx(float(half))
    # Also where no pool is complete.
    (alone,) = verdicts({"b": pools["b"]}, CONTROLS, draw_share=0.5)
    assert alone.low < alone.effect < alone.high


def test_a_noisy_pool_among_unequal_arms_gets_a_wider_interval_than_a_steady_one():
    rng = np.random.default_rng(0)
    sizes = [1e-4] * 6 + [0.01] * 6 + [0.1] * 6
    pools = {str(i): rng.normal(0.5, size, size=3) for i, size in enumerate(sizes)}
    controls = rng.normal(0.5, 0.01, size=(8, 3))
    found = verdicts(pools, controls, draw_share=0.5)
    width = [v.high - v.low for v in found]
    assert min(width[12:]) >= width[0]
    assert np.median(width[12:]) > 2 * width[0]
    assert width[5] == pytest.approx(width[0], rel=0.02)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_scores_without_any_spread_at_any_draw_size(share):
    controls = np.tile([0.1, 0.7, 0.3], (7, 1))
    pools = {"same": controls[0], "more": controls[0] + 0.01}
    same, more = verdicts(pools, controls, draw_share=share)
    assert (same.p, same.verdict) == (1.0, "undecided")
    assert (more.p, more.verdict) == (0.0, "better")


def test_a_noisy_pool_beside_controls_whose_trials_do_not_vary_is_judged_by_its_own_variance():
    controls = np.tile([0.1, 0.7, 0.3], (7, 1))
    noise = np.array([0.4, -0.3, 0.1])
    pools = {
        "steady": controls[0] + 0.01,
        "noisy": controls[0] + noise,
        "far": controls[0] + 9 + noise,
        "few": controls[0] + [0.4, -0.3, NAN],
        "one": controls[0] + [0.4, NAN, NAN],
    }
    found = {v.pool: v for v in verdicts(pools, controls, draw_share=0.5)}
    assert (found["steady"].p, found["steady"].verdict) == (0.0, "better")
    assert {found[name].verdict for name in ("noisy", "few", "one")} == {"undecided"}
    assert found["far"].verdict == "better"
    half = {name: v.high - v.effect for name, v in found.items()}
    # Two degrees of freedom of its own, and the worst that a bucket may add.
    assert half["noisy"] > stats.t.isf(0.025, 2) * noise.std(ddof=1) / math.sqrt(3)
    assert half["noisy"] == pytest.approx(half["far"])
    # What no score tells is taken to be as noisy as the noisiest that is known.
    few = np.std([0.4, -0.3], ddof=1) * math.sqrt(3 / 2)
    assert half["few"] / half["noisy"] == pytest.approx(few / noise.std(ddof=1))
    assert half["one"] / half["few"] == pytest.approx(math.sqrt(2))
    # Two seeds leave one degree of freedom; a bucket's part is found between the controls.
    apart = controls[:, :2] + 0.1 * np.arange(7)[:, None]
    rest = {name: row[:2] for name, row in pools.items()}
    both = verdicts(rest, apart, draw_share=0.5)
    assert {v.verdict for v in both if v.pool != "far"} == {"undecided"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draw_share": 0.0}, "draw_share is 0.0"),
        ({"draw_share": 1.5}, "draw_share is 1.5"),
        ({"draw_share": 0.5, "bucket_share": 1.0}, "bucket_share is 1.0"),
        ({"bucket_share": 0.0}, "bucket_share is 0.0"),
        ({"bucket_share": NAN}, "bucket_share is nan"),
        ({"pools": 0}, "pools is 0, but 1 pools have scores"),
    ],
)
def test_a_bad_design(arguments, message):
    with pytest.raises(ValueError, match=message):
        verdicts({"x": [1.0] * 3}, CONTROLS, **arguments)
