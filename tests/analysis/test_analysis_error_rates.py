"""Whole studies by simulation: how often the verdicts are wrong where all arms are equally noisy.

A study has 6 statistics with 3 buckets, C control arms and 3 seeds; see ``null_studies``. Unequal
noise has its own module.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from null_studies import ALPHA, PLAIN, Intervals, World, intervals
from scipy import stats
from simulations import mostly_slow

from djsandbox_ray.analysis.verdicts.dunnett import critical_value
from djsandbox_ray.analysis.verdicts.variances import between_variance
from djsandbox_ray.analysis.verdicts.verdicts import verdicts

DEFAULT = World(controls=8)
POOLS, SEEDS = DEFAULT.pools, DEFAULT.seeds
STUDIES = 150
"""Of a small simulation; a large one has ten times as many."""
RARELY = 1e-4
SETTINGS = [(0.67, 0.8), (0.67, 0.2), (0.5, 0.8), (0.5, 0.5), (0.33, 0.8), (0.33, 0.2), (0.2, 0.5)]
TRIMMED = [(1 / 6, 1.0), (1 / 6, 0.8), (1 / 60, 1.0), (1 / 60, 0.8)]


def most_errors(studies, alpha=ALPHA):
    """More errors than this are seen once in ten thousand times at a true rate of ``alpha``."""
    return stats.binom.isf(RARELY, studies, alpha)


@pytest.mark.parametrize("controls", mostly_slow([5, 10], 5))
@pytest.mark.parametrize(("m_b", "data"), mostly_slow(SETTINGS, (0.67, 0.8), (0.5, 0.5)))
def test_family_wise_error_on_null_data_is_at_most_5_percent(m_b, data, controls):
    found = World(controls=controls, draw_share=m_b, data=data).judged(STUDIES)
    assert found.missed() <= most_errors(STUDIES)


@pytest.mark.slow
@pytest.mark.parametrize("controls", [5, 10])
@pytest.mark.parametrize(("m_b", "data"), [*SETTINGS, (0.5, 1.0), (0.5, 0.0), (0.67, 1.0)])
def test_family_wise_error_on_null_data_in_many_studies(m_b, data, controls):
    found = World(controls=controls, draw_share=m_b, data=data).judged(10 * STUDIES)
    assert found.missed() <= most_errors(10 * STUDIES)


@pytest.mark.parametrize("controls", mostly_slow([5, 10], 5))
@pytest.mark.parametrize("m_b", mostly_slow([0.67, 0.5], 0.5))
@pytest.mark.parametrize(("share", "data"), mostly_slow(TRIMMED, (1 / 60, 1.0)))
def test_family_wise_error_with_trimmed_buckets_is_at_most_5_percent(share, data, m_b, controls):
    world = World(controls=controls, draw_share=m_b, data=data, share=share)
    _, control_scores = world.scores(20_000)
    spread = control_scores.mean(axis=2).var(axis=1, ddof=1).mean()
    truth = data * m_b * (1 - share) + (1 - data * m_b) / SEEDS
    assert spread == pytest.approx(truth, rel=0.03)
    assert world.judged(STUDIES).missed() <= most_errors(STUDIES)


@pytest.mark.parametrize("controls", mostly_slow([8, 10], 8))
@pytest.mark.parametrize("data", mostly_slow([0.0, 0.2, 0.8, 1.0], 1.0))
def test_family_wise_error_with_whole_buckets(controls, data):
    found = World(controls=controls, draw_share=1.0, data=data).judged(STUDIES)
    assert found.missed() <= most_errors(STUDIES)


@pytest.mark.parametrize(("m_b", "data"), mostly_slow(SETTINGS, (0.5, 0.5)))
def test_the_simulation_finds_methods_that_are_wrong(m_b, data):
    pools, controls = World(controls=5, draw_share=m_b, data=data).scores(4000)
    effect = pools.mean(axis=2) - controls.mean(axis=(1, 2))[:, None]
    error = np.sqrt(1.2 * between_variance(controls))[:, None]
    uncorrected = np.abs(effect) > critical_value(ALPHA, 1, 5, 4) * error
    assert uncorrected.any(axis=1).mean() > 0.2


def test_the_error_is_greater_where_buckets_are_taken_to_add_nothing():
    pools, controls = World(controls=5, data=1.0).scores(STUDIES)
    held, as_if = intervals(pools, controls, 0.5), intervals(pools, controls, 1e-6)
    assert as_if.missed() > held.missed() + 0.03 * STUDIES


@pytest.mark.parametrize(
    ("m_b", "data"), mostly_slow([(0.67, 0.8), (0.5, 0.8), (0.2, 0.5), (1.0, 0.5)], (0.5, 0.8))
)
@pytest.mark.parametrize("controls", mostly_slow([5, 10], 5))
def test_family_wise_error_with_missing_scores(m_b, data, controls):
    world = World(controls=controls, draw_share=m_b, data=data)
    pools, control_scores = world.scores(STUDIES, seed=1)
    pools[:, ::4, 0] = np.nan
    pools[:, 1::6, 1:] = np.nan
    assert intervals(pools, control_scores, m_b).missed() <= most_errors(STUDIES)


@pytest.mark.parametrize("data", mostly_slow([0.2, 0.35, 0.5, 0.65, 0.8], 0.5))
def test_coverage_of_planted_effects_at_the_default_design(data):
    pools, controls = replace(DEFAULT, data=data).scores(STUDIES, seed=4)
    truth = np.linspace(-3, 3, POOLS)
    found = intervals(pools + truth[:, None], controls, DEFAULT.draw_share)
    assert found.missed(truth) <= most_errors(STUDIES)


def test_giving_up_the_worst_pools_early_leaves_the_error_where_it_was():
    pools, controls = replace(DEFAULT, data=0.8).scores(STUDIES, seed=8)
    # Whoever is behind after the first seed is given up; the family stays as large as it was.
    keep = np.argsort(pools[:, :, 0], axis=1)[:, POOLS // 2 :]
    kept = np.take_along_axis(pools, keep[..., None], axis=1)
    assert intervals(kept, controls, 0.5, family=POOLS).missed() <= most_errors(STUDIES)


@pytest.mark.parametrize("data", mostly_slow([0.2, 0.8], 0.8))
def test_ruined_pools_do_not_make_the_verdicts_on_others_wrong(data):
    pools, controls = replace(DEFAULT, data=data).scores(STUDIES, seed=9)
    common = controls.mean(axis=1, keepdims=True)
    pools[:, :3] = common + 0.1 * (pools[:, :3] - common)
    found = intervals(pools, controls, 0.5)
    assert found.missed() <= most_errors(STUDIES)
    # They widen the intervals of others: arms as different as that may hide noisy ones.
    alike = intervals(*replace(DEFAULT, data=data).scores(STUDIES, seed=9), 0.5)
    others = Intervals(found.effect[:, 3:], found.half[:, 3:])
    assert alike.width < others.width < 1.6 * alike.width


def test_pools_twice_as_noisy_as_the_controls():
    scale = np.repeat([1.0, 2.0], [12, 6])
    pools, controls = DEFAULT.scores(STUDIES, seed=10)
    common = controls.mean(axis=1, keepdims=True)
    pools = common + scale[:, None] * (pools - common)
    # A third of all; where all were taken to be alike it was 20 %.
    assert intervals(pools, controls, 0.5).missed() <= most_errors(STUDIES, 0.1)


@pytest.mark.parametrize(("controls", "effect"), mostly_slow([(5, 7.0), (10, 4.5)], (10, 4.5)))
def test_a_large_effect_is_found_and_its_sign_is_right(controls, effect):
    pools, control_scores = World(controls=controls).scores(100, seed=5)
    pools[:, 4] += effect
    pools[:, 7] -= effect
    found = 0
    for study, control in zip(pools, control_scores, strict=True):
        rows = {str(i): row for i, row in enumerate(study)}
        result = verdicts(rows, control, draw_share=0.5)
        assert result[4].verdict != "worse"
        assert result[7].verdict != "better"
        found += (result[4].verdict == "better") + (result[7].verdict == "worse")
    assert found / 200 > 0.9


@pytest.mark.parametrize("draw_share", [0.5, 1.0])
def test_the_intervals_of_simulations_are_those_of_verdicts(draw_share):
    pools, controls = replace(DEFAULT, draw_share=draw_share, log_sd=0.5).scores(4, seed=6)
    for holes in (False, True):
        if holes:
            pools[:, 2, 1] = np.nan
        together = intervals(pools, controls, draw_share, share=PLAIN)
        for i in range(4):
            rows = {str(k): row for k, row in enumerate(pools[i])}
            single = verdicts(rows, controls[i], draw_share=draw_share)
            assert [v.effect for v in single] == pytest.approx(together.effect[i])
            assert [v.high - v.effect for v in single] == pytest.approx(together.half[i])
