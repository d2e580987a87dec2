"""A first study of three statistics whose samples are worth what is planted, and its hooks.

Beside it the rows of tables that earlier jobs have left, and trials trained without a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from factories import ranking_row
from rich.console import Console

from djsandbox_ray.config import RunConfig
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.pools.build import construct
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Dataset,
    Evaluation,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    RungReport,
    Statistics,
    TrialRecord,
    Trials,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tracker import NullTracker
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialTask
from djsandbox_ray.trials.shared_folder import kept_model
from djsandbox_ray.trials.worker import Shared

ROWS = 2700
TRAIN = Dataset("dataset-train", "datasets/train.lance", ROWS, 0)
SPLIT = Dataset("dataset-evaluation", "datasets/evaluation.lance", 3, 0, "evaluation")
EVALUATION = Evaluation(SPLIT.id, (SPLIT,), (SPLIT.id,))
STATISTICS = Statistics("statistics-planted", ())


def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(size=ROWS) for name in ("a", "b", "c")}


def worth() -> np.ndarray:
    """High a is good, and high b among high a; c is worth nothing."""
    a, b = values()["a"] > 0.43, values()["b"] > 0.43
    return 0.3 * a + 0.3 * (a & b)


class Planted(ModelFamily):
    """Its metric is what the samples of the draw are worth."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        noise = np.random.default_rng([task.seed, int(task.rows[0])]).normal(0, 0.01)
        metrics = {"worth": 1 + float(worth()[task.rows].mean() + noise)}
        for rung in task.rungs:
            yield RungReport(rung, 1.0, metrics, 0.1, 0.0, 1_700_000_000_000)


class Hopeless(Planted):
    """Diverges whatever it trains on."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        yield from ()
        raise Diverged("the training loss is nan")


class Measure(Evaluator):
    """The family reports its metric itself."""

    def evaluate(self, encoder: Encoder, split: EvaluationSet) -> dict[str, float]:
        raise AssertionError("nothing is encoded here")


def context_of(storage: Storage, **changes: Any) -> tuple[Context, StringIO]:
    """Return what hooks use, and what they say."""
    shapes = {"type": "shapes", "samples": 10}
    document = {
        "name": "planted",
        "storage": storage.url,
        "dataset": shapes,
        "operators": ["text_length_filter"],
        "trials": {"model": {"type": "planted_world:Planted"}, "budget": 20, "seeds": 2},
        "evaluation": {"dataset": shapes, "metrics": [{"type": "planted_world:Measure"}]},
        **changes,
    }
    config, said = RunConfig.model_validate(document), StringIO()
    tracker = NullTracker(Component(type="none"), storage)
    progress = Progress(Console(file=said, width=300))
    return Context(config, storage, "runs/planted", tracker, progress), said


def first_pools(context: Context) -> Pools:
    """Write the assignments of the first study, and the evaluation split."""
    config, storage = context.config.pools, context.storage
    built = construct(np.arange(ROWS), values(), config)
    path = f"{context.folder}/assignments.parquet"
    storage.write_table(path, pa.table({"row_id": np.arange(ROWS), **built.assignments}))
    storage.write_json("datasets/marker.json", {})
    split = pa.table({"text": ["a", "b", "c"], "meta": [json.dumps({})] * 3})
    lance.write_dataset(split, storage.uri(SPLIT.table), mode="overwrite")
    pools = Pools("pools-first", path, built.pools, built.size, built.draw_size, built.eligible, 0)
    return replace(pools, contrast=built.contrast)


def train_controls(context: Context, pools: Pools) -> Trials:
    """Train as much of the first study as makes the unit of what follows: its controls."""
    controls = tuple(pool for pool in pools.pools if pool.kind is PoolKind.CONTROL)
    study = replace(pools, pools=controls)
    return Train(context).run(TRAIN, EVALUATION, study)


def ranking_of(storage: Storage, *rows: tuple[str, float, str]) -> Ranking:
    """Write the verdicts on some pools: id, change, verdict."""
    made = []
    for place, (pool, change, verdict) in enumerate(rows, start=1):
        told = {"rank": place, "shrunken": change / 2, "seeds": 2, "std": 0.1}
        interval = {"low": 0, "high": 1, "p": 0.01, "q": 0.01}
        made.append(ranking_row(pool, change, verdict, **told, **interval))
    storage.write_rows(RankingRow, "ranking.csv", made)
    return Ranking("ranking", "ranking.csv")


def confirmation_of(storage: Storage, *rows: tuple[str, float, str]) -> Confirmation:
    """Write what the second look found of some pools: id, confirmed change, verdict."""
    made = [
        ConfirmationRow(pool, 0.1, 0.0, 0.2, 0.05, confirmed, 0.0, 0.2, verdict, 2)
        for pool, confirmed, verdict in rows
    ]
    storage.write_rows(ConfirmationRow, "confirmation.csv", made)
    return Confirmation("confirmation", "confirmation.csv")


def _train_here(
    specs: Sequence[TrialSpec],
    shared: Shared,
    stopping: object,
    competition: object,
    on_record: Callable[[TrialRecord], None],
    *,
    save: Callable[[TrialRecord], None],
    **_: object,
) -> None:
    def told(record: TrialRecord) -> None:
        save(record)
        on_record(record)

    for spec in specs:
        drawn = shared.draw({**asdict(spec), "draw": spec.draw_hash})
        nothing: Any = None
        task = TrialTask(
            spec.seed,
            drawn.rows,
            drawn.captions,
            shared.rungs,
            1,
            0,
            nothing,
            nothing,
            nothing,
            budget=shared.budget,
            keep=partial(_keep, shared, spec.seed) if shared.models else None,
        )
        begun = TrialRecord(spec, TrialState.RUNNING, attempts=1, held_seconds=1.0)
        told(begun)
        try:
            reports = tuple(shared.family.train(task, shared.prepared))
        except Diverged as error:
            failed = replace(begun, state=TrialState.FAILED, error=str(error), diverged=True)
            told(failed)
        else:
            told(replace(begun, state=TrialState.COMPLETED, reports=reports))


def _keep(shared: Shared, seed: int, fill: Callable[[Path], Mapping[str, Any]]) -> None:
    kept_model(Storage(shared.storage), shared.models, seed).write(fill)


@contextmanager
def trained_here() -> Iterator[None]:
    """Train in this process, one trial after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("djsandbox_ray.trials.engine.run_trials", _train_here)
        yield
