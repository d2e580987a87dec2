"""Kill -9 of a trial's process, of one of its ranks, of a raylet: the study ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent


def _environment() -> dict[str, str]:
    # A cluster of its own, whatever this test process is connected to.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    folders = [str(HERE), str(HERE.parent / "trials")]
    return {**kept, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.pathsep.join(folders)}


def _run(
    folder: Path, workers: int = 1, kill: Callable[[Path], int | None] = lambda folder: 0
) -> dict[str, Any]:
    """Run the study; ``kill`` names the process to kill, as soon as it can, or 0 for none."""
    (folder / "notes").mkdir(parents=True)
    with (folder / "log").open("w") as log:
        study = subprocess.Popen(
            [sys.executable, str(HERE / "kill_study.py"), str(folder), str(workers)],
            env=_environment(),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while (victim := kill(folder)) is None:
                assert study.poll() is None, (folder / "log").read_text()
                time.sleep(0.02)
            if victim:
                os.kill(victim, signal.SIGKILL)
            study.wait(timeout=240)
        finally:
            study.kill()
    assert study.returncode == 0, (folder / "log").read_text()
    outcome: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
    return outcome


def _starts(folder: Path) -> list[dict[str, int]]:
    return [json.loads(file.read_text()) for file in (folder / "notes").iterdir()]


def _past_the_first_rung(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    """Return where the workers are whose trials have saved the first rung and are behind it."""
    places = []
    for done in (folder / "storage" / "trials").glob("*/10/done.json"):
        with suppress(FileNotFoundError):  # the next rung's has just taken its place
            places.append(json.loads(done.with_name(f"where-{rank}.json").read_text()))
    return places


def _process(rank: int) -> Callable[[Path], int | None]:
    def find(folder: Path) -> int | None:
        return next((place["pid"] for place in _past_the_first_rung(folder, rank)), None)

    return find


def _raylet(folder: Path) -> int | None:
    """Name the second raylet when it has a trial to lose."""
    if not _past_the_first_rung(folder):
        return None
    raylet = json.loads((folder / "raylet.json").read_text())
    busy = [place for place in _past_the_first_rung(folder) if place["node"] == raylet["node"]]
    return int(raylet["pid"]) if busy else None


def _result(outcome: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may differ: times, and how often something was tried."""
    return {
        "decisions": outcome["decisions"],
        "trials": {
            name: (
                record["state"],
                [(report["samples"], report["metrics"]) for report in record["reports"]],
            )
            for name, record in outcome["trials"].items()
        },
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("workers", "kill"),
    [(1, _process(0)), (1, _raylet), (2, _process(1)), (2, _process(0))],
    ids=["the process of a trial", "the second raylet", "rank 1 of two", "rank 0 of two"],
)
def test_a_kill_changes_nothing(
    tmp_path: Path,
    undisturbed: dict[str, Any],
    workers: int,
    kill: Callable[[Path], int | None],
) -> None:
    outcome = _run(tmp_path, workers, kill)
    assert _result(outcome) == _result(undisturbed)
    decided = [name for decision in outcome["decisions"] for name in decision["stopped"]]
    assert decided, "the race has to have given up someone for this to prove anything"
    attempts = [record["attempts"] for record in outcome["trials"].values()]
    assert max(attempts) > 1, "the kill has to have hit a trial"
    if kill is not _raylet:  # a node may be lost while its trial is short of the first rung
        again = [start for start in _starts(tmp_path) if start["from"] > 0]
        assert again, "it goes on from its last rung"
