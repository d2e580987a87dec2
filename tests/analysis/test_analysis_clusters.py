from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from factories import pool, rung_report, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from djsandbox_ray.analysis.together.clusters import best_of_each, distances, metric_profiles, ward
from djsandbox_ray.analysis.together.correlation import MIN_ROWS, CoMoments, correlate
from djsandbox_ray.analysis.verdicts.second_look import Candidate
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import (
    TrialState,
)


def groups(seed: int, sizes: list[int], noise: float = 0.5) -> tuple[list[str], np.ndarray]:
    """Columns that belong together follow one hidden column, half of them turned round."""
    rng = np.random.default_rng(seed)
    names, columns = [], []
    for group, size in enumerate(sizes):
        hidden = rng.normal(size=400)
        for item in range(size):
            names.append(f"g{group}_{item}")
            columns.append((-1) ** item * hidden + noise * rng.normal(size=400))
    return names, np.stack(columns, axis=1)


def test_distance_is_that_of_standardised_columns() -> None:
    names, values = groups(0, [3, 2])
    unit = values - values.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=0)
    expected = np.linalg.norm(unit[:, :, None] - unit[:, None, :], axis=0)
    matrix = correlate(names, [values]).matrix
    np.testing.assert_allclose(distances(matrix, absolute=False), expected, atol=1e-7)
    assert distances(np.array([[1, -1], [-1, 1.0]]), absolute=True)[0, 1] == 0
    assert distances(np.array([[1, np.nan], [np.nan, 1]]), absolute=True)[0, 1] == math.sqrt(2)


@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_are_found_whatever_the_order_of_columns(seed: int) -> None:
    names, values = groups(seed, [4, 3, 1, 2])
    found = ward(correlate(names, [values]), 4, absolute=True)
    planted = {frozenset(n for n in names if n.startswith(f"g{g}_")) for g in range(4)}
    assert {frozenset(members) for members in found.clusters} == planted
    assert [name for members in found.clusters for name in members] == list(found.order)
    shuffle = np.random.default_rng(seed).permutation(len(names))
    again = ward(correlate([names[i] for i in shuffle], [values[:, shuffle]]), 4, absolute=True)
    assert (again.order, again.clusters) == (found.order, found.clusters)


def test_sign_counts_unless_it_is_left_out() -> None:
    names, values = groups(1, [4])
    correlation = correlate(names, [values])
    signed = ward(correlation, 2, absolute=False)
    assert {frozenset(m) for m in signed.clusters} == {
        frozenset({"g0_0", "g0_2"}),
        frozenset({"g0_1", "g0_3"}),
    }
    assert signed.linkage[-1, 2] > 1.5
    assert ward(correlation, 2, absolute=True).linkage[-1, 2] < 1.5


@pytest.mark.parametrize("clusters", range(1, 9))
def test_there_are_as_many_clusters_as_asked_for(clusters: int) -> None:
    names, values = groups(2, [2, 2, 2])
    values[:, 1] = values[:, 0]  # a tie: a join at height 0
    values[:, 3] = -values[:, 2]
    found = ward(correlate(names, [values]), clusters, absolute=True)
    assert len(found.clusters) == min(clusters, 6)
    assert sorted(name for members in found.clusters for name in members) == names


def test_what_cannot_be_clustered_is_refused() -> None:
    _, values = groups(3, [2])
    one = correlate(["a"], [values[:, :1]])
    assert ward(one, 3, absolute=True).clusters == (("a",),)
    assert ward(one, 3, absolute=True).linkage.shape == (0, 4)
    with pytest.raises(BadInput, match="clusters is 0"):
        ward(one, 0, absolute=True)
    with pytest.raises(BadInput, match=r"without spread cannot be clustered: \['flat'\]"):
        ward(correlate(["a", "flat"], [values * [1, 0]]), 2, absolute=True)
    with pytest.raises(BadInput, match="nothing to cluster"):
        ward(one.of([]), 2, absolute=True)


