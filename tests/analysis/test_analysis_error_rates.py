"""Whole studies by simulation: how often the verdicts are wrong when nothing is there.

A study has 6 statistics with 3 buckets, C control arms and 3 seeds; ``m_b`` is the draw size over
the bucket size and ``data`` the share of a draw's variance that comes from its samples, the rest
coming from training. A score is

    seed effect (common to all arms) + bucket + draw + training,

with the finite-population variances: bucket data * m_b * (1 - 1/3), draw data * (1 - m_b), training
1 - data. The three buckets of a statistic partition the dataset, so their parts add up to 0 (they
are negatively correlated); a control is one bucket of a partition of its own.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from djsandbox_ray.analysis import critical_value, verdicts
from djsandbox_ray.analysis.verdicts import contrasts, half_widths

STATISTICS, BUCKETS, SEEDS, ALPHA = 6, 3, 3, 0.05
POOLS = STATISTICS * BUCKETS
STUDIES = 40_000
SETTINGS = [(0.67, 0.8), (0.67, 0.2), (0.5, 0.8), (0.5, 0.5), (0.33, 0.8), (0.33, 0.2), (0.2, 0.5)]

# More errors than this would, at a true rate of 5 %, be seen once in a thousand.
MOST_ERRORS = stats.binom.isf(0.001, STUDIES, ALPHA)


def simulate(m_b, data, controls, studies=STUDIES, seed=0):
    """Null scores of shape (studies, pools, seeds) and (studies, controls, seeds)."""
    rng = np.random.default_rng([seed, controls, round(100 * m_b), round(100 * data)])

    def buckets(partitions):
        parts = rng.standard_normal((studies, partitions, BUCKETS)) * math.sqrt(data * m_b)
        return parts - parts.mean(axis=2, keepdims=True)

    within = math.sqrt(data * (1 - m_b) + (1 - data))
    common = 3.0 * rng.standard_normal((studies, 1, SEEDS))

    def scores(arms):
        noise = within * rng.standard_normal((*arms.shape, SEEDS))
        return common + arms[..., None] + noise

    pools = buckets(STATISTICS).reshape(studies, POOLS)
    return scores(pools), scores(buckets(controls)[:, :, 0])


def decided(pools, controls):
    """Which pools get a verdict other than undecided, shape (studies, pools)."""
    effect, error = contrasts(pools, controls)
    return np.abs(effect) > half_widths(error, pools, controls.shape[-2], ALPHA)


@pytest.mark.parametrize("controls", [5, 10])
@pytest.mark.parametrize(("m_b", "data"), SETTINGS)
def test_family_wise_error_on_null_data_is_at_most_5_percent(m_b, data, controls):
    wrong = decided(*simulate(m_b, data, controls)).any(axis=1).sum()
    assert wrong <= MOST_ERRORS


@pytest.mark.parametrize(("m_b", "data"), SETTINGS)
def test_the_simulation_finds_methods_that_are_wrong(m_b, data):
    pools, controls = simulate(m_b, data, 5, studies=4000)
    effect, error = contrasts(pools, controls)
    uncorrected = np.abs(effect) > critical_value(ALPHA, 1, 5, 4) * error
    assert uncorrected.any(axis=1).mean() > 0.2
    # Seeds as replicates: the variance within arms only, pooled over all arms.
    arms = np.concatenate([pools, controls], axis=1)
    residuals = arms - arms.mean(axis=2, keepdims=True)
    residuals -= residuals.mean(axis=1, keepdims=True)
    df = (POOLS + 5 - 1) * (SEEDS - 1)
    s2 = (residuals**2).sum(axis=(1, 2)) / df / SEEDS
    within = np.abs(effect) > critical_value(ALPHA, POOLS, 5, df) * np.sqrt(s2 * 1.2)[:, None]
    assert within.any(axis=1).mean() > 0.065


@pytest.mark.parametrize(("m_b", "data"), [(0.67, 0.8), (0.33, 0.2), (0.2, 0.5)])
@pytest.mark.parametrize("controls", [5, 10])
def test_family_wise_error_with_missing_scores(m_b, data, controls):
    pools, control_scores = simulate(m_b, data, controls, seed=1)
    # A fifth of the pool's trials fail, never all of one pool.
    rng = np.random.default_rng(2)
    lost = rng.uniform(size=pools.shape) < 0.2
    lost[..., 0] &= ~lost.all(axis=-1)
    pools[lost] = np.nan
    wrong = decided(pools, control_scores).any(axis=1).sum()
    assert wrong <= MOST_ERRORS


def test_without_bucket_noise_missing_scores_keep_the_error_too():
    # Here the inflation by seeds / present is exact, so nothing is hidden by its slack.
    pools, controls = simulate(0.0, 0.5, 5, seed=3)
    pools[:, :, 0] = np.where(np.arange(POOLS) % 3 == 0, np.nan, pools[:, :, 0])
    pools[:, :, 1] = np.where(np.arange(POOLS) % 3 == 1, np.nan, pools[:, :, 1])
    pools[:, :, 2] = np.where(np.arange(POOLS) % 3 == 2, np.nan, pools[:, :, 2])
    assert decided(pools, controls).any(axis=1).sum() <= MOST_ERRORS


@pytest.mark.parametrize("controls", [5, 10])
def test_the_intervals_of_a_study_cover_all_true_effects(controls):
    pools, control_scores = simulate(0.5, 0.5, controls, seed=4)
    truth = np.linspace(-3, 3, POOLS)
    effect, error = contrasts(pools + truth[:, None], control_scores)
    half = half_widths(error, pools, controls, ALPHA)
    missed = (np.abs(effect - truth) > half).any(axis=1).sum()
    assert missed <= MOST_ERRORS
    # Nor are the intervals wider than they must be.
    assert missed >= stats.binom.ppf(0.001, STUDIES, ALPHA)


@pytest.mark.parametrize(("controls", "effect"), [(5, 9.0), (10, 5.0)])
def test_a_large_effect_is_found_and_its_sign_is_right(controls, effect):
    pools, control_scores = simulate(0.5, 0.5, controls, studies=300, seed=5)
    pools[:, 4] += effect
    pools[:, 7] -= effect
    found = 0
    for study, control in zip(pools, control_scores, strict=True):
        result = verdicts({str(i): row for i, row in enumerate(study)}, control)
        assert result[4].verdict != "worse"
        assert result[7].verdict != "better"
        found += (result[4].verdict == "better") + (result[7].verdict == "worse")
    assert found / 600 > 0.9


def test_the_vectorised_decision_is_that_of_verdicts():
    pools, controls = simulate(0.5, 0.5, 5, studies=50, seed=6)
    pools[:, 3] += 4.0
    pools[10:20, 2, 1] = np.nan
    for study, control in zip(pools, controls, strict=True):
        result = verdicts({str(i): row for i, row in enumerate(study)}, control)
        assert [v.verdict != "undecided" for v in result] == decided(study, control).tolist()
