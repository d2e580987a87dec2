"""A gang's workers fail, die and go on together.

Trials that wait for a place, with Ray Tune.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from gang_world import DIVERGES, FAILS_ALONE, FOR_EVER, PLAIN, lead, shared_by
from trial_world import Arena, Counter, World

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import reporter
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.gang import bundles
from djsandbox_ray.trials.stopping.stopping import NoStopping, StoppingConfig

PATIENCE = 600
"""Seconds after which something hangs."""


@pytest.fixture
def pair(world: World, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """A process that leads a gang of two, and the folder where its workers leave their ids."""
    rungs = (126, 100_000_000)
    actor, placement = lead(shared_by(world, tmp_path, Resources(workers=2), rungs))
    yield actor, tmp_path
    ray.kill(actor)
    ray.util.remove_placement_group(placement)


def _pid(folder: Path, rank: int) -> int:
    """Return the process id of a worker that has begun to train."""
    file, end = folder / str(rank), time.monotonic() + PATIENCE
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, "the worker never began"
        time.sleep(0.05)
    return int(file.read_text())


def _report(result: dict[str, Any]) -> dict[str, Any]:
    assert "report" in result, result["failure"]["traceback"]
    report: dict[str, Any] = result["report"]
    return report


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_rank_is_an_error_and_no_hang(pair: tuple[Any, Path]) -> None:
    actor, folder = pair
    ray.get(actor.run.remote("first", PLAIN, 1), timeout=PATIENCE)
    endless = actor.run.remote("endless", FOR_EVER, 2)
    time.sleep(1)  # into the second rung, which would take hours
    first = _pid(folder, 1)
    _kill(first)
    with pytest.raises(ray.exceptions.RayTaskError, match="a worker of the trial died"):
        ray.get(endless, timeout=PATIENCE)
    again = ray.get(actor.run.remote("again", PLAIN, 1), timeout=PATIENCE)
    assert _report(again[0])["samples"] == 126, "the gang was not formed anew"
    assert _pid(folder, 1) != first


@pytest.mark.slow
def test_other_ranks_end_with_rank_0(pair: tuple[Any, Path]) -> None:
    actor, folder = pair
    ray.get(actor.run.remote("first", PLAIN, 1), timeout=PATIENCE)
    other = psutil.Process(_pid(folder, 1))
    endless = actor.run.remote("endless", FOR_EVER, 2)
    _kill(_pid(folder, 0))
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(endless, timeout=PATIENCE)
    other.wait(PATIENCE)


@pytest.mark.slow
def test_what_fails_on_one_rank_alone_is_the_trials_failure(pair: tuple[Any, Path]) -> None:
    actor, folder = pair
    (result,) = ray.get(actor.run.remote("odd", FAILS_ALONE, 1), timeout=PATIENCE)
    assert result["failure"]["error"] == "KeyError: 'on one rank only'"
    assert not result["failure"]["diverged"]
    before = _pid(folder, 1)
    (after,) = ray.get(actor.run.remote("next", PLAIN, 1), timeout=PATIENCE)
    assert _report(after)["samples"] == 126
    assert _pid(folder, 1) != before


def test_divergence_is_seen_by_all_and_keeps_the_processes(pair: tuple[Any, Path]) -> None:
    actor, folder = pair
    (result,) = ray.get(actor.run.remote("wild", DIVERGES, 1), timeout=PATIENCE)
    assert result["failure"]["diverged"], result
    before = _pid(folder, 1)
    ray.get(actor.run.remote("next", PLAIN, 1), timeout=PATIENCE)
    assert _pid(folder, 1) == before


@pytest.mark.slow
def test_a_trial_of_another_pool_can_follow_one_that_was_stopped(pair: tuple[Any, Path]) -> None:
    actor, _ = pair
    first = ray.get(actor.run.remote("stopped", PLAIN, 1), timeout=PATIENCE)
    second = ray.get(actor.run.remote("next", PLAIN, 1), timeout=PATIENCE)
    for name in ("samples", "loss", "metrics"):
        assert _report(first[0])[name] == _report(second[0])[name]


def test_bundles_hold_one_worker_each() -> None:
    resources = Resources(workers=3, cpus_per_worker=2, gpus_per_worker=1)
    assert bundles(resources) == [{"CPU": 2, "GPU": 1}] * 3
    assert bundles(Resources(cpus_per_worker=0.5)) == [{"CPU": 0.5}]


@ray.remote(num_cpus=2)
class Holder:
    def ready(self) -> bool:
        return True


def test_who_waits_for_a_place_may_end_the_study(
    ray_cluster: None, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "_PATIENCE", 0.5)
    holder = Holder.remote()
    assert ray.get(holder.ready.remote())
    arena = Arena(storage)
    waits: list[Sequence[Mapping[str, float]] | None] = []

    def enough(group: Sequence[Mapping[str, float]] | None) -> None:
        waits.append(group)
        if len(waits) == 3:
            raise SandboxError("the nodes are gone")

    try:
        with pytest.raises(SandboxError, match=r"^the nodes are gone$"):
            run_trials(
                arena.specs,
                arena.shared(Counter(), tmp_path),
                NoStopping(StoppingConfig(type="none")),
                arena.competition(),
                lambda record: None,
                "tune",
                on_waiting=enough,
            )
    finally:
        ray.kill(holder)
    assert waits == [[{"CPU": 1}]] * 3
