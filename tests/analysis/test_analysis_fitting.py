from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from djsandbox_ray.analysis.scale.fitting import SeedMeans, error_of, estimate, seed_interval


def test_replicates_of_a_mean_have_students_interval():
    values = np.array([[0.2, 0.25, 0.21, 0.3]])
    means = SeedMeans.of(values, replicates=20_000)
    low, high = np.quantile(means.replicates[:, 0], (0.025, 0.975))
    _, *expected = seed_interval(values[0])
    assert [low, high] == pytest.approx(expected, abs=0.003)


def test_replicates_keep_what_cells_have_in_common():
    seeds = np.random.default_rng(0).standard_normal(5)
    means = SeedMeans.of(np.stack([seeds, seeds + 3, -seeds]))
    moved = means.replicates - means.means
    assert moved[:, 1] == pytest.approx(moved[:, 0])
    assert moved[:, 2] == pytest.approx(-moved[:, 0])
    taken = means.take([1])
    assert (taken.replicates[:, 0] == means.replicates[:, 1]).all()
    assert taken.means == [means.means[1]]


def test_a_missing_result_counts_out_its_seed_only():
    means = SeedMeans.of(np.array([[1.0, 2.0, math.nan], [1.0, 2.0, 3.0]]))
    assert means.means.tolist() == [1.5, 2.0]
    assert means.counts.tolist() == [2, 3]
    assert np.isfinite(means.replicates).all()


def test_one_seed_gives_no_replicates():
    means = SeedMeans.of(np.array([[1.0, math.nan], [1.0, 2.0]]))
    assert means.replicates.shape == (0, 2)
    assert estimate(1.0, means.replicates[:, 0]).low is None


@pytest.mark.parametrize("cells", [np.array([[math.nan, math.nan]]), np.empty((0, 3)), np.ones(3)])
def test_cells_without_values_are_refused(cells):
    with pytest.raises(ValueError, match="each needs the value of some seed"):
        SeedMeans.of(cells)


def test_the_interval_is_students_and_leaves_nan_out():
    values = np.array([1.0, 2.0, math.nan, 4.0])
    mean, low, high = seed_interval(values)
    expected = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1, 2, 4]))
    assert mean == pytest.approx(7 / 3)
    assert (low, high) == pytest.approx(expected)
    assert math.isnan(seed_interval(np.array([1.0]))[1])
    assert all(map(math.isnan, seed_interval(np.array([math.nan]))))


def test_an_end_beyond_the_bound_is_unbounded():
    found = estimate(5.0, np.linspace(0, 100, 1001), most=50)
    assert found.low == pytest.approx(2.5)
    assert found.high is None


@pytest.mark.parametrize(
    ("metrics", "score", "expected"),
    [
        ({"a": 0.2, "b": 0.4}, None, 0.7),
        ({"a": 0.2, "b": 0.4}, ["b"], 0.6),
        ({"a": 0.2, "b": 40.0}, ["a"], 0.8),
        ({"a": 0.2, "b": 40.0}, None, math.nan),
        ({"a": -0.1}, None, math.nan),
        ({}, None, math.nan),
    ],
)
def test_the_error_of_a_trial(metrics, score, expected):
    assert error_of(metrics, score) == pytest.approx(expected, nan_ok=True)
