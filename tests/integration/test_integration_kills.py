"""Kill -9 of anything, on two raylets: the run ends with the same ranking, and nothing is twice.

Whole runs of the command line with a race, several workers per trial in some, and MLflow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from raylets import environment, two_raylets
from small_run import mlflow_runs, write

from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.events import read_events

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

COMMAND = [sys.executable, "-m", "djsandbox_ray", "run"]
WORKFLOW = Path(__file__).resolve().parents[2] / "configs" / "workflows" / "single_op.yaml"
TRIALS = {
    "model": {"type": "reader:Reader"},
    "budget": 40,
    "seeds": 2,
    "early_stopping": {"type": "race", "rungs": [0.25, 0.5], "keep": 1, "audit": 0},
}
CHANGES: dict[str, Any] = {
    "scorer": None,
    "operators": ["text_length_filter"],
    "pools": {"controls": 5, "self_tests": False},
    "confirm": {"top": 0},
    "trials": TRIALS,
}

Note = dict[str, Any]
Victim = Callable[[Path, dict[str, Any]], int | None]
"""From the folder of the run and the cluster: the process to kill, once it is there."""


@dataclass(frozen=True)
class Outcome:
    folder: Path
    out: str
    ranking: pd.DataFrame
    trials: pd.DataFrame
    decisions: list[Any]
    logged: dict[str, list[tuple[int, float]]]
    """Per trial, the steps and values that MLflow has of its metric."""


def _notes(folder: Path, kind: str) -> list[Note]:
    return [json.loads(file.read_text()) for file in sorted((folder / "notes").glob(f"{kind}-*n"))]


def _worker(rank: int) -> Victim:
    """Name a worker whose trial has saved its first rung and is behind it."""

    def find(folder: Path, cluster: dict[str, Any]) -> int | None:
        behind = [note["pid"] for note in _notes(folder, "behind") if note["rank"] == rank]
        return behind[-1] if behind else None

    return find


def _raylet(folder: Path, cluster: dict[str, Any]) -> int | None:
    """Name the second raylet when it has a trial to lose."""
    busy = [note for note in _notes(folder, "behind") if note["node"] == cluster["node"]]
    return cluster["pid"] if busy else None


def _prepared(folder: Path, workers: int, template: Path | None) -> Path:
    folder.mkdir(exist_ok=True)
    if template is not None:  # what comes before the trials is done
        shutil.copytree(template / "storage", folder / "storage")
    resources = {"workers": workers}
    return write(folder, {**CHANGES, "trials": {**TRIALS, "resources": resources}})


def _finished(command: list[str], folder: Path, cluster: dict[str, Any]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(cluster),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _run(folder: Path, template: Path, workers: int = 1, victim: Victim | None = None) -> Outcome:
    config = _prepared(folder, workers, template)
    command = [*COMMAND, str(config)]
    with two_raylets(folder) as cluster:
        if victim is None:
            return _outcome(folder, _finished(command, folder, cluster))
        with (folder / "log").open("w") as log:
            driver = subprocess.Popen(
                command, cwd=folder, env=environment(cluster), stdout=log, stderr=log
            )
            try:
                own = driver.pid if victim is _driver else 0
                while (killed := victim(folder, cluster)) is None:
                    assert driver.poll() is None, (folder / "log").read_text()
                    time.sleep(0.02)
                os.kill(own or killed, signal.SIGKILL)
                code = driver.wait(timeout=300)
            finally:
                driver.kill()
        if own:
            assert code == -signal.SIGKILL
            return _outcome(folder, _finished(command, folder, cluster))
        assert code == 0, (folder / "log").read_text()
        return _outcome(folder, (folder / "log").read_text())


_driver: Victim = _worker(0)
"""The driver itself, at a moment when a trial is behind its first rung."""


def _outcome(folder: Path, out: str) -> Outcome:
    run = folder / "storage" / "runs" / "small"
    client = mlflow.MlflowClient(f"sqlite:///{folder}/storage/mlflow.db")
    logged = {}
    for found in mlflow_runs(folder):
        if "mlflow.parentRunId" in found.data.tags:
            name = f"{found.data.tags['pool']} {found.data.tags['seed']}"
            assert name not in logged, "a trial stands twice in MLflow"
            history = client.get_metric_history(found.info.run_id, "length")
            logged[name] = sorted((point.step, point.value) for point in history)
    return Outcome(
        folder,
        out,
        pd.read_csv(run / "ranking.csv"),
        pd.read_parquet(run / "trials.parquet"),
        [json.loads(path.read_text()) for path in sorted(run.glob("race/*/*.json"))],
        logged,
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the pools, made once."""
    folder = tmp_path_factory.mktemp("template")
    jobs = WORKFLOW.read_text()
    short = folder / "until_pools.yaml"
    short.write_text(jobs[: jobs.index("  # The controls first")])
    config = write(folder, {**CHANGES, "workflow": str(short)})
    with two_raylets(folder) as cluster:
        _finished([*COMMAND, str(config)], folder, cluster)
    (folder / "storage" / "mlflow.db").unlink()
    return folder


@pytest.fixture(scope="module")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    outcome = _run(tmp_path_factory.mktemp("undisturbed") / "run", template)
    given_up = [pool for decision in outcome.decisions for pool in decision["stopped"]]
    assert given_up, "the race has to give up someone for a kill to prove anything"
    assert set(outcome.trials["attempts"]) == {1}
    return outcome


@pytest.mark.parametrize(
    ("workers", "victim"),
    [(1, _worker(0)), (2, _worker(1)), (2, _worker(0)), (1, _raylet), (1, _driver)],
    ids=["a trial", "rank 1 of two", "rank 0 of two", "the second raylet", "the driver"],
)
def test_a_kill_changes_nothing(
    tmp_path: Path, template: Path, undisturbed: Outcome, workers: int, victim: Victim
) -> None:
    outcome = _run(tmp_path / "run", template, workers, victim)
    pd.testing.assert_frame_equal(outcome.ranking, undisturbed.ranking)
    assert outcome.decisions == undisturbed.decisions
    columns = ["trial", "pool", "seed", "state", "samples", "metric:length"]
    pd.testing.assert_frame_equal(outcome.trials[columns], undisturbed.trials[columns])
    assert outcome.logged == undisturbed.logged
    assert outcome.trials["attempts"].max() > 1, "the kill has to have hit a trial"
    if victim is not _raylet:  # a node may be lost while its next trial is short of its first rung
        starts = _notes(outcome.folder, "start")
        assert any(note["from"] for note in starts), "it goes on from its last rung"
    events = read_events(Storage(str(outcome.folder / "storage")), "small")
    begun = [one["details"]["resumed"] for one in events if one["event"] == "run_begun"]
    assert begun[-1] is True, "the template was made by a driver of its own"
    assert len(begun) == (3 if victim is _driver else 2)
    if victim is not _driver:
        assert any(one["event"] == "trial_retried" for one in events)
