from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from null_studies import intervals
from simulations import mostly_slow

from djsandbox_ray.analysis.planning.power import (
    cheapest_designs,
    detectable_effect,
    power,
    rescale,
)
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.verdicts import verdicts
from djsandbox_ray.errors import BadInput

DEFAULT = Design(pools=18, controls=8, seeds=3, draw_share=0.5)
BUCKETS = 3
WHOLE = replace(DEFAULT, draw_share=1.0)

designs = st.sampled_from(
    [DEFAULT, WHOLE, replace(WHOLE, seeds=1), replace(DEFAULT, pools=4, controls=5, draw_share=0.3)]
)
variances = st.floats(1e-6, 1e6)


def components(design, data):
    """Variances within arms and of buckets, of a draw's variance of 1, ``data`` from samples."""
    m_b = design.draw_share
    return data * (1 - m_b) + (1 - data), data * m_b * (1 - design.bucket_share)


def simulate(design, data, effect, studies, seed=0):
    """Scores (studies, pools, seeds) with an effect in every third pool, and of the controls.

    The buckets of a statistic partition the dataset: what they have of its noise adds up to 0.
    """
    rng = np.random.default_rng([seed, round(100 * data), design.seeds])
    within, bucket = components(design, data)

    def arms(partitions):
        parts = rng.standard_normal((studies, partitions, BUCKETS))
        parts = (parts - parts.mean(axis=2, keepdims=True)) / math.sqrt(1 - 1 / BUCKETS)
        return parts * math.sqrt(bucket)

    common = 3.0 * rng.standard_normal((studies, 1, design.seeds))

    def scores(means):
        noise = rng.standard_normal((*means.shape, design.seeds))
        return common + means[..., None] + math.sqrt(within) * noise

    pools = arms(design.pools // BUCKETS)
    pools[:, :, 0] += effect
    pools = pools.reshape(studies, design.pools)
    return scores(pools), scores(arms(design.controls)[:, :, 0])


@pytest.mark.parametrize(
    ("design", "data", "target"),
    mostly_slow(
        [(d, x, p) for d in (DEFAULT, WHOLE) for x in (0.2, 0.5, 0.8) for p in (0.3, 0.8)],
        (DEFAULT, 0.5, 0.8),
        (WHOLE, 0.8, 0.3),
    ),
)
def test_the_power_of_simulated_studies(design, data, target):
    effect = detectable_effect(*components(design, data), design, power=target)
    studies = 400
    pools, controls = simulate(design, data, effect, studies=studies)
    found = intervals(pools, controls, design.draw_share)
    better = (found.effect > found.half)[:, ::BUCKETS].mean(axis=1)
    error = better.std() / math.sqrt(studies)
    assert better.mean() == pytest.approx(target, abs=0.03 + 4 * error)


@pytest.mark.parametrize("data", mostly_slow([0.2, 0.8], 0.8))
def test_the_power_of_the_verdicts_themselves(data):
    effect = detectable_effect(*components(DEFAULT, data), DEFAULT)
    found = []
    for pools, controls in zip(*simulate(DEFAULT, data, effect, 200, seed=1), strict=True):
        scores = {str(i): row for i, row in enumerate(pools)}
        result = verdicts(scores, controls, draw_share=DEFAULT.draw_share)
        found += [verdict.verdict == "better" for verdict in result[::BUCKETS]]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


@settings(max_examples=20, deadline=None)
@given(designs, variances, st.floats(0, 1), st.floats(0.1, 0.99), st.sampled_from([0.01, 0.05]))
def test_detectable_effect_and_power_are_inverse(design, within, share, target, alpha):
    bucket = share * within
    effect = detectable_effect(within, bucket, design, alpha, target)
    assert power(effect, within, bucket, design, alpha) == pytest.approx(target, abs=1e-8)
    assert power(1.01 * effect, within, bucket, design, alpha) > target


@settings(max_examples=30, deadline=None)
@given(designs, st.floats(1e-3, 1e3), st.floats(0, 1), st.floats(1e-3, 1e3))
def test_only_effects_in_units_of_the_noise_matter(design, within, share, unit):
    plain = detectable_effect(within, share * within, design)
    scaled = detectable_effect(unit**2 * within, unit**2 * share * within, design)
    assert scaled == pytest.approx(unit * plain, rel=1e-6)


def test_power_grows_with_effect_seeds_controls_and_alpha():
    within, bucket = components(DEFAULT, 0.5)

    def chances(**changes):
        name, values = next(iter(changes.items()))
        return [power(2.5, within, bucket, replace(DEFAULT, **{name: v})) for v in values]

    # With one seed all arms are taken to be equally noisy: two tell that, and little more.
    assert np.all(np.diff(chances(seeds=[2, 3, 5])) > 0)
    assert np.all(np.diff(chances(controls=[3, 8, 20])) > 0)
    assert np.all(np.diff(chances(pools=[1, 18, 90])) < 0)
    assert power(2.5, within, bucket, DEFAULT, 0.1) > power(2.5, within, bucket, DEFAULT, 0.05)
    # Of pools without an effect, half of the errors are to this side, shared by 18 pools.
    assert 0 < power(0.0, within, bucket, DEFAULT) < 0.025
    assert power(-9.0, within, bucket, DEFAULT) < 1e-6
    assert power(99.0, within, bucket, DEFAULT) == pytest.approx(1.0)


def test_without_noise_every_effect_is_found():
    assert detectable_effect(0.0, 0.0, DEFAULT) == 0.0
    assert power(1e-9, 0.0, 0.0, DEFAULT) == 1.0
    assert power(0.0, 0.0, 0.0, DEFAULT) == 0.0


@pytest.mark.parametrize("data", [0.0, 0.3, 1.0])
def test_rescaling_follows_the_finite_population(data):
    # The variance of a draw is 1 at half a bucket of three; it goes with 1 / rows.
    within, bucket = components(DEFAULT, data)
    for share, bucket_share in [(0.5, 1 / 3), (0.2, 1 / 3), (1.0, 1 / 3), (0.5, 0.5), (1.0, 0.02)]:
        samples = data * (0.5 / 3) / (share * bucket_share)
        planned = replace(DEFAULT, draw_share=share, bucket_share=bucket_share)
        expected = samples * (1 - share) + 1 - data, samples * share * (1 - bucket_share)
        assert rescale(within, bucket, DEFAULT, planned) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), *[st.tuples(st.floats(0.05, 1), st.floats(0.01, 0.5))] * 2)
