"""Of many rows, tasks make the same pools and assignments as the driver makes of few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from planted_world import ROWS, TRAIN, context_of, values

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks import pools as hook
from djsandbox_ray.hooks.pools import BuildPools
from djsandbox_ray.records import Leak, Pools, Statistic, Statistics
from djsandbox_ray.stats import stored_rows
from djsandbox_ray.storage.store import Storage

LEAKED = np.array([3, 8], dtype=np.int64)
POLICY = {"statistic": "a", "above": float(np.quantile(values()["a"], 0.9)), "share": 0.05}
RANGE = {"statistic": "b", "high": 1.5}


def built(folder: Path, **sections: Any) -> tuple[Pools, pa.Table]:
    storage = Storage(str(folder))
    context, _ = context_of(storage, **sections)
    storage.write_table("stats.parquet", pa.table({"row_id": np.arange(ROWS), **values()}))
    storage.write_table("leaks.parquet", pa.table({"row_id": LEAKED}))
    named = [Statistic(name, name, "operator", "operator-id", "stats.parquet") for name in values()]
    leaks = Leak("leak", "leaks.parquet", len(LEAKED), removed=True)
    pools = BuildPools(context).run(TRAIN, Statistics("statistics", tuple(named)), leaks)
    return pools, storage.read_table(pools.assignments)


@pytest.mark.usefixtures("ray_cluster")
def test_tasks_make_what_the_driver_makes(tmp_path, monkeypatch) -> None:
    sections: dict[str, Any] = {"pools": {"within": [RANGE]}, "policies": [POLICY]}
    here, table = built(tmp_path / "here", **sections)
    monkeypatch.setattr(hook, "MANY_ROWS", 0)
    monkeypatch.setattr(stored_rows, "PART_ROWS", ROWS // 3)
    there, same = built(tmp_path / "there", **sections)
    assert there == here
    assert same.equals(table)
    assert any(pool.breaks for pool in there.pools)
    few = {"pools": {"within": [{"statistic": "b", "low": float(np.max(values()["b"]))}]}}
    with pytest.raises(BadInput, match="are too few for 3 buckets"):
        built(tmp_path / "few", **few)


def test_pools_of_builders_are_made_in_the_driver(tmp_path, monkeypatch) -> None:
    extra = [{"type": "range", "name": "mine", "statistic": "a", "low": 0.0}]
    here, table = built(tmp_path / "here", pools={"extra": extra})
    monkeypatch.setattr(hook, "MANY_ROWS", 0)
    there, same = built(tmp_path / "there", pools={"extra": extra})
    assert there == here
    assert same.equals(table)
