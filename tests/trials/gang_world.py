"""What the tests of gangs and strategies share: a family with moods, and a process for rank 0."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from trial_world import ASSIGNMENTS, DRAW, ROWS, World, write_assignments

from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.retrieval import RetrievalConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.pools.draws import draw
from djsandbox_ray.records import Pool, PoolKind, RungReport
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.clip.arch import build_model
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.clip.training import DeviceArrays, Training
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.family import TrialTask
from djsandbox_ray.trials.gang import Gang, bundles
from djsandbox_ray.trials.worker import Shared, TrialWorker

PLAIN, HOT, DIVERGES, FAILS_ALONE, FOR_EVER = range(5)
"""Seeds of :class:`Moody`."""
# The last batch of 15, and every full one, does not divide by two.
BATCH, RUNGS = 63, (100, 330)
ROW_IDS = np.arange(ROWS, dtype=np.int64)


class Moody(Clip):
    """CLIP, except for some seeds; leaves the id of its process in ``<folder>/<rank>``."""

    folder: Path

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        (self.folder / str(task.group.rank)).write_text(str(os.getpid()))
        if task.seed == HOT:
            yield from self._hot(task, shared)
            return
        if task.seed == FAILS_ALONE and task.group.rank == 1:
            raise KeyError("on one rank only")
        config = self.config
        if task.seed == DIVERGES:
            config = config.model_copy(update={"learning_rate": 1e30})
        yield from Clip(config).train(task, shared)

    def _hot(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        """Train from a temperature beyond its bound, and report it."""
        model = build_model(self.arch, task.seed, shareable=True)
        model.logit_scale.data.fill_(math.log(100) + 1)
        samples = shared[0]
        arrays = DeviceArrays(
            samples.images(task.rows), samples.tokens(task.captions), task.seed, "cpu"
        )
        training = Training(model, arrays, self.config, "cpu", task.group)
        for state in training.run(task.rungs):
            plain = training.whole()
            metrics = {} if plain is None else {"scale": float(plain.logit_scale.detach())}
            yield RungReport(state.samples, state.loss, metrics, 0.0, 0.0, time.time_ns() // 10**6)
        training.close()


def shared_by(world: World, folder: Path, resources: Resources, rungs: tuple[int, ...]) -> Shared:
    split = EvaluationSet.read(world.evaluation.id, world.uri(world.evaluation), {})
    family = Moody(ClipConfig(type="clip", batch_size=BATCH, learning_rate=1e-3))
    family.folder = folder
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len/low", 0, ROWS, "hash")
    write_assignments(Storage(str(folder / "storage")), {pool.id: ROW_IDS})
    return Shared(
        family=family,
        prepared=world.prepared(family),
        suite=Suite([RetrievalConfig(type="retrieval", k=[5])], [split]),
        pools={pool.id: pool},
        assignments=ASSIGNMENTS,
        draw_size=DRAW,
        base_seed=0,
        rungs=rungs,
        storage=str(folder / "storage"),
        resources=resources,
        retries=0,
    )


class Lead:
    """A process with a worker of its own, or a gang: what a Tune trial is in a run."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        alone = shared.resources.workers == 1
        self._worker = TrialWorker(shared) if alone else Gang(shared, shared.resources)

    def run(self, name: str, seed: int, steps: int, reported: int = 0) -> list[dict[str, Any]]:
        """Take up a trial and return the results of its next steps."""
        ((_, pool),) = self._shared.pools.items()
        drawn = draw(pool, ROW_IDS, seed, DRAW, self._shared.base_seed).hash
        trial = {"id": name, "pool": pool.id, "seed": seed, "draw": drawn, "reports": []}
        self._worker.begin(trial, reported)
        return [self._worker.step() for _ in range(steps)]


def lead(shared: Shared) -> Any:
    """Start a lead in a placement group for a trial."""
    placement = ray.util.placement_group(bundles(shared.resources))
    ray.get(placement.ready(), timeout=300)
    strategy = PlacementGroupSchedulingStrategy(
        placement, 0, placement_group_capture_child_tasks=True
    )
    actor = ray.remote(Lead).options(
        num_cpus=shared.resources.cpus_per_worker, scheduling_strategy=strategy
    )
    return actor.remote(shared), placement
