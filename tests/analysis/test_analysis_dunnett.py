from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from djsandbox_ray.analysis.verdicts.dunnett import critical_value


@pytest.mark.parametrize("df", [1, 4, 30, 1e5])
@pytest.mark.parametrize("controls", [1, 5, math.inf])
@pytest.mark.parametrize("alpha", [1e-9, 0.05, 0.999])
def test_the_critical_value_of_one_pool_is_students(alpha, controls, df):
    expected = stats.t.isf(alpha / 2, df)
    assert critical_value(alpha, 1, controls, df) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("treatments", "size"), [(2, 4), (3, 3)])
def test_agrees_with_scipys_dunnett(treatments, size):
    # scipy pools the variance over all groups of `size` observations. The t-values below are those
    # of group means, so a group is an arm; equal groups mean rho = 1/2 (one control), with that df.
    rng = np.random.default_rng(5)
    groups = rng.normal(size=(treatments, size)) + np.arange(treatments)[:, None]
    control = rng.normal(size=size)
    reference = stats.dunnett(*groups, control=control, random_state=0)
    df = (treatments + 1) * (size - 1)
    ours = [critical_value(p, treatments, 1, df) for p in reference.pvalue]
    assert ours == pytest.approx(np.abs(reference.statistic), abs=2e-3)


def test_agrees_with_scipys_dunnett_when_the_control_group_is_larger():
    # Treatment groups of n and a control group of C n observations: rho = 1 / (1 + C).
    rng = np.random.default_rng(6)
    groups, control = rng.normal(size=(3, 3)) + 0.8, rng.normal(size=15)
    reference = stats.dunnett(*groups, control=control, random_state=0)
    ours = [critical_value(p, 3, 5, 3 * 2 + 14) for p in reference.pvalue]
    assert ours == pytest.approx(np.abs(reference.statistic), abs=2e-3)


@pytest.mark.parametrize("controls", [5, 10])
@pytest.mark.parametrize("df", [4, 9])
def test_agrees_with_monte_carlo(controls, df):
    rng = np.random.default_rng(controls + df)
    studies, pools = 100_000, 20
    arms = rng.standard_normal((studies, pools))
    control = rng.standard_normal(studies) / math.sqrt(controls)
    s = np.sqrt(rng.chisquare(df, studies) / df)
    largest = np.abs(arms - control[:, None]).max(axis=1) / (s * math.sqrt(1 + 1 / controls))
    for alpha in (0.01, 0.05, 0.5):
        c = critical_value(alpha, pools, controls, df)
        share = float((largest > c).mean())
        assert abs(share - alpha) < 4 * math.sqrt(alpha * (1 - alpha) / studies)


def test_tabulated_values():
    # Values as tables of Dunnett's two-sided test and of the studentized maximum modulus are
    # remembered to have them, not read off the papers: the proof is the comparison with scipy and
    # with Monte Carlo above, this is a look from a third side.
    assert critical_value(0.05, 2, 1, 10) == pytest.approx(2.57, abs=0.005)
    assert critical_value(0.05, 9, 1, 20) == pytest.approx(2.95, abs=0.005)
    assert critical_value(0.05, 3, math.inf, 10) == pytest.approx(2.829, abs=0.002)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 0.9), st.integers(1, 100), st.integers(1, 30), st.integers(1, 60))
def test_lies_between_one_pool_and_bonferroni_and_grows_with_independence(
    alpha, pools, controls, df
):
    c = critical_value(alpha, pools, controls, df)
    assert stats.t.isf(alpha / 2, df) <= c * (1 + 1e-9)
    assert c <= stats.t.isf(alpha / (2 * pools), df) * (1 + 1e-9)
    assert c <= critical_value(alpha, pools, math.inf, df) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 4), "pools is 0"),
        ((5, 0, 4), "controls is 0"),
        ((5, 5, 0), "df is 0"),
        ((5, 5, math.nan), "df is nan"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        critical_value(0.05, *arguments)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, math.nan])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="alpha"):
        critical_value(alpha, 5, 5, 4)
