"""Kill -9 in the middle: the same command finishes, and the verdicts are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from small_run import SMALL, mlflow_runs, write

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "djsandbox_ray", "run"]
# Slow enough that the kill falls between the first trial and the last.
CHANGES = {
    "scorer": None,
    "operators": ["special_characters_filter"],
    "trials": {**SMALL["trials"], "budget": 3200},
    "cluster": {"cpus": 2},
}


def _trial_states(folder: Path) -> list[str]:
    files = (folder / "storage" / "trials").glob("*.json")
    return ["COMPLETED" if '"COMPLETED"' in file.read_text() else "other" for file in files]


def _environment() -> dict[str, str]:
    # A cluster of its own, whatever this test process is connected to.
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


@pytest.mark.timeout(900)
def test_a_killed_driver_is_resumed_by_the_same_command(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
        write(folder, CHANGES)
    command = [*COMMAND, str(killed / "config.yaml")]
    driver = subprocess.Popen(
        command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while _trial_states(killed).count("COMPLETED") < 3:
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no trial was completed in four minutes"
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    done = {
        path: path.stat().st_mtime_ns
        for path in (killed / "storage" / "trials").glob("*.json")
        if '"COMPLETED"' in path.read_text()
    }
    assert 3 <= len(done) < 10

    again = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"noise: {len(done)} of 10 known already" in again.stdout
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())

    subprocess.run(
        [*COMMAND, str(whole / "config.yaml")], env=_environment(), capture_output=True, check=True
    )
    rankings = [
        pd.read_csv(folder / "storage" / "runs" / "small" / "ranking.csv")
        for folder in (killed, whole)
    ]
    pd.testing.assert_frame_equal(*rankings)
    trials = pd.read_parquet(killed / "storage" / "runs" / "small" / "trials.parquet")
    assert set(trials["attempts"]) == {1, 2}, "those that were running went on"
    assert not trials.duplicated("trial").any()
    assert len(mlflow_runs(killed)) == len(mlflow_runs(whole)) == 21
