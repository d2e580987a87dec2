from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from djsandbox_ray.analysis.verdicts.arm_noise import ArmNoise, against_controls
from djsandbox_ray.analysis.verdicts.verdicts import Verdict, verdicts

CONTROLS = np.random.default_rng(3).normal(0.5, 0.01, size=(5, 3))
NAN = math.nan


def test_the_parts_put_together():
    pools = {"a/high": [0.60, 0.61, 0.59], "a/low": [0.50, 0.51, 0.49]}
    found = verdicts(pools, CONTROLS)
    assert [v.pool for v in found] == list(pools)
    noise = ArmNoise.of(np.array(list(pools.values())), CONTROLS, 1.0, 1 / 3)
    squares = against_controls(np.full(2, 3), 5, 3)
    halves = noise.half_widths(squares, 0.05)
    effects = np.array([0.60, 0.50]) - CONTROLS.mean()
    for verdict, effect, half in zip(found, effects, halves, strict=True):
        assert verdict.effect == pytest.approx(effect)
        assert (verdict.low, verdict.high) == pytest.approx((effect - half, effect + half))
    assert [v.p for v in found] == pytest.approx(noise.p_values(effects, squares).tolist())
    assert [v.verdict for v in found] == ["better", "undecided"]
    assert found[0].q == pytest.approx(2 * found[0].p)


def test_worse_and_the_verdict_is_frozen():
    (found,) = verdicts({"x": [0.3, 0.3, 0.3]}, CONTROLS)
    assert found.verdict == "worse"
    assert isinstance(found, Verdict)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.verdict = "better"  # type: ignore[misc]


def test_one_pool_and_one_seed_are_the_t_test_of_one_value_against_the_controls():
    controls = CONTROLS[:, :1]
    (found,) = verdicts({"x": [0.52]}, controls, alpha=0.1)
    assert (found.p < 0.1) == (found.low > 0 or found.high < 0)
    half = stats.t.isf(0.05, 4) * controls.std(ddof=1) * math.sqrt(1.2)
    assert found.high - found.effect == pytest.approx(half, rel=1e-3)


def test_seed_effects_cancel_also_where_a_score_is_missing():
    seed_effect = np.array([0.0, 5.0, -70.0])
    pools = {"whole": np.array([0.52, 0.5, 0.51]), "part": np.array([0.52, NAN, 0.51])}
    plain = verdicts(pools, CONTROLS)
    shifted = verdicts({k: v + seed_effect for k, v in pools.items()}, CONTROLS + seed_effect)
    for before, after in zip(plain, shifted, strict=True):
        assert dataclasses.astuple(after)[1:6] == pytest.approx(dataclasses.astuple(before)[1:6])


def test_a_missing_score_compares_the_same_seeds_and_widens_the_interval():
    pools = {str(i): [0.5, 0.5 + 0.01 * i, 0.5] for i in range(4)} | {"b": [0.525, 0.525, 0.525]}
    whole = {v.pool: v for v in verdicts(pools, CONTROLS)}
    part = {v.pool: v for v in verdicts(pools | {"b": [0.525, NAN, 0.525]}, CONTROLS)}
    assert part["b"].effect == pytest.approx(0.525 - CONTROLS[:, [0, 2]].mean())
    assert part["b"].high - part["b"].low > 1.1 * (whole["b"].high - whole["b"].low)
    # Also where no pool is complete.
    (alone,) = verdicts({"b": [0.52, NAN, 0.53]}, CONTROLS, draw_share=0.5)
    assert alone.low < alone.effect < alone.high


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


def test_the_size_of_draws_and_of_buckets_bounds_what_a_bucket_adds():
    pools = {"a": [0.56, 0.57, 0.55], "b": [0.5, 0.5, 0.52], "c": [0.49, 0.52, 0.5]}
    halves = [
        [v.high - v.effect for v in verdicts(pools, CONTROLS, draw_share=a, bucket_share=b)]
        for a, b in ((0.2, 1 / 3), (0.5, 1 / 3), (0.5, 1 / 60), (1.0, 1 / 3))
    ]
    for own in zip(*halves, strict=True):
        assert list(own) == sorted(own)


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


def test_a_noisy_pool_among_unequal_arms_gets_a_wider_interval_than_a_steady_one():
    rng = np.random.default_rng(0)
    sizes = [1e-4] * 6 + [0.01] * 6 + [0.1] * 6
    pools = {str(i): rng.normal(0.5, size, size=3) for i, size in enumerate(sizes)}
    controls = rng.normal(0.5, 0.01, size=(8, 3))
    found = verdicts(pools, controls, draw_share=0.5)
    width = np.array([v.high - v.low for v in found])
    assert np.median(width[12:]) > 4 * np.median(width[6:12]) > 0
    # A steady pool is not steady by chance alone, nor known to be.
    assert width[:6].min() > 0.2 * np.median(width[6:12])


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
        "noisy": controls[0] + noise,
        "far": controls[0] + 900 + noise,
        "few": controls[0] + [0.4, -0.3, NAN],
        "one": controls[0] + [0.4, NAN, NAN],
    }
    found = {v.pool: v for v in verdicts(pools, controls, draw_share=0.5)}
    assert {found[name].verdict for name in ("noisy", "few", "one")} == {"undecided"}
    assert found["far"].verdict == "better"
    half = {name: v.high - v.effect for name, v in found.items()}
    # Two degrees of freedom of its own, and what all others say.
    assert half["noisy"] > stats.t.isf(0.025, 2) * noise.std(ddof=1) / math.sqrt(3)
    assert half["noisy"] == pytest.approx(half["far"])


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
