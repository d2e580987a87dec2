from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from planted_world import (
    EVALUATION,
    ROWS,
    STATISTICS,
    TRAIN,
    context_of,
    first_pools,
    train_controls,
    values,
)

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.combine import CombinePools
from djsandbox_ray.hooks.judge import Judge
from djsandbox_ray.hooks.pools import BuildPools
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.pools.draws import members
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import Choice, Leak, PoolKind, Pools, RankingRow, Statistic, Statistics
from djsandbox_ray.storage.rows import from_csv
from djsandbox_ray.storage.store import Storage

CHOICE = Choice("choice", ("a/high", "b/high", "c/low"), "choice.json")


def combine(storage: Storage, minimum: int = 250, **parameters: Any) -> tuple[Pools, Pools, str]:
    context, said = context_of(storage)
    pools = first_pools(context)
    made = CombinePools(context).run(pools, CHOICE, STATISTICS, minimum=minimum, **parameters)
    assert made is not None
    return pools, made, said.getvalue()


def test_combinations_are_written_with_what_was_dropped(storage: Storage) -> None:
    pools, made, said = combine(storage)
    folder = "runs/planted"
    assert storage.read_sealed(f"{folder}/combination_pools.json") == to_json(made)
    assert made.assignments == f"{folder}/combination_assignments.parquet"
    table = storage.read_table(made.assignments)
    for pool in made.pools:
        rows = members(table["row_id"].to_numpy(), table[pool.column].to_numpy(), pool)
        assert len(rows) == made.size >= 250
    triple = "a/high&b/high&c/low"
    assert [item.statistic for item in made.not_testable] == [triple]
    assert f"combination: {triple} is dropped: " in said
    assert "6 combinations and 5 controls" in said
    assert made.draw_size == round(made.size / 2)
    # 6 controls stand beside the nine pools of the first study, and 5 in its second look.
    assert sum(pool.kind is PoolKind.CONTROL for pool in pools.pools) == 6
    assert [pool.id for pool in made.pools[6:]] == [f"control/{n}" for n in range(11, 16)]


def test_a_workflow_can_combine_more_than_once(storage: Storage) -> None:
    _, one, _ = combine(storage)
    _, two, said = combine(storage, minimum=50, controls=6, name="clustered")
    assert one.id != two.id
    assert storage.exists(one.assignments)
    assert two.assignments == "runs/planted/clustered_assignments.parquet"
    assert "clustered: 7 combinations and 6 controls" in said


