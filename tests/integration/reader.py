"""A family that is quick to train and leaves notes of where it does so, for tests that kill it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.family import ModelFamily, Prepared, TrialTask


class Reader(ModelFamily):
    """Its metric is the mean length of the captions of its draw, and some noise.

    ``notes/`` beside the storage gets a file per start of a worker, and one per worker that is
    behind its first rung.
    """

    def prepare(self, train: str, evaluation: str, nodes: NodeKind) -> Prepared:
        return Prepared((train, Path(train.split("/storage/")[0]) / "notes"))

    def train(self, task: TrialTask, shared: tuple[str, Path]) -> Iterator[RungReport]:
        table, notes = shared
        texts = SampleTable(table).take(task.rows, ["text"])["text"].to_pylist()
        noise = np.random.default_rng([task.seed, int(task.rows[0])]).normal(0, 0.5)
        length = float(np.mean([len(text) for text in texts])) + float(noise)
        with task.checkpoint.load() as kept:
            done = 0 if kept is None else self._read(kept[1], task.group.rank)
        where = {
            "from": done,
            "rank": task.group.rank,
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
        }
        notes.mkdir(exist_ok=True)
        self._note(notes / f"start-{time.time_ns()}-{os.getpid()}.json", where)
        for rung in [rung for rung in task.rungs if rung > done]:
            time.sleep(0.6)
            metrics = {"length": length * rung / task.rungs[-1]}
            report = RungReport(rung, 1.0, metrics, 0.6, 0.0, time.time_ns() // 1_000_000)
            task.checkpoint.save(report, partial(self._write, task.group.rank, rung))
            yield report
            if rung == task.rungs[0]:
                self._note(notes / f"behind-{time.time_ns()}-{os.getpid()}.json", where)

    @staticmethod
    def _note(path: Path, content: dict[str, Any]) -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(content))
        unfinished.rename(path)

    @staticmethod
    def _write(rank: int, rung: int, folder: Path) -> None:
        (folder / f"rung-{rank}.json").write_text(str(rung))

    @staticmethod
    def _read(folder: Path, rank: int) -> int:
        return int((folder / f"rung-{rank}.json").read_text())
