from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from simulations import mostly_slow

from djsandbox_ray.analysis.scale.repetition import FILLINGS, Fillings, against_new_rows, paying
from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.records import Aggregate, Pools

FACTORS = [1, 2, 4, 8]


ALL = {"draw_share": 0.5, "bucket_share": 0.05}


def scores(means, sd=0.01, seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    return np.array(means)[:, None] + rng.normal(0, sd, (len(means), seeds))


@pytest.mark.parametrize(
    ("means", "factor", "statement"),
    [
        ([0.0, 0.2, 0.4, 0.6], 8, "repetition still pays at x8, the largest factor tried"),
        ([0.0, 0.2, 0.4, 0.401], 4, "pays up to x4; whether it does beyond that is undecided"),
        ([0.0, 0.2, 0.4, 0.2], 4, "pays up to x4; repeat x8 is worse than repeat x4"),
        ([0.4, 0.2, 0.1, 0.0], None, "does not pay: repeat x2 is worse than repeat x1"),
        ([0.1, 0.1, 0.1, 0.1], None, "undecided: no step"),
        # What is won back after a loss is no reason to repeat.
        ([0.0, 0.4, 0.1, 0.3], 2, "pays up to x2; repeat x4 is worse than repeat x2; that repeat"),
        ([0.4, 0.0, 0.2, 0.4], None, "does not pay: repeat x2 is worse than repeat x1"),
    ],
)
def test_where_repetition_stops_paying(means, factor, statement):
    found = paying(FACTORS, scores(means))
    assert found.factor == factor
    assert statement in found.statement
    assert [step.of for step in found.steps] == ["repeat x2", "repeat x4", "repeat x8"]


def test_a_false_gain_is_rare():
    sd = np.array([0.01, 0.02, 0.04, 0.08])[:, None]
    found = [paying(FACTORS, scores([0.0] * 4, sd, seed=study)) for study in range(400)]
    decided = [any(step.verdict != "undecided" for step in each.steps) for each in found]
    # 5 % for all steps together; three standard deviations of 400 studies above.
    assert np.mean(decided) < 0.083


def test_one_seed_or_one_factor_decides_nothing():
    found = paying(FACTORS, scores([0, 1, 2, 3], seeds=1))
    assert found.factor is None
    assert "without two results" in found.statement
    assert found.steps[0].value is not None
    assert found.steps[0].low is None
    assert "nothing to compare" in paying([1], scores([0.0])).statement


def test_a_factor_without_results_is_undecided():
    table = scores([0.0, 0.2, 0.4, 0.6])
    table[2] = math.nan
    found = paying(FACTORS, table)
    assert [step.verdict for step in found.steps] == ["better", "undecided", "undecided"]
    assert found.steps[1].value is None


def test_new_rows_against_repeated_ones():
    means = [0, 0.3, 0.5, 0.1], [0, 0.1, 0.1, 0.4]
    tables = [scores(own, sd=0.005, seed=seed) for seed, own in enumerate(means)]
    found = against_new_rows(FACTORS, *tables, **ALL)
    assert [item.verdict for item in found] == ["undecided", "better", "better", "worse"]
    assert found[1].low < 0.2 < found[1].high
    assert (found[1].of, found[1].against) == ("expand x2", "repeat x2")
    # The luck of one pool's rows makes the intervals wider.
    narrow = against_new_rows(FACTORS, *tables, draw_share=0.01, bucket_share=0.05)
    ratios = [(a.high - a.low) / (b.high - b.low) for a, b in zip(found, narrow, strict=True)]
    assert ratios[0] == 1
    assert min(ratios[1:]) > 1.02
    # Nothing but the whole of the rows is added where there are no more.
    bounded = against_new_rows(FACTORS, *tables, draw_share=0.5, bucket_share=0.5)
    assert bounded[3].high - bounded[3].low < found[3].high - found[3].low
    assert bounded[1] == found[1]


def test_whole_pools_say_nothing_of_other_rows():
    tables = scores([0, 0.3, 0.5, 0.1]), scores([0, 0.1, 0.1, 0.4])
    found = against_new_rows(FACTORS, *tables, draw_share=1, bucket_share=0.05)
    assert [item.low is None for item in found] == [False, True, True, True]
    assert {item.verdict for item in found} == {"undecided"}
    assert found[2].value == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("share", mostly_slow([0.2, 0.8], 0.8))
@pytest.mark.parametrize("candidates", mostly_slow([1, 7], 7))
def test_lucky_rows_are_not_taken_for_a_verdict(share, candidates):
    """Repeated rows are worth just as much as new ones; ``share`` of the noise is of rows."""
    rng, size, factors = np.random.default_rng(1), 600, [2, 4, 6, 8, 10]
    unit, single, studies = size // 2, share * size / 2, 400

    def trials(mean, rows, seeds=3):
        draws = rng.normal(0, math.sqrt(single / rows / 2 + 1 - share), (*np.shape(mean), seeds))
        return np.asarray(mean)[..., None] + draws

    wrong = 0
    for _ in range(studies):
        pools = rng.normal(0, math.sqrt(single / size), 20)
        # Chosen by other seeds than those that judge it.
        first = trials(pools[:candidates], unit).mean(axis=-1).argmax()
        order = [first, *np.delete(np.arange(20), first)]
        repeat = trials(np.full(len(factors), pools[first]), unit)
        expand = np.stack([trials(pools[order[:f]].mean(), f * unit) for f in factors])
        found = against_new_rows(factors, expand, repeat, **ALL)
        wrong += any(item.verdict != "undecided" for item in found)
    # 5 % nominal; three standard deviations of 400 studies above. Without the luck of rows in the
    # intervals it was 24 % at 0.8, and 34 % with the best of 7.
    assert wrong <= 0.083 * studies


def test_a_step_is_as_uncertain_as_its_own_two_cells():
    # The scatter grows with the length, as of the example in the documents.
    means, sd = np.array([-0.2, 0.064, 0.561, 1.386]), np.array([0.004, 0.004, 0.14, 0.17])
    table = means[:, None] + sd[:, None] * np.array([-1.0, 0.0, 1.0])
    found = paying(FACTORS, table)
    halves = [(step.high - step.low) / 2 for step in found.steps]
    assert found.steps[0].verdict == "better"
    assert halves[0] < 0.05 < halves[1]
    # Welch's interval of the first, by hand: two cells of three seeds, 4 degrees of freedom.
    level = 1 - 0.05 / 6
    assert halves[0] == pytest.approx(stats.t.ppf(level, 4) * 0.004 * math.sqrt(2 / 3))


def test_trials_that_repeat_each_other_have_no_noise():
    found = paying([1, 2, 4], np.array([[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]))
    assert [step.verdict for step in found.steps] == ["better", "undecided"]


def strategies(metric=lambda name, factor: 0.5 + 0.05 * math.log(factor), seeds=3):
    rng = np.random.default_rng(0)
    measured = {
        (f"{name}/x{factor}", seed): {"a": metric(name, factor) + rng.normal(0, 1e-3), "b": 7.0}
        for name in FILLINGS
        for factor in FACTORS
        for seed in range(seeds)
    }
    rows = {name: {f: 100 if name == "repeat" else 100 * f for f in FACTORS} for name in FILLINGS}
    return rows, measured


STUDY = Pools("p", "x", (), 200, 100, 4000, 0)


def test_the_table_and_its_findings():
    gains = {"repeat": 0.05, "expand": 0.05, "random": 0.01}
    rows, measured = strategies(lambda name, factor: 0.5 + gains[name] * math.log(factor))
    del measured["expand/x4", 1]
    ruler = Yardstick(("a",), (0.5,), (0.01,), Aggregate.POOLED)
    found = Fillings.of(100, STUDY, rows, measured, range(3), ruler)
    assert (found.draw_share, found.bucket_share) == (0.5, 0.05)
    table = {(row.strategy, row.factor): row for row in found.table()}
    assert len(table) == 12
    row = table["expand", 4]
    assert (row.samples, row.rows, row.seeds) == (400, 400, 2)
    assert table["repeat", 4].rows == 100
    # Against random rows at as many samples, in the unit of the first study.
    assert row.effect == pytest.approx(0.08 * math.log(4), abs=0.01)
    assert row.low < row.effect < row.high
    assert row.score == pytest.approx(0.1 * math.log(4), abs=0.01)
    base = table["random", 4]
    assert (base.effect, base.seeds) == (0, 3)
    assert math.isnan(base.low)
    assert base.score == pytest.approx(0.02 * math.log(4), abs=0.01)
    said = found.findings()
    told = " ".join(said["sentences"])
    assert "none of which chose the pool" in told
    assert "for other rows of the same kind, too" in told
    json.dumps(said, allow_nan=False)
    assert said["paying"]["factor"] == 8
    # Repeated rows did as well as new ones.
    assert said["law"] is None
    assert "R* is unbounded" in said["reason"]


def test_no_law_of_metrics_that_are_no_shares():
    rows, measured = strategies()
    ruler = Yardstick(("a", "b"), (0.5, 7.0), (0.01, 0.1), Aggregate.POOLED)
    whole = Pools("p", "x", (), 100, 100, 4000, 0)
    said = Fillings.of(100, whole, rows, measured, range(3), ruler).findings()
    assert "new rows cannot be compared with repeated ones" in said["sentences"][-1]
    assert said["law"] is None
    assert "outside [0, 1]" in said["reason"]
    assert said["paying"]["steps"]
