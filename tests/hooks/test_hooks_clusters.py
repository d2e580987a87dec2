from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from planted_world import (
    ROWS,
    TRAIN,
    confirmation_of,
    context_of,
    first_pools,
    ranking_of,
    values,
)

from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.hooks.clusters import ClusterMetrics, ClusterStatistics
from djsandbox_ray.records import (
    Choice,
    PoolKind,
    Pools,
    RungReport,
    Statistic,
    Statistics,
    TrialRecord,
    Trials,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.stats.parts import PartReport, part, ranges, write_part
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.trial_records import curves_table, trials_table

FOLDER = "datasets/dataset-train/stats/op.parquet"


def statistics(storage: Storage) -> Statistics:
    """Write a, b, c (of one operator), and flat (of another, without pools)."""
    columns = values()
    columns["b"] = 0.2 * columns["b"] - columns["a"]
    other = FOLDER.replace("op.", "other.")
    for start, stop in ranges(ROWS):
        report = PartReport(stop - start, {}, 0, (), 0.1)
        ids = np.arange(start, stop)
        cut = {name: column[start:stop] for name, column in columns.items()}
        write_part(storage, part(FOLDER, start), ids, cut, report)
        write_part(storage, part(other, start), ids, {"flat": np.ones(stop - start)}, report)
    found = [Statistic(name, name, "op", "op-1", FOLDER) for name in "abc"]
    return Statistics("statistics-1", (*found, Statistic("flat", "flat", "other", "op-2", other)))


RANKED = [
    ("a/high", 0.9, "better"),
    ("b/low", 0.8, "better"),
    ("c/low", 0.3, "better"),
    ("c/high", 0.1, "undecided"),
]


def test_the_best_of_each_cluster_of_statistics(storage: Storage) -> None:
    context, said = context_of(storage)
    pools, ranking = first_pools(context), ranking_of(storage, *RANKED)
    hook = ClusterStatistics(context)
    looks = [("a/high", 0.5, "better"), ("b/low", 0.6, "better"), ("c/low", 0.2, "better")]
    confirmation = confirmation_of(storage, *looks)
    choice = hook.run(TRAIN, statistics(storage), pools, ranking, confirmation, clusters=2)
    assert isinstance(choice, Choice)
    assert choice.pools == ("b/low", "c/low")  # a and b say the same; b was confirmed higher
    written = storage.read_sealed(choice.path)
    assert written["distance"] == "sqrt(2 (1 - |r|))"
    assert written["names"] == ["a", "b", "c"]
    expected = np.corrcoef(values()["a"], 0.2 * values()["b"] - values()["a"])[0, 1]
    assert written["correlation"][0][1] == pytest.approx(expected)
    assert written["rows"][0][1] == ROWS
    assert {tuple(sorted(item["members"])) for item in written["clusters"]} == {("a", "b"), ("c",)}
    assert written["chosen"] == ["b/low", "c/low"]
    assert choice.figure is not None
    assert Image.open(io.BytesIO(storage.read_bytes(choice.figure))).format == "PNG"
    again = hook.run(TRAIN, statistics(storage), pools, ranking, confirmation, clusters=2)
    assert again == choice
    other = hook.run(TRAIN, statistics(storage), pools, ranking, confirmation, clusters=3)
    assert other is not None
    assert other.pools == ("b/low", "a/high", "c/low")
    assert other.id != choice.id
    assert "b/low the best of 2 pools called better" in said.getvalue()


def test_without_a_second_look_only_if_asked_for(storage: Storage) -> None:
    context, said = context_of(storage)
    pools, ranking, made = first_pools(context), ranking_of(storage, *RANKED), statistics(storage)
    hook = ClusterStatistics(context)
    choice = hook.run(TRAIN, made, pools, ranking, None)
    assert choice is not None
    assert choice.pools == ()
    assert choice.figure is not None
    assert storage.exists(choice.figure)
    assert "a/high has had no second look" in said.getvalue()
    assert storage.exists("runs/planted/cluster_statistics.json")
    choice = hook.run(TRAIN, made, pools, ranking, None, clusters=2, only_confirmed=False)
    assert choice is not None
    assert choice.pools == ("a/high", "c/low")


def test_what_cannot_be_clustered(storage: Storage) -> None:
    context, said = context_of(storage)
    pools, ranking, made = first_pools(context), ranking_of(storage, *RANKED), statistics(storage)
    hook = ClusterStatistics(context)
    with pytest.raises(BadInput, match="cluster_statistics: clusters is 0"):
        hook.run(TRAIN, made, pools, ranking, None, clusters=0)
    flat = Statistics("statistics-2", (replace(made.statistics[3], name="a"),))
    assert hook.run(TRAIN, flat, pools, ranking, None) is None
    assert "left out, without spread: a" in said.getvalue()
    assert hook.run(TRAIN, Statistics("statistics-3", ()), pools, ranking, None) is None
    assert "no statistic has pools" in said.getvalue()
    start = next(iter(ranges(ROWS)))[0]
    broken = pa.table({"row_id": [5], "a": [1.0], "b": [1.0], "c": [1.0]})
    storage.write_table(part(FOLDER, start), broken)
    with pytest.raises(Damaged, match="does not hold the rows from 0 on; remove it and run"):
        hook.run(TRAIN, made, pools, ranking, None)


def trials(storage: Storage, pools: Pools) -> Trials:
    """a and b move the first metric, b with its low end; c moves the second."""
    rng = np.random.default_rng(0)
    slope = {"a": (3, 0), "b": (-3, 0), "c": (0, 3)}
    records = []
    for pool in pools.pools:
        for seed in (0, 1):
            step = ["low", "middle", "high"].index(pool.bucket) - 1 if pool.bucket else 0
            x, y = slope.get(pool.statistic or "", (0, 0))
            noise = 0.005 * rng.normal(size=2)
            metrics = {"x": 0.5 + 0.01 * x * step + noise[0], "y": 0.5 + 0.01 * y * step + noise[1]}
            report = RungReport(20, 1.0, metrics, 0.1, 0.1, 0)
            spec = TrialSpec(f"{pool.id}-{seed}", pool.id, seed, "", 20)
            records.append(TrialRecord(spec, TrialState.COMPLETED, (report,)))
    by_id = {pool.id: pool for pool in pools.pools}
    storage.write_table("runs/planted/trials.parquet", trials_table(records, by_id, None))
    storage.write_table("runs/planted/curves.parquet", curves_table(records))
    paths = ("runs/planted/trials.parquet", "runs/planted/curves.parquet")
    return Trials("trials-1", *paths, len(records), 0)


def test_the_best_of_each_cluster_by_metrics(storage: Storage) -> None:
    context, said = context_of(storage)
    pools, ranking = first_pools(context), ranking_of(storage, *RANKED)
    done = trials(storage, pools)
    hook = ClusterMetrics(context)
    choice = hook.run(pools, done, ranking, None, clusters=2, only_confirmed=False)
    assert choice is not None, said.getvalue()
    assert choice.pools == ("a/high", "c/low")
    written = storage.read_sealed(choice.path)
    assert written["turned"] == ["b"]
    assert written["metrics"] == ["x", "y"]
    assert {tuple(sorted(item["members"])) for item in written["clusters"]} == {("a", "b"), ("c",)}
    assert choice.path.endswith("cluster_metrics.json")
    controls = replace(pools, pools=tuple(p for p in pools.pools if p.kind is PoolKind.CONTROL))
    assert hook.run(controls, done, ranking, None) is None
