from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.dunnett import critical_value
from djsandbox_ray.analysis.verdicts.moderated import (
    Moderation,
    arm_variances,
    between_variance,
    within_variance,
)
from djsandbox_ray.analysis.verdicts.squeeze import squeeze

DEFAULT = Design(pools=18, controls=8, seeds=3)
ROWS = [Design(18, c, 3, share) for c in (5, 10) for share in (0.67, 0.5, 0.33, 0.2)]


def errors(moderation, ratios, studies=100_000, seed=0):
    """Family-wise error at every g = V/w, straight from the model: variances and arm means."""
    design = moderation.design
    rng = np.random.default_rng([seed, design.controls, round(100 * design.draw_share)])
    df_w = (design.pools + design.controls - 1) * (design.seeds - 1)
    chi_b = rng.chisquare(design.controls - 1, studies) / (design.controls - 1)
    chi_w = rng.chisquare(df_w, studies) / df_w
    center = rng.standard_normal(studies) / math.sqrt(design.controls)
    largest = np.zeros(studies)
    for _ in range(design.pools):
        largest = np.maximum(largest, np.abs(rng.standard_normal(studies) - center))
    return [
        float((largest * math.sqrt(g) > moderation.half_width(g * chi_b, chi_w)).mean())
        for g in ratios
    ]


def test_the_two_variances_by_hand():
    arms = np.array([[1.0, 2.0, 6.0], [0.0, 3.0, 3.0], [5.0, 5.0, 8.0]])
    assert between_variance(arms) == pytest.approx(np.var([3, 2, 6], ddof=1))
    # Residuals of arms x seeds: 9 cells less 3 arms and 3 seeds, plus the mean counted twice.
    residual = arms - arms.mean(1, keepdims=True) - arms.mean(0) + arms.mean()
    assert within_variance(arms) == pytest.approx((residual**2).sum() / 4)
    assert arm_variances(arms).mean() == pytest.approx(within_variance(arms))
    shifted = arms + np.array([9.0, -4.0, 0.0])
    both = within_variance(np.stack([arms, shifted]))
    assert both.tolist() == pytest.approx([float(within_variance(arms))] * 2)


def test_the_variances_are_unbiased_and_nan_where_there_is_nothing():
    rng = np.random.default_rng(0)
    arms = 2 * rng.standard_normal((20_000, 6, 3)) + 7 * rng.standard_normal((20_000, 1, 3))
    assert within_variance(arms).mean() == pytest.approx(4, rel=0.01)
    assert arm_variances(arms).mean(axis=0) == pytest.approx([4] * 6, rel=0.05)
    assert between_variance(arms).mean() == pytest.approx(4 / 3, rel=0.02)
    assert np.isnan(within_variance(np.zeros((4, 1))))
    assert np.isnan(within_variance(np.zeros((5, 1, 3)))).all()


@pytest.mark.parametrize("design", [DEFAULT, *ROWS[::3], Design(1, 3, 2, 0.5)])
def test_the_error_is_alpha_at_the_least_favourable_ratio(design):
    least = 1 / design.seeds
    ratios = np.geomspace(least, least + design.bucket_bound, 9)
    found = errors(Moderation(design, 0.05), ratios)
    spread = 4 * math.sqrt(0.05 * 0.95 / 100_000)
    assert max(found) < 0.05 + spread
    assert max(found) > 0.05 - spread


def test_the_error_at_the_default_design_is_near_alpha_at_data_shares_from_20_to_80_percent():
    data = np.linspace(0.2, 0.8, 5)
    ratios = 1 / 3 + data * 0.5 * (2 / 3) / (1 - data * 0.5)
    assert all(0.033 < error < 0.05 for error in errors(Moderation(DEFAULT, 0.05), ratios))


