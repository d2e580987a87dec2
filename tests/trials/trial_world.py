"""What the trial tests share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.pools.draws import draw
from djsandbox_ray.records import (
    Aggregate,
    Dataset,
    Pool,
    PoolKind,
    RungReport,
    TrialRecord,
    TrialSpec,
)
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.family import ModelFamily, TrialData, TrialTask
from djsandbox_ray.trials.stopping.stopping import STOPPING, Competition, Decision
from djsandbox_ray.trials.vigil import Silence
from djsandbox_ray.trials.worker import Shared

ROWS, DRAW = 300, 200
ASSIGNMENTS = "assignments.parquet"


def write_assignments(storage: Storage, rows: Mapping[str, NDArray[np.int64]]) -> None:
    """Write which rows are in which pool: a column for each, of its name."""
    row_ids = np.arange(max(int(some.max()) for some in rows.values()) + 1, dtype=np.int64)
    columns = {
        name: np.where(np.isin(row_ids, some), 0, -1).astype(np.int8) for name, some in rows.items()
    }
    storage.write_table(ASSIGNMENTS, pa.table({"row_id": row_ids, **columns}))


@dataclass(frozen=True)
class World:
    storage: Storage
    train: Dataset
    evaluation: Dataset

    def uri(self, dataset: Dataset) -> str:
        return self.storage.uri(dataset.table)

    def prepared(self, family: ModelFamily) -> Any:
        """Return what the family's trials share."""
        evaluation = {self.evaluation.id: self.uri(self.evaluation)}
        return family.prepare(TrialData(self.uri(self.train), evaluation)).value


class Counter(ModelFamily):
    """Counts samples, keeps the count at every rung, and notes each start in a folder.

    Its metric is the quality of the pool, told by the rows of the draw: pools are shifted blocks.
    """

    def __init__(self, seconds: float = 0.0, checkpoints: bool = True) -> None:
        super().__init__(Component(type="counter"))
        self.seconds = seconds
        self.checkpoints = checkpoints

    def train(self, task: TrialTask, shared: Path) -> Iterator[RungReport]:
        quality = float(task.rows.min() // ROWS)
        done = 0
        with task.checkpoint.load() as kept:
            if kept is not None:
                done = int((kept[1] / f"count-{task.group.rank}.json").read_text())
        start = {"from": done, "pid": os.getpid(), "rank": task.group.rank}
        name = f"{quality:g}-{task.seed}-{time.time_ns()}"
        (shared / name).write_text(json.dumps(start))
        for rung in [rung for rung in task.rungs if rung > done]:
            self.work(task, shared, rung)
            done = rung
            noise = np.random.default_rng([task.seed, int(quality)]).normal(0, 0.1)
            metrics = {"quality": 10 + quality + float(noise)}
            report = RungReport(rung, 1.0, metrics, 0.1 * rung, 0.0, time.time_ns() // 1_000_000)
            if self.checkpoints:
                task.checkpoint.save(report, partial(self.write, task, rung))
            yield report

    def work(self, task: TrialTask, shared: Path, rung: int) -> None:
        """Take the time that training takes."""
        time.sleep(self.seconds)

    @staticmethod
    def write(task: TrialTask, rung: int, folder: Path) -> None:
        node = ray.get_runtime_context().get_node_id()
        where = {"pid": os.getpid(), "node": node}
        (folder / f"where-{task.group.rank}.json").write_text(json.dumps(where))
        (folder / f"count-{task.group.rank}.json").write_text(str(rung))


def starts(folder: Path) -> list[dict[str, int]]:
    """Return where every start of a Counter began, in order."""
    files = sorted(folder.iterdir(), key=lambda file: file.name.rsplit("-", 1)[1])
    return [json.loads(file.read_text()) for file in files]


@dataclass
class Arena:
    """A study of a Counter: pools of growing quality, controls in the middle of them."""

    storage: Storage
    buckets: int = 1
    controls: int = 0
    seeds: Sequence[int] = (0,)
    rungs: tuple[int, ...] = (10, 20)
    resources: Resources = field(default_factory=Resources)
    retries: int = 2
    retry_diverged: bool = False
    stall_seconds: float | None = None
    silences: list[Silence] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = [PoolKind.CONTROL] * self.controls + [PoolKind.BUCKET] * self.buckets
        places = [self.buckets // 2] * self.controls + list(range(self.buckets))
        ids = [f"control/{n}" for n in range(self.controls)]
        ids += [f"s/{n}" for n in range(self.buckets)]
        self.rows = {
            name: place * ROWS + np.arange(ROWS, dtype=np.int64)
            for name, place in zip(ids, places, strict=True)
        }
        self.pools = {
            name: Pool(name, kind, name, 0, ROWS, "hash")
            for name, kind in zip(ids, kinds, strict=True)
        }
        self.specs = [
            self._spec(name, pool, seed) for seed in self.seeds for name, pool in self.pools.items()
        ]

    def _spec(self, name: str, pool: Pool, seed: int) -> TrialSpec:
        drawn = draw(pool, self.rows[name], seed, DRAW, 0).hash
        return TrialSpec(f"{name.replace('/', '-')}-{seed}", name, seed, drawn, self.rungs[-1])

    def shared(self, family: ModelFamily, prepared: Any) -> Shared:
        write_assignments(self.storage, self.rows)
        return Shared(
            family=family,
            prepared=prepared,
            suite=Suite([], []),
            pools=self.pools,
            assignments=ASSIGNMENTS,
            draw_size=DRAW,
            base_seed=0,
            rungs=self.rungs,
            storage=self.storage.url,
            resources=self.resources,
            retries=self.retries,
            retry_diverged=self.retry_diverged,
            stall_seconds=self.stall_seconds,
        )

    def competition(self, known: Mapping[str, TrialRecord] | None = None) -> Competition:
        return Competition(
            pools=self.pools,
            specs=self.specs,
            known=known or {},
            rungs=self.rungs,
            metrics=None,
            aggregate=Aggregate.MEAN_RELATIVE,
            decisions=tuple(self.decisions),
            on_decision=self.decisions.append,
        )

    def run(
        self,
        family: ModelFamily,
        prepared: Any,
        stopping: Mapping[str, Any] | None = None,
        known: Mapping[str, TrialRecord] | None = None,
    ) -> tuple[list[TrialRecord], dict[str, TrialRecord]]:
        """Run what is not settled; return every record that was handed over, and the last ones."""
        seen: list[TrialRecord] = []
        known = known or {}
        choice = STOPPING.get(str((stopping or {"type": "none"})["type"]))
        todo = [spec for spec in self.specs if spec.id not in known or not known[spec.id].settled]
        run_trials(
            todo,
            self.shared(family, prepared),
            choice(choice.Config.model_validate(stopping or {"type": "none"})),
            self.competition(known),
            seen.append,
            "tune",
            on_silence=self.silences.append,
        )
        return seen, {**known, **{record.spec.id: record for record in seen}}
