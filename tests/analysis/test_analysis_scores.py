from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.analysis.verdicts.scores import relative_change
from djsandbox_ray.records import Aggregate

# Table 9 of "Data-Juicer Sandbox" (arXiv 2407.11784).
BASELINE = [59.2, 51.6, 1334, 302]
DATA_JUICER = [62.08, 52.32, 1323.37, 311.07]

values = st.floats(0.01, 1e4)


def test_the_papers_equation_1_on_its_table_9():
    assert round(100 * relative_change(DATA_JUICER, BASELINE, "pooled"), 2) == 0.12


def test_the_papers_published_figure_is_the_mean_of_relative_changes():
    assert round(100 * relative_change(DATA_JUICER, BASELINE, "mean_relative"), 2) == 2.12


def test_standardized_counts_in_control_noise():
    change = relative_change([0.5, 30.0], [0.4, 32.0], Aggregate.STANDARDIZED, noise=[0.05, 4.0])
    assert change == pytest.approx((2.0 - 0.5) / 2)


def test_zero_is_a_score_like_any_other():
    assert relative_change([0.0, 2.0], [1.0, 1.0], "pooled") == 0.0
    assert relative_change([0.0], [2.0], "mean_relative") == -1.0
    assert relative_change([0.0, 2.0], [0.0, 1.0], "pooled") == 1.0


@given(
    st.lists(st.tuples(values, values, values), min_size=1, max_size=6), st.sampled_from(Aggregate)
)
def test_no_change_is_zero_and_seeds_may_be_averaged_first(metrics, aggregate):
    first, second, baseline = (list(column) for column in zip(*metrics, strict=True))
    noise = [1.0] * len(baseline)

    def change(scores):
        return relative_change(scores, baseline, aggregate, noise=noise)

    assert change(baseline) == 0.0
    mean = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert change(mean) == pytest.approx((change(first) + change(second)) / 2, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("aggregate", Aggregate)
@pytest.mark.parametrize(
    ("scores", "baseline", "message"),
    [
        ([1.0, 2.0], [1.0], "scores has 2 values and baseline 1"),
        ([], [], r"scores has shape \(0,\)"),
        ([[1.0]], [[1.0]], r"scores has shape \(1, 1\)"),
        ([1.0, math.nan], [1.0, 1.0], r"scores\[1\] is nan"),
        ([1.0], [math.inf], r"baseline\[0\] is inf"),
        (["a"], [1.0], "scores must be a sequence of numbers"),
        ([None], [1.0], r"scores\[0\] is nan"),
    ],
)
def test_bad_metrics(scores, baseline, aggregate, message):
    with pytest.raises(ValueError, match=message):
        relative_change(scores, baseline, aggregate, noise=[1.0] * len(baseline))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_baseline_that_cannot_be_divided_by(value):
    with pytest.raises(ValueError, match=r"baseline\[1\].*must be positive"):
        relative_change([1.0, 1.0], [1.0, value], "mean_relative")
    with pytest.raises(ValueError, match=r"sum of the baseline.*must be positive"):
        relative_change([1.0], [value], "pooled")
    assert relative_change([1.0], [value], "standardized", noise=[2.0]) == (1.0 - value) / 2


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (None, "needs noise"),
        ([1.0, 0.0], r"noise\[1\].*must be positive"),
        ([1.0, -1.0], r"noise\[1\].*must be positive"),
        ([1.0], "noise has 1 values"),
        ([1.0, math.nan], r"noise\[1\] is nan"),
    ],
)
def test_bad_noise(noise, message):
    with pytest.raises(ValueError, match=message):
        relative_change([1.0, 2.0], [1.0, 1.0], "standardized", noise=noise)


def test_an_unknown_aggregate_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'median'.*pooled, mean_relative, standardized"):
        relative_change([1.0], [1.0], "median")


def test_numpy_arrays_are_welcome():
    assert relative_change(np.array([2.0]), np.array([1.0]), "pooled") == 1.0
