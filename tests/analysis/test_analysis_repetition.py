from __future__ import annotations

import json
import math

import numpy as np
import pytest

from djsandbox_ray.analysis.aggregate import Aggregate
from djsandbox_ray.analysis.repetition import against_new_rows, paying
from djsandbox_ray.analysis.strategies import STRATEGIES, Strategies
from djsandbox_ray.analysis.top_pool import top_pool
from djsandbox_ray.analysis.yardstick import Yardstick
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Pool, PoolKind, Pools, RankingRow

FACTORS = [1, 2, 4, 8]


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
    ],
)
def test_where_repetition_stops_paying(means, factor, statement):
    found = paying(FACTORS, scores(means))
    assert found.factor == factor
    assert statement in found.statement
    assert [step.of for step in found.steps] == ["repeat x2", "repeat x4", "repeat x8"]


def test_a_false_gain_is_rare():
    found = [paying(FACTORS, scores([0.0] * 4, seed=study)) for study in range(400)]
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
    found = against_new_rows(FACTORS, scores([0, 0.3, 0.5, 0.1]), scores([0, 0.1, 0.1, 0.4]))
    assert [item.verdict for item in found] == ["undecided", "better", "better", "worse"]
    assert found[1].low < 0.2 < found[1].high
    assert (found[1].of, found[1].against) == ("expand x2", "repeat x2")


def strategies(metric=lambda name, factor: 0.5 + 0.05 * math.log(factor), seeds=3):
    rng = np.random.default_rng(0)
    measured = {
        (f"{name}/x{factor}", seed): {"a": metric(name, factor) + rng.normal(0, 1e-3), "b": 7.0}
        for name in STRATEGIES
        for factor in FACTORS
        for seed in range(seeds)
    }
    rows = {name: {f: 100 if name == "repeat" else 100 * f for f in FACTORS} for name in STRATEGIES}
    return rows, measured


def test_the_table_and_its_findings():
    rows, measured = strategies()
    del measured["expand/x4", 1]
    ruler = Yardstick(("a",), (0.5,), (0.01,), Aggregate.POOLED)
    found = Strategies.of(100, rows, measured, range(3), ruler)
    table = {(row.strategy, row.factor): row for row in found.table()}
    assert len(table) == 12
    row = table["expand", 4]
    assert (row.samples, row.rows, row.seeds) == (400, 400, 2)
    assert table["repeat", 4].rows == 100
    assert row.effect == pytest.approx(0.1 * math.log(4), abs=0.01)
    said = found.findings()
    json.dumps(said, allow_nan=False)
    assert said["paying"]["factor"] == 8
    # Repeated rows did as well as new ones.
    assert said["law"] is None
    assert "R* is unbounded" in said["reason"]


def test_no_law_of_metrics_that_are_no_shares():
    rows, measured = strategies()
    ruler = Yardstick(("a", "b"), (0.5, 7.0), (0.01, 0.1), Aggregate.POOLED)
    said = Strategies.of(100, rows, measured, range(3), ruler).findings()
    assert said["law"] is None
    assert "outside [0, 1]" in said["reason"]
    assert said["paying"]["steps"]


def pool(name, parts=(), kind=PoolKind.BUCKET):
    return Pool(name, kind, name, 0, 10, "", parts=parts)


def ranked(name, change):
    row = dict.fromkeys(("std", "low", "high", "p", "q"), 0.0)
    named = {"statistic": None, "bucket": None, "verdict": "better", "seeds": 3, "failed": 0}
    return RankingRow(rank=1, pool=name, kind=PoolKind.BUCKET, change=change, **named, **row)


def test_the_top_pool():
    made = (pool("a", ("a",)), pool("b", ("b",)), pool("a&b", ("a", "b")), pool("old"))
    controls = (pool("control/0", kind=PoolKind.CONTROL),)
    pyramid = Pools("p", "x", (*made, *controls), 10, 5, 100, 0)
    assert top_pool(pyramid).id == "a&b"
    assert top_pool(pyramid, [ranked("a&b", 0.1), ranked("b", 0.2), ranked("old", 9)]).id == "b"
    assert top_pool(pyramid, [ranked("a&b", math.nan), ranked("a", -0.2)]).id == "a"
    with pytest.raises(BadInput, match="none of a, b, a&b"):
        top_pool(pyramid, [ranked("a", math.nan)])
    with pytest.raises(BadInput, match="no pool of 'p' has parts"):
        top_pool(Pools("p", "x", controls, 10, 5, 100, 0))