@pytest.mark.parametrize("alpha", [0.001, 0.2])
def test_other_error_rates(alpha):
    ratios = np.geomspace(1 / 3, 1, 5)
    found = max(errors(Moderation(DEFAULT, alpha), ratios, studies=200_000))
    assert found == pytest.approx(alpha, abs=4 * math.sqrt(alpha / 200_000))


@pytest.mark.parametrize("design", [Design(18, 8, 3, 1.0), Design(18, 8, 1, 0.5)])
def test_whole_buckets_and_single_seeds_use_the_variance_between_controls_alone(design):
    moderation = Moderation(design, 0.05)
    expected = critical_value(0.05, 18, 8, 7) * math.sqrt(0.7 * 9 / 8)
    assert moderation.half_width(0.7, math.nan) == pytest.approx(expected)
    t = 1.3 / math.sqrt(0.7 * 9 / 8)
    assert moderation.p_values(-1.3, 0.7, math.nan) == pytest.approx(2 * stats.t.sf(t, 7))


def test_a_bound_that_says_little_leaves_the_variance_between_controls():
    half = Moderation(Design(18, 8, 3, 0.99), 0.05).half_width([2.0, 5.0, 12.0], 1.0)
    alone = critical_value(0.05, 18, 8, 7) * np.sqrt(np.array([2.0, 5.0, 12.0]) * 9 / 8)
    assert half == pytest.approx(alone, rel=0.03)


def test_tiny_draws_leave_the_variance_within_arms():
    # No bucket variance to speak of: the variance of an arm mean is w/S, known from 50 df.
    half = Moderation(Design(18, 8, 3, 0.001), 0.05).half_width(1 / 3, 1.0)
    known = critical_value(0.05, 18, 8, 50) * math.sqrt(9 / 8 / 3)
    assert half == pytest.approx(known, rel=0.03)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.floats(1e-6, 1e6))
def test_half_widths_scale_with_the_scores_and_grow_with_the_variances(between, within, scale):
    moderation = Moderation(DEFAULT, 0.05)
    half = float(moderation.half_width(between, within))
    assert moderation.half_width(between * scale**2, within * scale**2) == pytest.approx(
        half * scale
    )
    assert moderation.half_width(between * 1.5, within) >= half * (1 - 1e-12)
    assert half > 0


def test_a_between_variance_far_above_the_bound_widens_intervals_in_proportion():
    moderation = Moderation(DEFAULT, 0.05)
    far, farther = moderation.half_width([100.0, 10_000.0], 1.0)
    assert farther / far == pytest.approx(10)
    assert moderation.half_width(10_000.0, 0.0) == pytest.approx(farther)


def test_no_between_variance_is_no_reason_for_no_interval():
    moderation = Moderation(DEFAULT, 0.05)
    assert moderation.half_width(0.0, 1.0) > 0.25 * moderation.half_width(0.5, 1.0)
    assert moderation.half_width(0.0, 0.0) == 0
    with np.errstate(all="raise"):
        assert moderation.p_values([0.0, 0.1], 0.0, 0.0).tolist() == [1.0, 0.0]


def test_the_p_value_of_one_pool_is_alpha_at_the_end_of_its_interval():
    for alpha in (0.01, 0.05):
        moderation = Moderation(Design(1, 8, 3), alpha)
        between = np.array([0.1, 0.4, 0.9, 3.0])
        half = moderation.half_width(between, 1.0)
        assert moderation.p_values(half, between, 1.0) == pytest.approx([alpha] * 4, rel=2e-3)


def test_p_values_are_valid_at_every_ratio():
    rng = np.random.default_rng(1)
    moderation, n = Moderation(DEFAULT, 0.05), 1500
    for g in (1 / 3, 0.6, 1.0):
        effect = math.sqrt(g * 9 / 8) * rng.standard_normal(n)
        between, within = g * rng.chisquare(7, n) / 7, rng.chisquare(50, n) / 50
        p = moderation.p_values(effect, between, within)
        for level in (0.05, 0.2, 0.5):
            assert (p <= level).mean() < level + 4 * math.sqrt(level / n)
    assert (np.diff(moderation.p_values(np.linspace(0, 9, 30), 0.5, 0.8)) <= 0).all()


