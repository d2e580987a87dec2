"""A dataset of rows of known quality, and a family whose metric is the quality of its draw."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import lance
import numpy as np
import pyarrow as pa
from factories import written_pools
from rich.console import Console

from djsandbox_ray.config import RunConfig
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.judge import Judge
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.pools.build import construct
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    Pools,
    Ranking,
    RungReport,
    Statistic,
    Statistics,
    Trials,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tracker import RunInfo
from djsandbox_ray.trials.family import ModelFamily, Prepared, TrialData, TrialTask
from djsandbox_ray.workflows.opened import open_context

ROWS = 3000
GOOD = (0.5, 0.9)
"""Ranks of ``depth`` between which rows are good: 0.7 of the high bucket, half of the middle one,
0.4 of all."""


def columns() -> dict[str, np.ndarray]:
    """Return two statistics of all rows; quality depends on ``depth`` alone."""
    rng = np.random.default_rng(7)
    return {name: rng.permutation(ROWS) / ROWS for name in ("depth", "noise")}


def good(rows: np.ndarray) -> np.ndarray:
    """Say which rows are good."""
    depth = columns()["depth"][rows]
    return (depth >= GOOD[0]) & (depth < GOOD[1])


class Quality(ModelFamily):
    """Its metric is the share of good rows in its draw, and a little noise."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        noise = np.random.default_rng([task.seed, int(task.rows[0])]).normal(0, 0.01)
        metrics = {"quality": float(good(task.rows).mean()) + float(noise)}
        yield from (
            RungReport(rung, 1.0, metrics, 0.1, 0.0, time.time_ns() // 1_000_000)
            for rung in task.rungs
        )


class Fragile(Quality):
    """Fails while a file ``broken`` lies beside the storage."""

    def prepare(self, data: TrialData) -> Prepared:
        return Prepared(Path(data.train.split("/storage/")[0]) / "broken")

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        if shared.exists():
            raise RuntimeError("broken")
        yield from super().train(task, shared)


class Measure(Evaluator):
    """Never asked: the family measures itself."""

    def evaluate(self, encoder: Encoder, split: EvaluationSet) -> dict[str, float]:
        raise AssertionError("the family measures itself")


def context(storage: Storage, family: str = "Quality") -> tuple[Context, StringIO]:
    """Return a run's context, and what it prints."""
    shapes = {"type": "shapes", "samples": 10}
    config = RunConfig.model_validate(
        {
            "name": "searched",
            "storage": storage.url,
            "dataset": shapes,
            "operators": ["text_length_filter"],
            "trials": {
                "model": {"type": f"search_world:{family}"},
                "budget": 100,
                "seeds": 2,
                "retries": 0,
                "early_stopping": {"type": "none", "rungs": []},
            },
            "evaluation": {"dataset": shapes, "metrics": [{"type": "search_world:Measure"}]},
            "pools": {"controls": 5, "self_tests": False},
            "confirm": {"top": 0, "controls": 5},
            "tracking": {"type": "none"},
        }
    )
    out = StringIO()
    made = open_context(config, Progress(Console(file=out, width=1000)))
    made.tracker.start(RunInfo("searched", "searched"))
    return made, out


class Given(NamedTuple):
    """What comes before a search."""

    dataset: Dataset
    evaluation: Evaluation
    statistics: Statistics
    pools: Pools


def inputs(made: Context) -> Given:
    """Write the dataset's statistics, and the pools of the first study."""
    storage, rows = made.storage, np.arange(ROWS, dtype=np.int64)
    storage.write_json("datasets/marker.json", {})
    table = pa.table({"text": ["a", "b", "c"], "meta": ["{}"] * 3})
    evaluation = Path(storage.uri("datasets/evaluation.lance"))
    lance.write_dataset(table, str(evaluation), mode="overwrite")
    found = []
    for name, values in columns().items():
        path = f"datasets/stats/{name}.parquet"
        storage.write_table(path, pa.table({"row_id": rows, name: values}))
        found.append(Statistic(name, name, f"{name}_filter", f"op-{name}", path))
    excluded = np.arange(30, dtype=np.int64)
    built = construct(rows, columns(), made.config.pools, excluded)
    pools = written_pools(made, rows, built)
    split = Dataset("dataset-evaluation", "datasets/evaluation.lance", 3, 0)
    return Given(
        Dataset("dataset-train", "datasets/train.lance", ROWS, 0),
        Evaluation(split.id, (split,), (split.id,)),
        Statistics("statistics", tuple(found)),
        pools,
    )


def first_study(made: Context, given: Given) -> tuple[Trials, Ranking]:
    """Run the single-operator stage."""
    trials = Train(made).run(given.dataset, given.evaluation, given.pools)
    return trials, Judge(made).run(given.pools, trials)
