from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from djsandbox_ray.analysis.verdicts.arm_noise import ArmNoise, against_controls, rounding_of
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.dunnett import critical_value

PLAIN = 1 / 3


def study(seed=0, pools=6, controls=8, seeds=3, pool_sd=1.0):
    rng = np.random.default_rng(seed)
    common = 5 * rng.standard_normal(seeds)
    scale = np.broadcast_to(pool_sd, pools)[:, None]
    return (
        common + scale * rng.standard_normal((pools, seeds)),
        common + rng.standard_normal((controls, seeds)),
    )


def half_widths(pools, controls, draw_share=0.5, alpha=0.05, family=None):
    noise = ArmNoise.of(pools, controls, draw_share, PLAIN)
    squares = against_controls(np.isfinite(pools).sum(axis=1), *controls.shape)
    return noise.half_widths(squares, alpha, family)


@pytest.mark.parametrize("controls", [3, 5, 10])
def test_one_seed_is_students_t_of_the_means_of_the_controls(controls):
    pools, control = study(pools=1, controls=controls, seeds=1)
    error = control.std(ddof=1) * math.sqrt(1 + 1 / controls)
    freedom = controls - 1
    assert half_widths(pools, control) == pytest.approx(
        stats.t.isf(0.025, freedom) * error, rel=0.01
    )
    noise = ArmNoise.of(pools, control, 0.5, PLAIN)
    squares = against_controls(np.ones(1, int), controls, 1)
    for t in (0.3, 1.5, 4.0):
        p = noise.p_values([t * error], squares)
        assert p == pytest.approx(2 * stats.t.sf(t, freedom), rel=0.02)


def test_one_seed_and_many_pools_are_nearly_dunnetts_test():
    pools, controls = study(pools=18, controls=10, seeds=1)
    exact = critical_value(0.05, 18, 10, 9) * controls.std(ddof=1) * math.sqrt(1.1)
    found = half_widths(pools, controls)
    # Sidak's inequality is not sharp.
    assert exact < found[0] < 1.02 * exact
    assert found == pytest.approx(np.full(18, found[0]))


def test_arms_that_look_alike_have_nearly_the_noise_of_all():
    # Variances at the quantiles of theirs, means that differ by no more than seeds make them.
    design = Design(18, 30, 3, draw_share=0.001)
    ranks = (np.arange(48) * 29 % 48 + 0.5) / 48
    means = stats.norm.ppf((np.arange(30) + 0.5) / 30)
    noise = ArmNoise.infer(
        stats.chi2.ppf(ranks, 2) / 2, np.full(48, 2), means / means.std(ddof=1) / 3**0.5, design
    )
    found = noise.half_widths(against_controls(np.full(18, 3), 30, 3), 0.05)
    known = critical_value(0.05, 18, math.inf, 96) * math.sqrt((1 + 1 / 30) / 3)
    # That they are alike is not known, and more than three seeds could tell.
    assert known < np.median(found) < 1.12 * known


def test_a_noisy_pool_gets_a_wider_interval():
    scale = [1.0] * 9 + [6.0] * 9
    found = np.median(
        [half_widths(*study(seed, pools=18, pool_sd=scale)) for seed in range(20)], axis=0
    )
    assert found[9:].min() > 1.5 * found[:9].max()


def test_controls_that_are_further_apart_than_draws_of_one_dataset_can_be_widen_all_intervals():
    pools, controls = study()
    apart = controls + 40 * np.arange(8)[:, None]
    farther = controls + 400 * np.arange(8)[:, None]
    wide, wider = (half_widths(pools, each) for each in (apart, farther))
    spread = apart.mean(axis=1).std(ddof=1)
    assert wide.min() > spread
    assert wider == pytest.approx(10 * wide, rel=0.2)


def test_whole_buckets_may_add_anything():
    pools, controls = study()
    controls = controls + 3 * np.arange(8)[:, None]
    assert (half_widths(pools, controls, 1.0) > half_widths(pools, controls, 0.2)).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, 1e6), st.integers(0, 5))
