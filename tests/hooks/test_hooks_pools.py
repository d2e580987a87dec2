from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from planted_world import ROWS, TRAIN, context_of, values

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.pools import BuildPools
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import Leak, Pools, Statistic, Statistics
from djsandbox_ray.storage.store import Storage

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