def test_best_of_each_cluster_or_why_not() -> None:
    known = [
        Candidate("a/low", "a", 0.1, True),
        Candidate("b/high", "b", 0.4, False),
        Candidate("b/low", "b", -0.3, False, "was not called better, but worse"),
        Candidate("c/low", "c", 0.2, False, "is undecided in the second look"),
        Candidate("d/low", "d", 0.2, False),
        Candidate("e/low", "e", 0.2, False),
    ]
    picks = best_of_each([("a", "b"), ("c",), ("e", "d"), ("f",)], known)
    assert [pick.pool for pick in picks] == ["a/low", None, "d/low", None]
    assert picks[0].effect == 0.1
    assert picks[0].why == "the best of 2 pools called better; its confirmed effect is 0.1"
    assert picks[1].why == "skipped: c/low is undecided in the second look"
    assert picks[2].why.endswith("not confirmed; its shrunken effect is 0.2")
    assert picks[3].effect is None
    assert "has no pools" in picks[3].why


BUCKETS = ("low", "middle", "high")


def study(effects: dict[str, list[list[float]]], stopped: str = ""):
    """Pools whose three metrics change as planted, beside five controls, with two seeds."""
    rng = np.random.default_rng(0)
    pools = [pool(f"{name}/{bucket}") for name in effects for bucket in BUCKETS]
    pools += [pool(f"control/{i}") for i in range(5)]
    trials = []
    for own in pools:
        planted = effects[own.statistic][own.code] if own.statistic else [0.0] * 3
        for seed in (0, 1):
            values = 0.5 + 0.2 * seed + 0.01 * (np.array(planted) + 0.1 * rng.normal(size=3))
            metrics = dict(zip("xyz", values.tolist(), strict=True)) | {"flat": 0.5}
            trial = trial_record(own.id, seed, metrics)
            if own.id == stopped:
                reports = (rung_report(50, metrics),)
                trial = trial_record(own.id, seed, state=TrialState.STOPPED, reports=reports)
            trials.append(trial)
    return pools, trials


ONE = [[-2.0, -1, 0], [0, 0, 0], [2, 1, 0]]
"""Its high end is good for x, and a little for y."""
OTHER = [[0.0, -1, -2], [0, 0, 0], [0, 1, 2]]


def test_profiles_read_buckets_from_worse_to_better() -> None:
    effects = {"one": ONE, "other": OTHER, "negative": ONE[::-1]}
    found = metric_profiles(*study(effects), seeds=[0, 1])
    assert found.statistics == ("one", "other", "negative")
    assert found.metrics == ("x", "y", "z")
    assert found.left_out.keys() == {"flat"}
    assert found.turned == ("negative",)
    assert found.table.shape == (9, 3)
    r = correlate(found.statistics, [found.table]).matrix
    assert r[0, 2] > 0.95
    assert r[0, 1] < 0.5
    tree = ward(correlate(found.statistics, [found.table]), 2, absolute=False)
    assert {frozenset(m) for m in tree.clusters} == {
        frozenset({"one", "negative"}),
        frozenset({"other"}),
    }


def test_profiles_are_changes_in_control_deviations_within_seeds() -> None:
    pools, trials = study({"one": ONE})
    found = metric_profiles(pools, trials, seeds=[0, 1], metrics=["x"])
    values = {(t.spec.pool, t.spec.seed): t.reports[0].metrics["x"] for t in trials}
    controls = np.array([[values[f"control/{i}", s] for s in (0, 1)] for i in range(5)])
    noise = math.sqrt(((controls - controls.mean(axis=0)) ** 2).sum() / 8)
    expected = [
        np.mean([values[f"one/{b}", s] - controls[:, s].mean() for s in (0, 1)]) / noise
        for b in BUCKETS
    ]
    np.testing.assert_allclose(found.table[:, 0], expected)


def test_pools_that_were_given_up_leave_gaps() -> None:
    found = metric_profiles(*study({"one": ONE, "two": ONE}, stopped="two/low"), seeds=[0, 1])
    assert np.isnan(found.table[:, 1]).tolist() == [True] * 3 + [False] * 6
    assert correlate(found.statistics, [found.table]).rows[0, 1] == 6


