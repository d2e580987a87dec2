"""Runs as jobs of a cluster, by the command line: submit, attach, stop in the middle, resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.errors import SandboxError

sys.path.append(str(Path(__file__).resolve().parents[1] / "cluster"))

from machines import machines

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PATIENCE = 240
CONFIG: dict[str, Any] = {
    "name": "waits",
    "dataset": {"type": "shapes", "samples": 30},
    "operators": ["text_length_filter"],
    "trials": {"model": {"type": "clip"}, "budget": 64},
    "evaluation": {
        "dataset": {"type": "shapes", "samples": 10},
        "metrics": [{"type": "retrieval", "k": [1]}],
    },
    "tracking": {"type": "none"},
    "workflow": "flows/waits.yaml",
}
WORKFLOW = {
    "jobs": [
        {"id": "ingest", "hook": "ingest"},
        {"id": "wait", "hook": "patient:Wait", "with": {"dataset": "${ingest.output}"}},
    ]
}
# In the user's working folder: it must be shipped, and it goes on only when the test says so.
MODULE = """
import time
from pathlib import Path

import ray

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.records import Dataset


@ray.remote(num_cpus=0)
def seen(path):
    while not Path(path).exists():
        time.sleep(0.05)


class Wait(Hook):
    def identity(self):
        return []

    def run(self, dataset: Dataset) -> None:
        self.context.progress.note(f"the middle is reached in {__file__}")
        ray.get(seen.remote(self.context.storage.uri("go")))
"""


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What runs in the background of a shell ignores Ctrl-C, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with machines(environment) as cluster:
        cluster.join("worker", cpus=1)
        yield cluster.dashboard


class Place:
    """A user's working folder, and the program there."""

    def __init__(self, folder: Path, dashboard: str) -> None:
        self.folder = folder / "work"
        self.storage = folder / "storage"
        (self.folder / "flows").mkdir(parents=True)
        (self.folder / "flows" / "waits.yaml").write_text(yaml.safe_dump(WORKFLOW))
        (self.folder / "patient.py").write_text(MODULE)
        (self.folder / "x.yaml").write_text(yaml.safe_dump(CONFIG))
        kept = {key: text for key, text in os.environ.items() if not key.startswith("RAY_")}
        self._ray = {"RAY_AUTH_MODE": "disabled", "RAY_API_SERVER_ADDRESS": dashboard}
        self._environment = {**kept, **self._ray}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "djsandbox_ray", *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, *arguments: str, code: int = 0) -> str:
        process = self.start("submit", "x.yaml", *arguments)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, out
        return out

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that leaves nothing in a process in this one, which has all imported."""
        result = CliRunner().invoke(app, arguments, env=self._ray)
        error = result.exception
        found = error.exit_code if isinstance(error, SandboxError) else result.exit_code
        assert found == code, result.output
        return f"{result.output}{error or ''}"

    def jobs(self) -> list[dict[str, Any]]:
        return json.loads(self("status", "--json"))

    def state(self) -> str:
        return json.loads((self.storage / "runs" / "waits" / "run.json").read_text())["state"]


def test_submitted_stopped_and_resumed(dashboard: str, tmp_path: Path) -> None:
    place = Place(tmp_path, dashboard)

    config, storage = str(place.folder / "x.yaml"), ["--storage", str(place.storage)]
    wrong = place("submit", config, "--set", "dataset.path=data.tar", "--set", "name=/x", code=2)
    assert "dataset.path: unknown key" in wrong
    assert "name: " in wrong
    local = place("submit", config, "--set", "workflow=single_op", code=2)
    assert "storage: './sandbox' is relative" in local
    assert place.jobs() == []

    said = place.submit(*storage, "--no-follow")
    assert "flows/waits.yaml, patient.py (" in said
    (job,) = place.jobs()
    name = job["id"]
    assert name.startswith("waits-2")
    assert f"{dashboard}/#/jobs/{name}" in said

    # Attach, and detach by Ctrl-C: the job goes on.
    attached = place.start("logs", name, "--follow")
    for line in attached.stdout:
        if "the middle is reached" in line:
            break
    assert place.state() == "RUNNING"
    attached.send_signal(signal.SIGINT)
    out, _ = attached.communicate(timeout=PATIENCE)
    assert attached.returncode == 130
    assert f"detached: the job {name} goes on" in out
    assert f"djsandbox stop {name} --address {dashboard}" in out

    again = place.submit(*storage, code=2)
    assert f"is RUNNING as the job {name}" in again
    assert f"djsandbox logs {name} --follow" in again
    assert f"(there are: {name})" in place("logs", "nosuch", code=2)

    stopped = place("stop", "waits")  # by the name of the run
    assert f"{name} was stopped" in stopped
    assert f"djsandbox submit x.yaml --storage {place.storage} --no-follow" in stopped
    assert place.state() == "STOPPED"
    (job,) = place.jobs()
    assert (job["state"], job["exit_code"], job["node"] is None) == ("STOPPED", 1, False)
    assert "stopped: what is finished is kept" in place("logs", name)
    assert "is over already" in place("stop", name)

    (place.storage / "go").touch()
    done = place.submit(*storage, "--follow")
    assert "ingest: done before" in done
    assert "is done after" in done
    assert place.state() == "COMPLETED"
    assert [job["state"] for job in place.jobs()] == ["SUCCEEDED", "STOPPED"]
    assert "the middle is reached in " in done
    assert f"the middle is reached in {place.folder}" not in done, "what ran is what was shipped"


def test_a_job_that_fails_ends_the_follower_as_itself(dashboard: str, tmp_path: Path) -> None:
    place = Place(tmp_path, dashboard)
    missing = json.dumps({"type": "parquet", "path": str(tmp_path / "missing.parquet")})
    out = place.submit("--storage", str(place.storage), "--set", f"dataset={missing}", code=2)
    assert "missing.parquet" in out
    assert "has failed" in out
    assert place.jobs()[0]["exit_code"] == 2
