"""Real trials under Ray Tune, with families of our own that misbehave."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from trial_world import World

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.retrieval import RetrievalConfig
from djsandbox_ray.evaluation.split import Split
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.records import Pool, PoolKind, RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.sections import Component
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialTask
from djsandbox_ray.trials.trainable import Shared

BUDGET = 512


class Moody(ModelFamily):
    """Says which process it ran in; fails as the seed tells it to."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        for samples in task.rungs:
            last = samples == task.rungs[-1]
            if last and task.seed == 1:
                raise Diverged("the training loss is nan after 7 samples")
            if last and task.seed == 2:
                raise RuntimeError("first line\nlast line")
            if last and task.seed == 3:
                os._exit(1)
            if last and task.seed == 4:
                return
            if task.seed == 5:
                samples += 1
            loss = nan if task.seed == 6 else 1.0
            metrics = {"process": float(os.getpid()), "rows": float(task.rows.sum())}
            yield RungReport(samples, loss, metrics, 0.1, 0.0, time.time_ns() // 1_000_000)


class Mortal(ModelFamily):
    """Its process dies at the last rung of its first attempt."""

    def train(self, task: TrialTask, shared: Path) -> Iterator[RungReport]:
        for samples in task.rungs:
            if samples == task.rungs[-1] and not (shared / f"died-{task.seed}").exists():
                (shared / f"died-{task.seed}").touch()
                os._exit(1)
            yield RungReport(samples, 1.0, {}, 0.1, 0.0, time.time_ns() // 1_000_000)


def _shared(family: ModelFamily, prepared: Any, split: Split, rungs: tuple[int, ...]) -> Shared:
    rows = np.arange(300, dtype=np.int64)
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len", 0, 300, "hash")
    return Shared(
        family=family,
        prepared=prepared,
        suite=Suite([RetrievalConfig(type="retrieval", k=[5])], split),
        pools={pool.id: pool},
        members={pool.id: ray.put(rows)},
        draw_size=200,
        base_seed=0,
        rungs=rungs,
        cpus=1,
        gpus=0,
    )


def _run(shared: Shared, seeds: range) -> tuple[list[TrialRecord], dict[str, TrialRecord]]:
    specs = [
        TrialSpec(f"t{seed}", "text_len/low", seed, "draw", shared.rungs[-1]) for seed in seeds
    ]
    seen: list[TrialRecord] = []
    run_trials(specs, shared, Resources(), seen.append)
    return seen, {record.spec.id: record for record in seen}


@pytest.fixture(scope="module")
def split(world: World) -> Split:
    return Split.read(world.evaluation.id, world.uri(world.evaluation))


def test_one_bad_trial_does_not_take_others_with_it(world: World, split: Split) -> None:
    shared = _shared(Moody(Component(type="moody")), None, split, (10, 20))
    seen, last = _run(shared, range(9))
    failed = {name for name, record in last.items() if record.state is TrialState.FAILED}
    assert failed == {"t1", "t2", "t3", "t4", "t5", "t6"}
    assert {last[name].state for name in last if name not in failed} == {TrialState.COMPLETED}
    assert {name for name in failed if last[name].diverged} == {"t1", "t6"}
    reasons = {name: record.error or "" for name, record in last.items()}
    assert reasons["t1"] == "Diverged: the training loss is nan after 7 samples"
    assert reasons["t2"] == "RuntimeError: first line"
    assert reasons["t3"], "a process that died must leave a reason"
    assert "ended before the budget" in reasons["t4"]
    assert "21 samples were seen, more than the budget 20" in reasons["t5"]
    assert "not finite after 10 samples: loss" in reasons["t6"]
    assert "last line" in (last["t2"].traceback or "")
    assert [report.samples for report in last["t7"].reports] == [10, 20]
    assert last["t1"].final is None
    first = next(record for record in seen if record.spec.id == "t7")
    assert first.state is TrialState.RUNNING


def test_a_trial_whose_process_died_is_started_again(
    world: World, split: Split, tmp_path: Path
) -> None:
    shared = _shared(Mortal(Component(type="mortal")), tmp_path, split, (10, 20))
    last = _run(shared, range(2))[1]
    assert {record.state for record in last.values()} == {TrialState.COMPLETED}
    assert [report.samples for report in last["t0"].reports] == [10, 20], "nothing stands twice"


def test_processes_are_reused_and_seeds_draw_their_own_rows(world: World, split: Split) -> None:
    shared = _shared(Moody(Component(type="moody")), None, split, (10,))
    last = {
        name: record.reports[-1].metrics for name, record in _run(shared, range(10, 16))[1].items()
    }
    assert len({metrics["process"] for metrics in last.values()}) <= 2
    assert len({metrics["rows"] for metrics in last.values()}) == 6


def test_clip_trials_repeat_exactly_and_report_rungs(world: World, split: Split) -> None:
    family = Clip(ClipConfig(type="clip", batch_size=64, learning_rate=1e-3))
    prepared = family.prepare(world.uri(world.train), world.uri(world.evaluation))
    shared = _shared(family, prepared, split, (BUDGET // 2, BUDGET))

    def results() -> dict[str, list[tuple[int, float, dict[str, float]]]]:
        return {
            name: [(report.samples, report.loss, report.metrics) for report in record.reports]
            for name, record in _run(shared, range(2))[1].items()
        }

    first = results()
    assert first == results()
    assert [report[0] for report in first["t0"]] == [256, 512]
    assert set(first["t0"][0][2]) == {"retrieval/image_to_text_r5", "retrieval/text_to_image_r5"}
    assert first["t0"] != first["t1"]


@pytest.mark.parametrize("resources", [{"gpus_per_worker": 0.5}, {"cpus_per_worker": 64}])
def test_what_no_node_has_is_refused_before_anything_starts(
    world: World, split: Split, resources: dict[str, float]
) -> None:
    if resources.get("gpus_per_worker") and ray.cluster_resources().get("GPU"):
        pytest.skip("this machine has the GPU that the test asks for in vain")
    shared = _shared(Moody(Component(type="moody")), None, split, (10,))
    specs = [TrialSpec("t", "text_len/low", 0, "draw", 10)]
    with pytest.raises(BadInput, match="which no node of the cluster has"):
        run_trials(specs, shared, Resources(**resources), lambda record: None)
