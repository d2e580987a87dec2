"""Hooks that make what comes before the trials without a cluster, for tests of the plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from factories import written_pools

from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.build import construct
from djsandbox_ray.records import Choice, Dataset, Evaluation, Pools, Statistics
from djsandbox_ray.trials.family import ModelFamily

ROWS = 400


class Data(Hook):
    def run(self) -> Dataset:
        return Dataset("dataset-train", "datasets/train.lance", ROWS, 0)


class Trusted(Hook):
    def run(self) -> Evaluation:
        storage = self.context.storage
        storage.write_json("datasets/marker.json", {})
        table = pa.table({"text": ["a", "b", "c"], "meta": [json.dumps({})] * 3})
        lance.write_dataset(table, storage.uri("datasets/evaluation.lance"))
        split = Dataset("dataset-evaluation", "datasets/evaluation.lance", 3, 0)
        return Evaluation(split.id, (split,), (split.id,))


class NoStatistics(Hook):
    def run(self) -> Statistics:
        return Statistics("statistics-none", ())


class SomePools(Hook):
    """Pools of one statistic that is testable and one that is constant."""

    def identity(self) -> Any:
        return self.config.pools.model_dump(mode="json")

    def run(self, dataset: Dataset) -> Pools:
        rows = np.arange(dataset.rows, dtype=np.int64)
        values = {
            "length": np.random.default_rng(0).normal(size=dataset.rows),
            "constant": np.ones(dataset.rows),
        }
        built = construct(rows, values, self.config.pools, np.empty(0, np.int64))
        return written_pools(self.context, rows, built)


class Chosen(Hook):
    """A user's own way to choose, which does not say how much it takes."""

    def run(self, pools: Pools, names: list[str]) -> Choice | None:
        return Choice(content_id("choice", names), tuple(names), "") if names else None


@dataclass(frozen=True)
class Size:
    id: str
    rows: int


class Measured(Hook):
    def run(self) -> Size:
        return Size("size", 7)


class MyTrials(Train):
    """A user's own kind of trials."""


class Family(ModelFamily):
    """A model that is never trained here."""

    def train(self, task: Any, shared: Any) -> Any:
        raise AssertionError("a plan trains nothing")


class Counted(Family):
    def flops_per_sample(self) -> float:
        return 2.5


class Storing(Counted):
    """A model of which something is stored for every sample."""

    def stored_bytes(self, samples: int | None = None) -> dict[str, int]:
        return {"latents": 163_840, "prompts": 900}


class Measure(Evaluator):
    def evaluate(self, encoder: Encoder, split: EvaluationSet) -> dict[str, float]:
        raise AssertionError("a plan measures nothing")
