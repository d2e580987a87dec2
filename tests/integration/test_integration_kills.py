"""Kill -9 of anything, on two nodes: the run ends with the same ranking, and nothing is twice.

Whole runs of the command line with a race, several workers per trial in some, and MLflow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
from factories import read_events, wait_until
from machines import Machines, machines
from small_family import notes
from small_runs import SMALL, Ran, jobs_until, left, run, said, started, write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

RACE = {"type": "race", "rungs": [0.25, 0.5], "keep": 1, "audit": 0}
SINGLE = {"controls": 5, "size": 240, "self_tests": False}
MOMENT = ["trial", "pool", "seed", "state", "samples", "metric:taste"]


def _changes(folder: Path, workers: int = 1) -> dict[str, Any]:
    model = {"type": "small_family:Taster", "pause": 0.6, "place": str(folder / "notes")}
    resources = {"workers": workers}
    trials = {**SMALL["trials"], "model": model, "early_stopping": RACE, "resources": resources}
    return {"pools": SINGLE, "trials": trials}


def _completed(folder: Path) -> dict[Path, int]:
    """Return the trials that are over, and when that was written."""
    files = (folder / "storage" / "trials").glob("*.json")
    return {f: f.stat().st_mtime_ns for f in files if '"COMPLETED"' in f.read_text()}


@pytest.mark.slow
def test_a_killed_driver_is_resumed_by_the_same_command(ray_cluster: None, tmp_path: Path) -> None:
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    for folder in (whole, killed, killed / "notes"):
        folder.mkdir()
    undisturbed = run(whole, {"pools": SINGLE})
    plain = {**_changes(killed)["trials"], "early_stopping": SMALL["trials"]["early_stopping"]}
    config = write(killed, {"pools": SINGLE, "trials": plain, "cluster": {"cpus": 2}})
    hold = killed / "notes" / "hold"
    hold.touch()
    driver = started("run", str(config), log=log)

    def both_at_work() -> bool:
        assert driver.poll() is None, log.read_text()
        return len(notes(killed / "notes", "held")) == 2

    wait_until(both_at_work, log.read_text)
    driver.kill()
    driver.wait()
    hold.unlink()
    done = _completed(killed)
    assert done, "the first seed of the first pool comes before its second"
    resumed = left(killed, said("run", str(config)))
    assert f"noise: {len(done)} of 10 known already" in resumed.out
    assert done.items() <= _completed(killed).items()
    pd.testing.assert_frame_equal(resumed.ranking, undisturbed.ranking)
    trials = resumed.parquet()
    assert (trials["attempts"] == 2).sum() == 2, "those that were running went on"
    assert not trials.duplicated("trial").any()
    assert len(resumed.mlflow()) == len(undisturbed.mlflow()) == 17


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["raylet", "gcs_server", "python"])
def test_a_run_that_loses_its_cluster_is_stopped_and_leaves_nothing(
    tmp_path: Path, template: Path, undisturbed: Ran, victim: str
) -> None:
    """The cluster is the driver's own; ``python`` is the driver itself."""
    log = tmp_path / "log"
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    words = ("run", str(write(tmp_path, {**_changes(tmp_path), "cluster": {"cpus": 2}})))
    driver = started(*words, log=log)
    ours = psutil.Process(driver.pid)
    try:

        def at_work() -> bool:
            assert driver.poll() is None, log.read_text()
            return bool(notes(tmp_path / "notes", "behind"))

        wait_until(at_work, log.read_text)
        theirs = ours.children(recursive=True)
        killed = [ours] if victim == "python" else [p for p in theirs if p.name() == victim]
        assert len(killed) == 1
        killed[0].kill()
        driver.wait()
        wait_until(lambda: not any(map(_is_alive, theirs)), log.read_text)
    finally:
        driver.kill()
    said_last = log.read_text()
    assert "Traceback" not in said_last
    assert "the same command goes on" in said_last
    state = tmp_path / "storage" / "runs" / "small" / "run.json"
    assert json.loads(state.read_text())["state"] == "STOPPED"
    resumed = left(tmp_path, said(*words))
    assert not list((tmp_path / "storage").rglob("*.part"))
    pd.testing.assert_frame_equal(resumed.ranking, undisturbed.ranking)
    assert _decisions(resumed) == _decisions(undisturbed)
    assert _logged(resumed) == _logged(undisturbed)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