def test_a_larger_family_fewer_degrees_of_freedom_and_any_correlation_widen_intervals():
    half = [
        float(moderation.half_width(0.5, 0.8))
        for moderation in (
            Moderation(DEFAULT, 0.05),
            Moderation(DEFAULT, 0.05, shared=False),
            Moderation(Design(40, 8, 3), 0.05),
            Moderation(DEFAULT, 0.05, within_df=4),
        )
    ]
    assert min(half[1:]) > half[0]


@pytest.mark.parametrize("alpha", [0, 1, math.nan])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Moderation(DEFAULT, alpha)


def test_bad_degrees_of_freedom():
    with pytest.raises(ValueError, match="within_df is -1"):
        Moderation(DEFAULT, 0.05, within_df=-1)


def scores(studies, pool_sd, controls=8, seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    common = 5 * rng.standard_normal((studies, 1, seeds))
    pools = rng.standard_normal((studies, len(pool_sd), seeds)) * np.asarray(pool_sd)[:, None]
    return common + pools, common + rng.standard_normal((studies, controls, seeds))


def test_arms_that_vary_alike_share_one_variance_nearly_always():
    pools, controls = scores(4000, np.ones(18))
    found = squeeze(pools, controls)
    pooled = within_variance(np.concatenate([pools, controls], axis=1))
    shared = np.isclose(found.controls, pooled) & (found.pools == pooled[:, None]).all(axis=1)
    assert shared.mean() > 0.985
    assert (found.df[shared] == 25 * 2).all()


def test_ruined_pools_do_not_narrow_the_intervals_of_others():
    pools, controls = scores(2000, np.full(18, 0.05))
    found = squeeze(pools, controls)
    assert within_variance(np.concatenate([pools, controls], axis=1)).mean() < 0.4
    assert found.controls.mean() == pytest.approx(1, rel=0.05)
    assert (found.df == 7 * 2).all()
    assert (found.pools >= found.controls[:, None]).all()


def test_where_arms_differ_much_a_noisy_pool_gets_a_variance_of_its_own():
    pools, controls = scores(2000, [0.1] * 9 + [6.0] * 9)
    found = squeeze(pools, controls)
    ratio = np.median(found.pools / found.controls[:, None], axis=0)
    assert (ratio[9:] > 5).all()
    assert (ratio[:9] < 1.5).all()


def test_seed_effects_and_units_do_not_matter():
    pools, controls = scores(200, [0.1] * 6 + [1.0] * 6 + [3.0] * 6)
    shift, unit = np.array([1.0, -7.0, 3.0]), 0.01
    before, after = (
        squeeze(pools, controls),
        squeeze(unit * (pools + shift), unit * (controls + shift)),
    )
    assert after.pools == pytest.approx(before.pools * unit**2)
    assert after.df.tolist() == before.df.tolist()


def test_the_vectorised_result_is_that_of_single_studies():
    pools, controls = scores(30, [0.1] * 6 + [1.0] * 6 + [3.0] * 6)
    together = squeeze(pools, controls)
    for i in range(30):
        alone = squeeze(pools[i], controls[i])
        assert alone.pools == pytest.approx(together.pools[i])
        assert int(alone.df) == together.df[i]


def test_no_pools_and_constant_scores():
    controls = np.random.default_rng(0).normal(size=(5, 3))
    found = squeeze(np.empty((0, 3)), controls)
    assert found.pools.shape == (0,)
    assert found.controls == pytest.approx(within_variance(controls))
    with np.errstate(all="raise"):
        constant = squeeze(np.ones((4, 3)), np.ones((5, 3)))
    assert constant.controls == 0
    assert constant.pools.tolist() == [0.0] * 4
    one = squeeze(np.ones((4, 3)), controls)  # constant pools beside noisy controls
    assert one.controls > 0
