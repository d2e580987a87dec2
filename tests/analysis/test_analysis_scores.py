from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.analysis.verdicts.scores import Yardstick, relative_change
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.metric import Metric, ScoreMetrics
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
        return relative_change(scores, baseline, aggregate, noise=noise, weights=noise)

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
    ones = [1.0] * len(baseline)
    with pytest.raises(ValueError, match=message):
        relative_change(scores, baseline, aggregate, noise=ones, weights=ones)


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


def test_a_total_with_weights():
    # 4 : 1, as VBench weighs quality and semantics.
    change = relative_change([0.82, 0.60], [0.80, 0.70], "weighted", weights=[4.0, 1.0])
    assert change == pytest.approx((4 * 0.02 - 0.10) / (4 * 0.80 + 0.70))
    plain = relative_change([0.82, 0.60], [0.80, 0.70], "weighted", weights=[1.0, 1.0])
    assert plain == pytest.approx(relative_change([0.82, 0.60], [0.80, 0.70], "pooled"))
    with pytest.raises(ValueError, match=r"weighted sums metrics: all must be better when greater"):
        relative_change([1.0], [1.0], "weighted", weights=[1.0], less=[True])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "needs weights"),
        ([1.0, 0.0], r"weights\[1\].*must be positive"),
        ([1.0], "weights has 1 values"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        relative_change([1.0, 2.0], [1.0, 1.0], "weighted", weights=weights)


def trials(tables, first=0):
    """By arm and seed, from a table (arms, seeds) per metric; arms are numbered from ``first``."""
    arms, seeds = next(iter(tables.values())).shape
    return {
        (f"arm{first + arm}", seed): {name: float(t[arm, seed]) for name, t in tables.items()}
        for arm in range(arms)
        for seed in range(seeds)
    }


def tables(seed=0, arms=5, seeds=3, **scales):
    rng = np.random.default_rng(seed)
    common = 7 * rng.normal(size=(1, seeds))
    return {
        name: 50 + common + scale * rng.normal(size=(arms, seeds)) for name, scale in scales.items()
    }


def measured(controls, others=None, aggregate="standardized", metrics=None):
    return Yardstick.from_controls(controls, metrics, aggregate, others)


def test_metrics_are_weighed_by_the_noise_of_all_arms():
    controls, others = trials(tables(a=1.0, b=2.0)), trials(tables(1, 60, a=4.0, b=2.0), first=5)
    a, b = measured(controls, others).noise
    # Of what most trials vary by, not of the few that are controls.
    assert a / b == pytest.approx(2, rel=0.2)
    own = measured(controls)
    assert own.noise[0] / own.noise[1] < 1
    # Control trials vary by one, on average over the metrics.
    spreads = [np.sqrt(table.var(axis=0, ddof=1).mean()) for table in tables(a=1.0, b=2.0).values()]
    assert np.mean(np.array(spreads) / [a, b]) == pytest.approx(1)


def test_what_arms_and_seeds_do_is_no_noise_and_effects_of_pools_do_not_count():
    controls, pools = tables(a=1.0, b=1.0), tables(1, 20, a=1.0, b=1.0)
    before = measured(trials(controls), trials(pools, 5)).noise
    pools["a"][::2] += 1000.0  # a statistic that matters
    pools["b"] += [0.0, 5.0, -9.0]
    for table in controls.values():
        table += 0.0
    controls["b"] = controls["b"] + [0.0, 5.0, -9.0]
    after = measured(trials(controls), trials(pools, 5)).noise
    assert after == pytest.approx(before, rel=1e-6)


def test_a_saturated_metric_does_not_decide_alone():
    found = tables(a=1.0, b=1.0)
    found["full"] = np.ones((5, 3))
    found["full"][2, 1] = 0.999
    yardstick = measured(trials(found))
    row = dict(zip(yardstick.metrics, yardstick.noise, strict=True))
    # One percent less is no more than four of the median metric's share.
    assert 0.01 / row["full"] <= 4.01 * 0.01 * 50 / min(row["a"], row["b"])
    trial = {"a": yardstick.baseline[0], "b": yardstick.baseline[1], "full": 0.99}
    assert -2 < yardstick.change(trial) < 0


def test_a_metric_without_noise_aborts_nothing_but_no_noise_at_all_does():
    found = tables(a=1.0)
    found["same"], found["zero"] = np.full((5, 3), 0.3), np.zeros((5, 3))
    yardstick = measured(trials(found))
    assert all(noise > 0 for noise in yardstick.noise)
    assert yardstick.without("a").metrics == ("same", "zero")
    with pytest.raises(BadInput, match="noise of 'same', which is 0"):
        measured(trials({"same": found["same"]}))


def test_one_seed_and_missing_trials():
    controls = trials(tables(seeds=1, a=1.0))
    assert measured(controls).noise[0] > 0
    holed = trials(tables(a=1.0, b=3.0))
    del holed["arm1", 2], holed["arm2", 0], holed["arm2", 1]
    a, b = measured(holed).noise
    assert 1.3 < b / a < 7


def test_a_mean_near_zero_is_not_divided_by():
    found = tables(a=1.0)
    near = {"a": found["a"], "reward": 1.0 + 1.0 * np.random.default_rng(2).normal(size=(5, 3))}
    with pytest.raises(BadInput, match=r"mean of 'reward', which is .* standard deviations from"):
        measured(trials(near), aggregate="mean_relative")
    far = {**near, "reward": near["reward"] + 20}
    assert measured(trials(far), aggregate="mean_relative").metrics == ("a", "reward")
    for aggregate in ("pooled", "standardized"):
        measured(trials(near), aggregate=aggregate)


def test_weights_go_with_their_metrics():
    score = ScoreMetrics(("b", "a"), weights=(("b", 4.0), ("a", 1.0)))
    yardstick = measured(trials(tables(a=1.0, b=2.0)), None, "weighted", score)
    assert (yardstick.metrics, yardstick.weights) == (("b", "a"), (4.0, 1.0))
    assert yardstick.without("b").weights == (1.0,)
    b, a = yardstick.baseline
    expected = 4.0 / (4 * b + a)
    assert yardstick.change({"a": a, "b": b + 1.0}) == pytest.approx(expected)
    less = ScoreMetrics(("a",), (Metric("a", better="less"),), (("a", 1.0),))
    with pytest.raises(BadInput, match="'weighted' sums the metrics, but 'a' is better when less"):
        measured(trials(tables(a=1.0)), None, "weighted", less)
