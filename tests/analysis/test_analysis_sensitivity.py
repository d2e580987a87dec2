"""What metrics see, and scores made of those that see something."""

from __future__ import annotations

import math

import numpy as np
import pytest
from null_studies import intervals
from scipy import stats

from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.analysis.verdicts.sensitivity import informative, sensitivities
from djsandbox_ray.evaluation.metric import Metric, ScoreMetrics
from djsandbox_ray.records import Aggregate

METRICS, SEEING, POOLS, CONTROLS, SEEDS = 10, 3, 18, 10, 3
SCORE = ScoreMetrics(informative=True)
GOOD = 5
"""The pool that is better, where one is."""


def trials(names, values):
    """Final metrics by arm and seed, of values (arms, seeds, metrics)."""
    return {
        (name, seed): {f"m{place}": float(value) for place, value in enumerate(row)}
        for name, arm in zip(names, values, strict=True)
        for seed, row in enumerate(arm)
    }


def names_of(kind, count):
    return [f"{kind}/{number}" for number in range(count)]


def test_a_table_computed_by_hand():
    values = np.array([[[1.0], [3.0]], [[2.0], [4.0]], [[3.0], [8.0]]])
    spoilt = np.array([[[0.0], [3.0]]])
    controls = trials(names_of("control", 3), values)
    (row,) = sensitivities(controls, trials(["spoilt"], spoilt), ScoreMetrics())
    # Means of seeds are 2 and 5: arms are 1.5 and .5 below and 2 above, a spoilt one 2 below.
    spread = np.std([-1.5, -0.5, 2.0], ddof=1)
    assert row.mean == pytest.approx(3.5)
    assert row.seen == pytest.approx(2 / (spread * math.sqrt(4 / 3)))
    told = stats.t.isf(0.025, 2) + stats.t.isf(0.2, 2)
    assert row.visible == pytest.approx(told * spread * math.sqrt(4 / 3))
    assert row.noise == pytest.approx(math.sqrt((1 + 0 + 1 + 4 + 1 + 9) / 4))
    assert not row.sees


def test_worse_is_less_or_more_as_the_metric_counts():
    rng = np.random.default_rng(0)
    controls = trials(names_of("control", 8), rng.normal(5, 0.1, (8, 3, 3)))
    spoilt = trials(["spoilt"], rng.normal([4, 6, 5], 0.1, (1, 3, 3)))
    score = ScoreMetrics(None, (Metric("m1", "less"), Metric("m2", scored=False)))
    rows = {row.metric: row for row in sensitivities(controls, spoilt, score)}
    assert [rows[f"m{n}"].sees for n in range(3)] == [True, True, False]
    assert [rows[f"m{n}"].scored for n in range(3)] == [True, True, False]
    turned = {row.metric: row for row in sensitivities(controls, spoilt, ScoreMetrics())}
    assert not turned["m1"].sees
    assert next(iter(turned)) == "m0"


def test_a_metric_without_any_noise_sees_every_change_for_the_worse():
    controls = trials(names_of("control", 4), np.full((4, 2, 2), 0.1))
    spoilt = trials(["spoilt"], np.array([[[0.0, 0.1]] * 2]))
    first, second = sensitivities(controls, spoilt, ScoreMetrics())
    assert (first.seen, first.sees, second.seen, second.sees) == (math.inf, True, 0.0, False)


def test_without_self_tests_nothing_is_seen_and_all_metrics_count():
    controls = trials(names_of("control", 4), np.random.default_rng(1).normal(size=(4, 2, 3)))
    rows = sensitivities(controls, {}, SCORE)
    assert all(math.isnan(row.seen) and not row.sees for row in rows)
    assert informative(rows, ("m2", "m0")) == ("m2", "m0")
    ruler = Yardstick.from_controls(controls, SCORE, Aggregate.STANDARDIZED)
    assert ruler.metrics == ("m0", "m1", "m2")
    alone = {key: metrics for key, metrics in controls.items() if key[0] == "control/0"}
    assert sensitivities(alone, {}, SCORE) == []


def test_self_tests_that_were_not_completed_with_a_seed_count_by_the_others():
    rng = np.random.default_rng(2)
    controls = trials(names_of("control", 6), rng.normal(size=(6, 3, 1)))
    spoilt = trials(["spoilt"], rng.normal(-9, 1, (1, 3, 1)))
    del spoilt["spoilt", 1]
    spoilt["spoilt", 7] = {"m0": 1e9}  # a seed without controls tells nothing
    (row,) = sensitivities(controls, spoilt, SCORE)
    assert row.sees


def world(rng, effect):
    """Scores (studies...) of a study: few metrics see what samples are worth, all are noisy."""
    sees = np.arange(METRICS) < SEEING
    arms = POOLS + CONTROLS + 1
    bucket = rng.normal(0, math.sqrt(1 / 6), (arms, 1, METRICS))
    values = bucket + rng.normal(0, math.sqrt(0.75), (arms, SEEDS, METRICS))
    values += 3 * rng.normal(size=(1, SEEDS, METRICS))
    values[GOOD] += effect * sees
    values[-1] -= 6 * sees
    return values


def judged(values, score):
    """Return the scores of pools and controls, on the yardstick of the study."""
    names = [*names_of("pool", POOLS), *names_of("control", CONTROLS), "spoilt"]
    found = trials(names, values)
    parts = {
        kind: {key: row for key, row in found.items() if key[0].startswith(kind)}
        for kind in ("control", "spoilt")
    }
    ruler = Yardstick.from_controls(
        parts["control"], score, Aggregate.STANDARDIZED, found, parts["spoilt"]
    )
    table = np.array(
        [[ruler.change(found[name, seed]) for seed in range(SEEDS)] for name in names[:-1]]
    )
    return table[:POOLS], table[POOLS:], ruler


def found_in(studies, score, effect, seed):
    """Return in how many studies the better pool is found, and any other is called one."""
    rng = np.random.default_rng(seed)
    tables = [judged(world(rng, effect), score) for _ in range(studies)]
    pools, controls = (np.array([table[place] for table in tables]) for place in (0, 1))
    result = intervals(pools, controls, 0.5)
    decided = np.abs(result.effect) > result.half
    better = int((result.effect > result.half)[:, GOOD].sum())
    others = np.delete(decided, GOOD, axis=1) if effect else decided
    return better, int(others.any(axis=1).sum())


def test_metrics_that_see_the_self_test_make_the_score():
    *_, ruler = judged(world(np.random.default_rng(3), 0.0), SCORE)
    assert set(ruler.metrics) >= {"m0", "m1", "m2"}
    assert len(ruler.metrics) < METRICS
    assert judged(world(np.random.default_rng(3), 0.0), ScoreMetrics())[2].metrics == tuple(
        f"m{place}" for place in range(METRICS)
    )


def test_they_find_what_the_mean_of_all_does_not():
    few, _ = found_in(25, SCORE, 2.5, seed=4)
    every, _ = found_in(25, ScoreMetrics(), 2.5, seed=4)
    assert few > every + 6


@pytest.mark.slow
def test_power_and_error_of_a_score_of_metrics_that_see_something():
    studies = 600
    power, _ = found_in(studies, SCORE, 2.5, seed=5)
    plain, _ = found_in(studies, ScoreMetrics(), 2.5, seed=5)
    assert power > plain + 0.3 * studies
    _, wrong = found_in(studies, SCORE, 0.0, seed=6)
    assert wrong <= stats.binom.isf(1e-4, studies, 0.06)