Victim = Callable[[Path, Machines], Callable[[], Any] | None]
"""From the folder of the run and the cluster: what kills it, once it is there."""


def _worker(rank: int) -> Victim:
    """Name a worker whose trial has saved its first rung and is behind it."""

    def find(folder: Path, cluster: Machines) -> Callable[[], Any] | None:
        behind = [note["pid"] for note in notes(folder / "notes", "behind") if note["rank"] == rank]
        return (lambda: os.kill(behind[-1], signal.SIGKILL)) if behind else None

    return find


def _node(folder: Path, cluster: Machines) -> Callable[[], Any] | None:
    """Name the node that joined last when it has a trial to lose."""
    name = list(cluster.nodes)[-1]
    busy = [note for note in notes(folder / "notes", "behind") if note["machine"] == name]
    return cluster.nodes[name].kill if busy else None


_driver: Victim = _worker(0)
"""The driver itself, at a moment when a trial is behind its first rung."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    with machines() as nodes:
        nodes.join("first")
        yield nodes


@pytest.fixture(scope="module")
def template(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the pools, made once."""
    folder = tmp_path_factory.mktemp("template")
    run(folder, {"pools": SINGLE, "workflow": jobs_until("pools")})
    (folder / "storage" / "mlflow.db").unlink()
    return folder


@pytest.fixture(scope="module")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    ran = run(folder, _changes(folder))
    given_up = [pool for decision in _decisions(ran) for pool in decision["stopped"]]
    assert given_up, "the race has to give up someone for a kill to prove anything"
    assert set(ran.parquet()["attempts"]) == {1}
    return ran


def _decisions(ran: Ran) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(ran.folder.glob("race/*/*.json"))]


def _logged(ran: Ran) -> dict[str, list[tuple[int, float]]]:
    """Return per trial the steps and values that MLflow has of its metric."""
    client = mlflow.MlflowClient(f"sqlite:///{ran.home}/mlflow.db")
    logged = {}
    for found in ran.mlflow()[1:]:
        name = f"{found.data.tags['pool']} {found.data.tags['seed']}"
        assert name not in logged, "a trial stands twice in MLflow"
        history = client.get_metric_history(found.info.run_id, "taste")
        logged[name] = sorted((point.step, point.value) for point in history)
    return logged


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "victim"),
    [(1, _worker(0)), (2, _worker(1)), (2, _worker(0)), (1, _node), (1, _driver)],
    ids=["a trial", "rank 1 of two", "rank 0 of two", "a node", "the driver"],
)
def test_a_kill_changes_nothing(
    tmp_path: Path,
    cluster: Machines,
    template: Path,
    undisturbed: Ran,
    workers: int,
    victim: Victim,
) -> None:
    folder, log = tmp_path, tmp_path / "log"
    if sum(node.process.poll() is None for node in cluster.nodes.values()) < 3:  # with the head
        cluster.join(f"node-{len(cluster.nodes)}")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    words = ("run", str(write(folder, _changes(folder, workers))))
    driver = started(*words, log=log, env=cluster.driver, cwd=folder)
    try:

        def there() -> Callable[[], Any] | None:
            assert driver.poll() is None, log.read_text()
            return victim(folder, cluster)

        kill = wait_until(there, log.read_text, pause=0.02)
        driver.kill() if victim is _driver else kill()
        assert driver.wait() == (-signal.SIGKILL if victim is _driver else 0), log.read_text()
    finally:
        driver.kill()
    if victim is _driver:
        said(*words, env=cluster.driver, cwd=folder)
    ran = left(folder)
    pd.testing.assert_frame_equal(ran.ranking, undisturbed.ranking)
    assert _decisions(ran) == _decisions(undisturbed)
    pd.testing.assert_frame_equal(ran.parquet()[MOMENT], undisturbed.parquet()[MOMENT])
    assert _logged(ran) == _logged(undisturbed)
    assert ran.parquet()["attempts"].max() > 1, "the kill has to have hit a trial"
    if victim is not _node:  # a node may be lost while its next trial is short of its first rung
        starts = notes(folder / "notes", "start")
        assert any(note["from"] for note in starts), "it goes on from its last rung"
    events = read_events(ran.storage, "small")
    begun = [one["details"]["resumed"] for one in events if one["event"] == "run_begun"]
    assert begun[-1] is True, "the template was made by a driver of its own"
    assert len(begun) == (3 if victim is _driver else 2)
    if victim is not _driver:
        assert any(one["event"] == "trial_retried" for one in events)
