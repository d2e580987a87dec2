from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from djsandbox_ray.analysis.verdicts.variances import (
    alike,
    arm_variances,
    between_variance,
    inverse_trigamma,
    prior_df,
    shrunken,
    within_variance,
)


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


def test_known_values_of_trigamma():
    known = {1.0: math.pi**2 / 6, 0.5: math.pi**2 / 2, 2.0: math.pi**2 / 6 - 1}
    assert inverse_trigamma(list(known.values())) == pytest.approx(list(known))


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_inverse_trigamma(x):
    assert special.polygamma(1, inverse_trigamma(x)) == pytest.approx(x, rel=1e-8)


def test_the_values_of_d0_stand_for_a_spread_of_log_variances():
    d0, log_prior = prior_df()
    assert np.exp(log_prior).sum() == pytest.approx(1)
    assert (np.diff(d0) < 0).all()
    # A log-sd of .6 of arms' noise is one of 1.2 of their variances.
    drawn = np.log(stats.chi2.rvs(d0[6], size=400_000, random_state=0) / d0[6])
    assert drawn.std() == pytest.approx(1.25, rel=0.01)


VARIANCES = np.array([0.3, 2.0, 0.8, 5.0, 1.1, 0.02, 7.0])
DF = np.array([2, 2, 2, 2, 1, 3, 0])
"""Of the last arm nothing is known: its variance is s0^2."""


def test_the_likelihood_is_that_of_the_f_distribution():
    found = shrunken(VARIANCES, DF)
    d0, log_prior = prior_df()
    known = DF > 0
    s2, d = VARIANCES[known], DF[known]
    expected = np.empty_like(found.log_likelihood)
    for i, own in enumerate(d0):
        information = (d * own / (2 * (d + own + 2))).sum()
        for k, level in enumerate(found.variances[i, :, -1]):
            fit = stats.f.logpdf(s2 / level, d, own).sum() - len(s2) * math.log(level)
            expected[i, k] = fit - 0.5 * math.log(information) + log_prior[i]
    difference = found.log_likelihood - expected
    assert difference == pytest.approx(np.full(difference.shape, difference[0, 0]), abs=1e-5)


def test_variances_are_shrunken_as_in_limma():
    found = shrunken(VARIANCES, DF)
    level = found.variances[..., -1:]
    d0 = found.d0[:, None, None]
    assert found.variances == pytest.approx((d0 * level + DF * VARIANCES) / (d0 + DF))
    # Where all are alike, what is likeliest is their mean, weighted by degrees of freedom.
    middle = found.variances[0, found.variances.shape[1] // 2]
    assert middle == pytest.approx(np.full(7, (DF * VARIANCES).sum() / DF.sum()), rel=1e-4)


@pytest.mark.parametrize("truth", [0.8, 2.07, 6.5, math.inf])
def test_d0_is_found_in_many_arms(truth):
    rng = np.random.default_rng(1)
    scale = 1.0 if math.isinf(truth) else truth / rng.chisquare(truth, 4000)
    found = shrunken(3 * scale * rng.chisquare(2, 4000) / 2, np.full(4000, 2))
    best = np.unravel_index(found.log_likelihood.argmax(), found.log_likelihood.shape)
    place = np.abs(1 / found.d0 - 1 / truth).argmin()
    assert abs(best[0] - place) <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=20), st.floats(1e-6, 1e6))
def test_units_do_not_matter(variances, unit):
    s2, df = np.array(variances), np.full(len(variances), 2)
    plain, scaled = shrunken(s2, df), shrunken(unit * s2, df)
    assert scaled.variances == pytest.approx(unit * plain.variances, rel=1e-6)
    difference = scaled.log_likelihood - plain.log_likelihood
    assert np.ptp(difference) < 1e-3


def test_one_variance_for_all():
    found = alike(0.7, 4)
    assert found.variances.tolist() == [[[0.7] * 4]]
    assert found.d0 > 1e5
