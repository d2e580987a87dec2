from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulations import ALPHA, FACTORS, arms_of, combination, exact, groups, mostly_slow, simulate

from djsandbox_ray.analysis.together.surrogate import surrogate

FOUR = "abcd"
STUDIES = 100
NUMBERS = st.floats(-10, 10, width=32)


def pairwise(mains, pairs, factors=FOUR):
    """A truth without interactions of three and more."""
    of_pair = dict(zip(combinations(factors, 2), pairs, strict=True))
    return {
        group: sum(main for name, main in zip(factors, mains, strict=True) if name in group)
        + sum(value for pair, value in of_pair.items() if set(pair) <= group)
        for group in groups(factors)
    }


@settings(deadline=None)
@given(
    st.lists(NUMBERS, min_size=4, max_size=4),
    st.lists(NUMBERS, min_size=6, max_size=6),
    st.sets(st.sampled_from([g for g in groups(FOUR) if len(g) > 2]), max_size=4),
)
def test_a_truth_of_main_and_pairwise_effects_is_predicted_exactly(mains, pairs, missing):
    truth = pairwise(mains, pairs)
    known = {group: value for group, value in truth.items() if group not in missing}
    found = surrogate(exact(known), FOUR)
    assert found.notes == ()
    assert len(found.rows) == 5
    assert [row.held_out for row in found.rows] == [True] * (5 - len(missing)) + [False] * len(
        missing
    )
    for row in found.rows:
        group = frozenset(row.pool.split("&"))
        assert row.predicted == pytest.approx(truth[group], abs=1e-9)
        assert row.held_out == (group not in missing)
        if row.held_out:
            assert row.measured == pytest.approx(truth[group], abs=1e-9)
        else:
            assert math.isnan(row.measured)


def test_what_the_model_leaves_out_shows_in_the_held_out_combination():
    truth = {group: float(len(group) == 3) for group in groups()}
    (row,) = surrogate(exact(truth), FACTORS).rows
    assert (row.pool, row.held_out) == ("a&b&c", True)
    assert row.predicted == pytest.approx(0.0, abs=1e-12)
    assert row.measured == pytest.approx(1.0)
    assert row.high < row.measured


@pytest.mark.parametrize("untrained", mostly_slow([False, True], True))
def test_predictions_hold_what_is_measured_in_95_percent_of_studies(untrained):
    rng = np.random.default_rng(8)
    truth = list(pairwise([1.0, 2.0, 0.0], [-1.0, 0.5, 3.0], FACTORS).values())
    arms, controls = simulate(rng, STUDIES, truth, data=0.5)
    misses = 0
    for scores, control_scores in zip(arms, controls, strict=True):
        known = dict(zip(groups(), scores, strict=True))
        # A combination that is not trained is trained after all, to see.
        later = known.pop(combination("abc")) if untrained else known[combination("abc")]
        (row,) = surrogate(arms_of(known, control_scores), FACTORS, ALPHA).rows
        assert row.held_out != untrained
        misses += not row.low <= (later - control_scores.mean(axis=0)).mean() <= row.high
    assert misses <= stats.binom.isf(0.001, STUDIES, ALPHA)
    # Not by being wide beyond use either.
    assert misses >= stats.binom.ppf(0.001, STUDIES, ALPHA / 4)


def test_the_same_interval_whether_a_combination_is_held_out_or_not_trained():
    arms, controls = simulate(np.random.default_rng(9), 1, np.zeros(7), m_b=1.0, seeds=1)
    known = dict(zip(groups(), arms[0], strict=True))
    # With one seed the variance comes from the controls alone, and is the same.
    (held_out,) = surrogate(arms_of(known, controls[0], draw_share=1.0), FACTORS).rows
    del known[combination("abc")]
    (untrained,) = surrogate(arms_of(known, controls[0], draw_share=1.0), FACTORS).rows
    assert [untrained.low, untrained.high] == pytest.approx([held_out.low, held_out.high])


def test_an_arm_with_fewer_seeds_weighs_less():
    truth = pairwise([1.0] * 4, [0.0] * 6)
    scores = {group: np.full(3, value) for group, value in truth.items()}
    scores[combination("abc")] = np.array([30.0, math.nan, math.nan])
    controls = np.random.default_rng(10).normal(0, 0.1, (5, 3))
    few = {row.pool: row for row in surrogate(arms_of(scores, controls), FOUR).rows}
    scores[combination("abc")] = np.full(3, 30.0)
    all_seeds = {row.pool: row for row in surrogate(arms_of(scores, controls), FOUR).rows}
    assert abs(few["a&b&c&d"].predicted - 4) < abs(all_seeds["a&b&c&d"].predicted - 4)


def test_too_few_arms_are_said_to_be_too_few():
    singles = exact({group: 1.0 for group in groups() if len(group) == 1})
    found = surrogate(singles, FACTORS)
    assert found.rows == ()
    assert found.notes == (
        "Too few arms to predict a & b, a & c, b & c, a & b & c from main and pairwise effects.",
    )
    two = surrogate(exact(dict.fromkeys(groups("ab"), 1.0)), "ab")
    assert two.rows == ()
    assert two.notes[0].startswith("Nothing to predict")
