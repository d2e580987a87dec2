"""What a study costs beside its trainings: wall time x slots over the seconds that trials work.

A study of 3N pools and the controls, times seeds, runs through the package's engine: CLIP from
scratch on generated shapes, evaluated at three rungs. The pools are random, so that a race finds
nothing to give up and its cost is all waiting: trials are paused at a rung until all have reached
it. Seconds of work are those that the trials themselves report, training and evaluation; all else
is overhead: start of processes, import of torch, reading a draw, checkpoints, pauses, idle slots.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.shapes import ShapesConfig, ShapesSource
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.nodes.connection import connect, slots
from djsandbox_ray.pools.draws import draw_from
from djsandbox_ray.records import Aggregate, Dataset, Pool, PoolKind, TrialRecord, TrialSpec
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.family import TrialData
from djsandbox_ray.trials.gang import bundles
from djsandbox_ray.trials.stopping.stopping import STOPPING, Competition
from djsandbox_ray.trials.worker import Shared


@dataclass(frozen=True)
class Study:
    """Random pools of one table, and how often each is trained."""

    storage: Storage
    train: Dataset
    evaluation: Dataset
    operators: int
    controls: int
    seeds: int
    budget: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """Samples seen at every report."""
        return self.budget // 4, self.budget // 2, self.budget

    def pools(self) -> dict[str, Pool]:
        """Return the pools by id."""
        names = [
            f"s{n}/{bucket}" for n in range(self.operators) for bucket in ("low", "mid", "high")
        ]
        kinds = {f"control/{n}": PoolKind.CONTROL for n in range(self.controls)}
        kinds |= dict.fromkeys(names, PoolKind.BUCKET)
        size = self.train.rows // 3
        return {name: Pool(name, kind, name, 0, size, name) for name, kind in kinds.items()}

    @property
    def draw_size(self) -> int:
        """Rows that a trial trains on."""
        return self.train.rows // 6

    def assign(self) -> str:
        """Write which rows are in which pool, at random; return the path."""
        rng, path = np.random.default_rng(0), "assignments.parquet"
        columns = {}
        for name, pool in self.pools().items():
            columns[name] = np.full(self.train.rows, -1, dtype=np.int8)
            columns[name][rng.permutation(self.train.rows)[: pool.size]] = 0
        row_ids = np.arange(self.train.rows, dtype=np.int64)
        self.storage.write_table(path, pa.table({"row_id": row_ids, **columns}))
        return path

    def specs(self, prefix: str, assignments: str) -> list[TrialSpec]:
        """Return the trials; the prefix keeps those of one measurement from being known already."""
        table = self.storage.read_table(assignments)
        parts = {
            name: [(table["row_id"].to_numpy(), table[name].to_numpy())] for name in self.pools()
        }
        return [
            TrialSpec(
                id=f"{prefix}-{name.replace('/', '-')}-{seed}",
                pool=name,
                seed=seed,
                draw_hash=draw_from(parts[name], pool, seed, self.draw_size, 0).hash,
                budget=self.budget,
            )
            for seed in range(self.seeds)
            for name, pool in self.pools().items()
        ]


@dataclass
class Watch:
    """What the driver sees of a study."""

    began: float
    first: float = 0.0
    """When the first report came, less the work that it reports."""

    def __post_init__(self) -> None:
        self.records: dict[str, TrialRecord] = {}

    def on_record(self, record: TrialRecord) -> None:
        """Keep the newest record of every trial."""
        if record.reports and not self.first:
            self.first = time.perf_counter() - worked(record)
        self.records[record.spec.id] = record


def worked(record: TrialRecord) -> float:
    """Return the seconds of training and evaluation that a trial reports."""
    if not record.reports:
        return 0.0
    return record.reports[-1].train_seconds + record.reports[-1].evaluation_seconds


def measure(study: Study, family: Clip, prepared: object, stopping: str, workers: int) -> str:
    """Run a study, and return its line of the table."""
    resources = Resources(workers=workers)
    pools, assignments = study.pools(), study.assign()
    specs = study.specs(f"{stopping}-{workers}", assignments)
    evaluator = EVALUATORS.get("retrieval").Config.model_validate(
        {"type": "retrieval", "k": [1, 5]}
    )
    evaluation = study.evaluation
    uri = study.storage.uri(evaluation.table)
    split = EvaluationSet.read(evaluation.id, uri, evaluation.classes)
    shared = Shared(
        family=family,
        prepared=prepared,
        suite=Suite([evaluator], [split]),
        pools=pools,
        assignments=assignments,
        draw_size=study.draw_size,
        base_seed=0,
        rungs=study.rungs,
        storage=study.storage.url,
        resources=resources,
        retries=0,
    )
    competition = Competition(
        pools=pools,
        specs=specs,
        known={},
        rungs=study.rungs,
        metrics=None,
        aggregate=Aggregate.MEAN_RELATIVE,
        decisions=(),
        on_decision=lambda decision: None,
    )
    choice = STOPPING.get(stopping)
    watch = Watch(time.perf_counter())
    run_trials(
        specs,
        shared,
        choice(choice.Config.model_validate({"type": stopping})),
        competition,
        watch.on_record,
        "tune",
    )
    wall = time.perf_counter() - watch.began
    return line(stopping, workers, list(watch.records.values()), wall, watch.first - watch.began)


def line(
    stopping: str, workers: int, records: Sequence[TrialRecord], wall: float, startup: float
) -> str:
    """Return a line of the table; a trial that failed has no place in it."""
    if failed := [record for record in records if record.error]:
        raise RuntimeError(f"{len(failed)} trials failed: {failed[0].error}")
    at_once = slots(bundles(Resources(workers=workers)))
    busy = sum(map(worked, records))
    states = [str(record.state) for record in records]
    return (
        f"{stopping:9}{workers:8}{len(records):8}{states.count('STOPPED'):9}{at_once:7}"
        f"{wall:9.1f}{busy:9.1f}{busy / len(records):11.1f}{wall * at_once / busy:8.3f}"
        f"{startup:10.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operators", type=int, default=3)
    parser.add_argument("--controls", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--budget", type=int, default=16384, help="samples seen by a trial")
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--stopping", nargs="+", default=["none", "race"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    args = parser.parse_args()

    connect(cpus=args.cpus)
    with tempfile.TemporaryDirectory(prefix="djsandbox-orchestration-") as folder:
        storage = Storage(folder)

        def made(samples: int, seed: int) -> Dataset:
            config = ShapesConfig(type="shapes", samples=samples, seed=seed)
            return ingest(ShapesSource(config), storage, max_rejected=0)

        study = Study(
            storage,
            made(args.rows, 0),
            made(1000, 1),
            args.operators,
            args.controls,
            args.seeds,
            args.budget,
        )
        family = Clip(ClipConfig(type="clip", arch="tiny", batch_size=128))
        began = time.perf_counter()
        evaluation = {study.evaluation.id: storage.uri(study.evaluation.table)}
        data = TrialData(storage.uri(study.train.table), evaluation)
        prepared = family.prepare(data).value
        print(
            f"{args.cpus} CPUs, {args.budget} samples per trial; samples made ready once in", end=""
        )
        print(f" {time.perf_counter() - began:.1f} s; seconds:")
        print(
            f"{'stopping':9}{'workers':>8}{'trials':>8}{'stopped':>9}{'slots':>7}{'wall':>9}"
            f"{'busy':>9}{'per trial':>11}{'ratio':>8}{'start-up':>10}"
        )
        for workers in args.workers:
            for stopping in args.stopping:
                print(measure(study, family, prepared, stopping, workers), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