def test_rescaling_there_and_back(data, measured, planned):
    first, second = (
        replace(DEFAULT, draw_share=draw, bucket_share=bucket)
        for draw, bucket in (measured, planned)
    )
    noise = components(first, data)
    assert rescale(*rescale(*noise, first, second), second, first) == pytest.approx(noise)


@pytest.mark.slow
@pytest.mark.parametrize("data", [0.2, 0.8])
def test_the_cheapest_design_is_that_of_a_search_through_all(data):
    measured = Design(pools=6, controls=6, seeds=3)
    noise = components(measured, data)
    effect, shares = 3.5, (0.25, 0.5, 1.0)
    plans = cheapest_designs(effect, *noise, measured, draw_shares=shares)
    assert plans
    for share in shares:
        template = replace(measured, draw_share=share)
        there = rescale(*noise, measured, template)
        plan = next((plan for plan in plans if plan.design.draw_share == share), None)
        limit = plan.trials if plan else 80
        found = [
            (measured.pools + controls) * seeds
            for seeds in range(1 if share == 1 else 2, limit // 11 + 1)
            for controls in range(8 if share == 1 else 5, limit // seeds - measured.pools + 1)
            if controls <= 40
            and power(effect, *there, replace(template, controls=controls, seeds=seeds)) >= 0.8
        ]
        assert (min(found) if found else None) == (plan.trials if plan else None)
        if plan:
            assert plan.power == pytest.approx(power(effect, *there, plan.design))
            assert plan.power >= 0.8
            assert plan.detectable <= effect


@pytest.mark.slow
def test_alternatives_are_sorted_by_cost_and_include_whole_buckets():
    noise = components(DEFAULT, 0.2)
    plans = cheapest_designs(4.0, *noise, DEFAULT)
    assert [plan.trials for plan in plans] == sorted(plan.trials for plan in plans)
    assert len({plan.design.draw_share for plan in plans}) == len(plans) == 4
    for plan in plans:
        assert plan.trials == (plan.design.pools + plan.design.controls) * plan.design.seeds
        assert plan.design.pools == DEFAULT.pools
        assert plan.design.bucket_share == DEFAULT.bucket_share
    whole = next(plan for plan in plans if plan.design.draw_share == 1)
    assert whole.design.controls >= 8
    # A large effect is found by one draw per arm, the way of the paper.
    large = cheapest_designs(9.0, *noise, DEFAULT, draw_shares=[0.5, 1.0])
    assert large[0].design == Design(pools=18, controls=8, seeds=1, draw_share=1.0)


def test_a_budget_and_an_effect_below_the_buckets_noise():
    noise, shares = components(DEFAULT, 0.5), (0.5, 1.0)
    plans = cheapest_designs(3.5, *noise, DEFAULT, draw_shares=shares)
    least = plans[0].trials
    assert (
        cheapest_designs(3.5, *noise, DEFAULT, draw_shares=shares, max_trials=least)[0] == plans[0]
    )
    assert cheapest_designs(3.5, *noise, DEFAULT, draw_shares=shares, max_trials=least - 1) == []
    assert cheapest_designs(1.0, *noise, DEFAULT) == []
    # Training noise alone is averaged away by seeds.
    assert cheapest_designs(1.3, 1.0, 0.0, DEFAULT, draw_shares=[1.0])


@pytest.mark.parametrize(
    ("within", "bucket", "design", "alpha", "message"),
    [
        (-1.0, 0.0, DEFAULT, 0.05, "'within' is -1.0"),
        (math.nan, 0.0, DEFAULT, 0.05, "'within' is nan"),
        (1.0, -0.1, DEFAULT, 0.05, "'bucket' is -0.1"),
        (1.0, math.inf, DEFAULT, 0.05, "'bucket' is inf"),
        (1.0, 0.0, replace(DEFAULT, controls=2), 0.05, "2 control arms; at least 3"),
        (1.0, 0.0, DEFAULT, 0.0, "alpha is 0.0"),
        (1.0, 0.0, DEFAULT, math.nan, "alpha is nan"),
    ],
)
def test_bad_noise_or_design(within, bucket, design, alpha, message):
    with pytest.raises(BadInput, match=message):
        power(1.0, within, bucket, design, alpha)
    with pytest.raises(BadInput, match=message):
        detectable_effect(within, bucket, design, alpha)
    with pytest.raises(BadInput, match=message):
        cheapest_designs(1.0, within, bucket, design, alpha=alpha)


@pytest.mark.parametrize("target", [0.05, 1.0, math.nan])
def test_bad_power(target):
    with pytest.raises(BadInput, match="the power is"):
        detectable_effect(1.0, 0.0, DEFAULT, power=target)
    with pytest.raises(BadInput, match="the power is"):
        cheapest_designs(1.0, 1.0, 0.0, DEFAULT, power=target)


def test_bad_effects_and_draw_shares():
    with pytest.raises(BadInput, match="the effect is nan"):
        power(math.nan, 1.0, 0.0, DEFAULT)
    for effect in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(BadInput, match="the effect is"):
            cheapest_designs(effect, 1.0, 0.0, DEFAULT)
    with pytest.raises(BadInput, match=r"a draw share is 1\.5"):
        cheapest_designs(1.0, 1.0, 0.0, DEFAULT, draw_shares=[1.5, 0.5])