def test_profiles_refuse_what_does_not_fit() -> None:
    pools, trials = study({"one": ONE})
    with pytest.raises(BadInput, match="no trial has the metric 'w'"):
        metric_profiles(pools, trials, seeds=[0, 1], metrics=["w"])
    with pytest.raises(BadInput, match="needs the same number"):
        metric_profiles(pools[3:], trials[6:], seeds=[0, 1])


def gappy(seed: int, rows: int, columns: int, gaps: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, columns))
    values += rng.normal(size=values.shape)
    values[rng.random(values.shape) < gaps] = np.nan
    return values


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    rows=st.integers(0, 60),
    columns=st.integers(1, 6),
    gaps=st.sampled_from([0.0, 0.2, 0.6]),
    chunk=st.integers(1, 25),
)
def test_chunks_of_any_size_give_what_pandas_gives(
    seed: int, rows: int, columns: int, gaps: float, chunk: int
) -> None:
    values = gappy(seed, rows, columns, gaps)
    names = [f"c{i}" for i in range(columns)]
    found = correlate(names, (values[i : i + chunk] for i in range(0, rows, chunk)))
    expected = pd.DataFrame(values, columns=names).corr(min_periods=MIN_ROWS).to_numpy()
    np.testing.assert_allclose(found.matrix, expected, atol=1e-9)
    has = ~np.isnan(values)
    np.testing.assert_array_equal(found.rows, has.T.astype(int) @ has.astype(int))


def test_digits_survive_far_from_zero() -> None:
    values = gappy(1, 4_000, 4, 0.1)
    near = correlate("abcd", [values])
    far = correlate("abcd", np.array_split(values * [1, 1e-6, 1e6, 1] + [1e6, -1, 1e12, 3e5], 37))
    # 1e6 / 1: six of sixteen digits go to the offset, no more.
    np.testing.assert_allclose(far.matrix, near.matrix, atol=1e-7)
    tiny = correlate("abcd", [values * 1e-150])
    np.testing.assert_allclose(tiny.matrix, near.matrix, atol=1e-9)


def test_columns_without_spread_are_named() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 5))
    values[:, 1] = 0.1  # whose mean is not exactly 0.1
    values[2:, 2] = np.nan
    values[:, 3] = np.nan
    found = correlate(["good", "constant", "two", "empty", "fine"], np.array_split(values, 4))
    assert found.constant == ("constant", "two", "empty")
    assert found.undefined == ()
    assert np.isnan(found.matrix[1]).all()
    assert found.matrix[0, 0] == found.matrix[4, 4] == 1
    kept = found.of(["fine", "good"])
    assert kept.names == ("fine", "good")
    assert kept.matrix[0, 1] == found.matrix[0, 4]
    assert kept.constant == ()


def test_pairs_without_a_correlation_are_named() -> None:
    a = np.array([1.0, 2, 3, 4, 1000.1, 1000.1, 1000.1])
    b = np.array([np.nan, np.nan, np.nan, np.nan, 1, 2, 3])  # where a does not change
    c = np.array([1.0, 3, 2, 5, np.nan, np.nan, np.nan])  # never beside b
    found = correlate("abc", [np.stack([a, b, c], axis=1)])
    assert found.constant == ()
    assert found.undefined == (("a", "b"), ("b", "c"))
    assert found.rows[1, 2] == 0


def test_bad_chunks_are_refused() -> None:
    moments = CoMoments(["a", "b"])
    with pytest.raises(BadInput, match=r"shape \(3, 1\); needed is \(rows, 2\)"):
        moments.add(np.zeros((3, 1)))
    with pytest.raises(BadInput, match="column 'b' holds an infinite value"):
        moments.add([[1, 2], [np.nan, np.inf]])
    with pytest.raises(BadInput, match="each once"):
        CoMoments(["a", "a"])
    with pytest.raises(BadInput, match="at least one"):
        correlate([], [])
    assert np.isnan(moments.correlation().matrix).all()