def test_nothing_chosen_is_nothing_combined(storage: Storage) -> None:
    context, said = context_of(storage)
    pools = first_pools(context)
    assert CombinePools(context).run(pools, None, STATISTICS) is None
    assert "combination: no pools were chosen" in said.getvalue()
    assert Train(context).run(TRAIN, EVALUATION, None) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"controls": 4}, "4 controls of combinations; at least 5 are needed"),
        ({"minimum": 1000}, "minimum is 1000 rows per combination; 1 to 900 are possible"),
        ({"name": "../up"}, r"name is '\.\./up'; lower-case letters"),
        ({"name": "confirmation"}, "name is 'confirmation'"),
    ],
)
def test_what_cannot_be_is_an_error(
    storage: Storage, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        combine(storage, **parameters)


def test_whole_buckets_need_more_controls(storage: Storage) -> None:
    context, _ = context_of(storage, pools={"draw_share": 1.0}, confirm={"top": 0})
    pools = first_pools(context)
    with pytest.raises(BadInput, match="at least 8 are needed with whole buckets"):
        CombinePools(context).run(pools, CHOICE, STATISTICS, minimum=50, controls=7)
    made = CombinePools(context).run(pools, CHOICE, STATISTICS, minimum=50)
    assert made is not None
    assert made.draw_size == made.size
    assert len(made.pools) == 7 + 8


def test_what_was_planted_is_found_in_the_ranking(storage: Storage) -> None:
    # Four seeds and eight controls find the weakest effect in 22 of 24 simulated studies, two seeds
    # and ten controls in 16.
    model = {"type": "planted_world:Planted"}
    context, _ = context_of(storage, trials={"model": model, "budget": 20, "seeds": 4})
    pools = first_pools(context)
    first = train_controls(context, pools)
    made = CombinePools(context).run(pools, CHOICE, STATISTICS, minimum=250, controls=8)
    hook = Train(context)
    trials = hook.run(TRAIN, EVALUATION, made)
    assert made is not None
    assert trials is not None
    assert trials.trials == "runs/planted/combinations_trials.parquet"
    assert (trials.completed, trials.failed, trials.stopped) == (4 * len(made.pools), 0, 0)
    assert hook.spent.stage == "combinations"
    planned = hook.ahead(made)
    assert (planned.trials, planned.samples) == (4 * len(made.pools), hook.spent.samples)
    assert hook.spent.cpu_seconds > 0
    ranking = Judge(context).run(made, trials, first)
    assert ranking is not None
    assert ranking.path == "runs/planted/combination_ranking.csv"
    rows = {
        row.pool: row for row in from_csv(RankingRow, storage.read_bytes(ranking.path).decode())
    }
    assert set(rows) == {pool.id for pool in made.pools if pool.kind is PoolKind.BUCKET}
    # On average a row is worth 1 + 0.3 / 3 + 0.3 / 9, in a/high 1.4, and in both highs 1.6.
    control = 1 + 0.3 / 3 + 0.3 / 9
    for name, worth in (("a/high", 1.4), ("b/high", 1.2), ("a/high&b/high", 1.6)):
        assert rows[name].verdict == "better"
        assert rows[name].change == pytest.approx((worth - control) / control, abs=0.04)
    assert rows["c/low"].verdict == "undecided"
    found = [row.change for row in rows.values() if row.verdict == "better"]
    assert (ranking.better, ranking.effect) == (len(found), max(found))
    with pytest.raises(BadInput, match="its trials are needed as 'first'"):
        Judge(context).run(made, trials)
    pair = rows["a/high&b/high"]
    assert (pair.statistic, pair.bucket) == (None, None)
    assert not np.isnan(pair.shrunken)


def test_without_controls_nothing_is_judged_and_the_run_goes_on(storage: Storage) -> None:
    model = {"type": "planted_world:Hopeless"}
    trials = {"model": model, "budget": 20, "seeds": 2}
    context, said = context_of(storage, trials=trials)
    choice = replace(CHOICE, pools=("a/high",))
    made = CombinePools(context).run(first_pools(context), choice, STATISTICS, name="clustered")
    hook = Train(context)
    found = hook.run(TRAIN, EVALUATION, made)
    assert found is not None
    assert (found.completed, found.failed, found.crashed) == (0, 2 * 6, 0)
    assert hook.keep(found)  # it would come to the same again
    assert Judge(context).run(made, found, found) is None
    assert "clustereds: cannot be judged: no control trial of the study" in said.getvalue()
    assert len(context.caveats) == 1


LEAKED = np.array([3, 8], dtype=np.int64)


def build(storage: Storage, *within: dict[str, object], **sections: Any) -> tuple[Pools, str]:
    context, said = context_of(storage, pools={"within": list(within)}, **sections)
    rows = np.arange(ROWS)
    storage.write_table("stats.parquet", pa.table({"row_id": rows, **values()}))
    storage.write_table("leaks.parquet", pa.table({"row_id": LEAKED}))
    named = [Statistic(name, name, "operator", "operator-id", "stats.parquet") for name in values()]
    leaks = Leak("leak", "leaks.parquet", len(LEAKED), removed=True)
    pools = BuildPools(context).run(TRAIN, Statistics("statistics", tuple(named)), leaks)
    return pools, said.getvalue()


def test_rows_that_are_not_within_are_in_no_pool(storage: Storage) -> None:
    pools, said = build(storage, {"statistic": "a", "low": 0}, {"statistic": "b", "high": 1.5})
    inside = (values()["a"] >= 0) & (values()["b"] <= 1.5)
    outside = np.count_nonzero(~inside)
    assert f"pools: {outside} of {ROWS} rows are not within a in [0, inf], b in [-inf, 1.5]" in said
    inside[LEAKED] = False
    table = storage.read_table(pools.assignments)
    for name in table.column_names[1:]:
        np.testing.assert_array_equal(table[name].to_numpy() != EXCLUDED, inside)
    assert pools.eligible == np.count_nonzero(inside)


def test_without_ranges_only_leaks_are_kept_out(storage: Storage) -> None:
    pools, said = build(storage)
    assert pools.eligible == ROWS - len(LEAKED)
    assert "within" not in said


def test_an_unknown_statistic_is_an_error(storage: Storage) -> None:
    with pytest.raises(BadInput, match=r"unknown statistic 'aa'; did you mean 'a'\?"):
        build(storage, {"statistic": "aa", "low": 0})


def test_pools_that_break_a_policy_are_marked(storage: Storage) -> None:
    policy = {"statistic": "a", "above": float(np.quantile(values()["a"], 0.9)), "share": 0.05}
    pools, said = build(storage, policies=[policy])
    marked = {pool.id for pool in pools.pools if pool.breaks}
    assert "a/high" in marked
    assert not {"a/low", "a/middle"} & marked
    assert "pools: a/high breaks a policy: a: " in said
    said = {item["id"]: item["breaks"] for item in to_json(pools)["pools"]}
    assert {name for name, lines in said.items() if lines} == marked