def test_seed_effects_and_units_do_not_matter(unit, seed):
    pools, controls = study(seed, pool_sd=[0.1, 0.1, 1.0, 1.0, 5.0, 5.0])
    shift = np.array([3.0, -7.0, 1.0])
    found = half_widths(unit * (pools + shift), unit * (controls + shift))
    assert found == pytest.approx(unit * half_widths(pools, controls), rel=1e-5)


def test_the_p_value_of_one_pool_is_alpha_at_the_end_of_its_interval():
    pools, controls = study(pools=1)
    noise = ArmNoise.of(pools, controls, 0.5, PLAIN)
    squares = against_controls(np.full(1, 3), 8, 3)
    for alpha in (0.001, 0.05, 0.3):
        half = noise.half_widths(squares, alpha)
        assert noise.p_values(-half, squares) == pytest.approx(alpha, rel=1e-3)
    assert noise.p_values([0.0], squares) == pytest.approx(1.0)


def test_p_values_are_valid():
    found = []
    for seed in range(150):
        pools, controls = study(seed, pools=4, pool_sd=[0.5, 1.0, 1.0, 2.0])
        noise = ArmNoise.of(pools, controls, 0.5, PLAIN)
        squares = against_controls(np.full(4, 3), 8, 3)
        found.append(noise.p_values(pools.mean(axis=1) - controls.mean(), squares))
    for level in (0.05, 0.2):
        assert np.mean(np.array(found) <= level) < level + 4 * math.sqrt(level / 600)


def test_a_larger_family_and_fewer_errors_widen_intervals():
    pools, controls = study()
    plain = half_widths(pools, controls)
    assert (half_widths(pools, controls, family=7) > plain).all()
    assert (half_widths(pools, controls, alpha=0.01) > plain).all()
    # As many again as noisy as these.
    doubled = half_widths(np.concatenate([pools, pools]), controls)[:6]
    assert half_widths(pools, controls, family=12) == pytest.approx(doubled, rel=0.15)


def test_a_pool_with_few_scores_is_known_less():
    pools, controls = study(pools=9)
    whole = half_widths(pools, controls)
    holed = pools.copy()
    holed[0, 0] = holed[1, 0] = holed[1, 1] = np.nan
    noise = ArmNoise.of(holed, controls, 0.5, PLAIN)
    assert noise.df.tolist() == [1, 0, *[2] * 15]
    found = half_widths(holed, controls)
    assert found[1] > math.sqrt(2) * np.median(whole)
    assert found[0] > 0
    # Nothing is known of the second but what all others say.
    assert noise.mean[1] == pytest.approx(np.median(noise.mean), rel=0.5)


def test_no_noise():
    constant = np.tile([0.1, 0.7, 0.3], (7, 1))
    with np.errstate(all="raise"):
        noise = ArmNoise.of(constant[:2], constant, 0.5, PLAIN)
        squares = against_controls(np.full(2, 3), 7, 3)
        assert noise.half_widths(squares, 0.05).tolist() == [0.0, 0.0]
        assert noise.p_values([0.0, 0.1], squares).tolist() == [1.0, 0.0]
    # Trials of an arm are all the same, arms are not: one trial per arm says the same.
    apart = constant + 0.1 * np.arange(7)[:, None]
    found = half_widths(constant[:2], apart, 1.0)
    assert found == pytest.approx(half_widths(constant[:2, :1], apart[:, :1], 1.0))


def test_controls_that_do_not_vary_beside_pools_that_do():
    pools, _ = study()
    with np.errstate(all="raise"):
        found = half_widths(pools, np.tile(pools[0], (7, 1)))
    assert (found > 0).all()
    assert np.isfinite(found).all()


def test_the_squares_of_the_weights():
    found = against_controls(np.array([3, 1]), 2, 3)
    assert found.tolist() == [[1.0, 0.0, 0.25, 0.25], [0.0, 3.0, 0.75, 0.75]]


def test_rounding():
    assert 0 < rounding_of(np.full((3, 2), 100.0)) < 1e-12


@pytest.mark.parametrize("alpha", [0, 1, math.nan])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        half_widths(*study(), alpha=alpha)
