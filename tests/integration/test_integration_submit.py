"""Runs on a cluster of two nodes that share only a bucket: submit, attach, stop, and resume."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import minimal_document
from machines import Machines, machines
from s3_server import SECRET, s3_here
from small_family import notes
from small_runs import INGEST, SMALL, jobs_until, said
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.storage.store import Storage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

CONFIG = minimal_document(
    name="waits",
    dataset__samples=30,
    evaluation__dataset__samples=10,
    tracking={"type": "none"},
    workflow="flows/waits.yaml",
)
DATASET = f"${{{INGEST}.output}}"
READING = jobs_until("evaluation")["jobs"][:1]
WORKFLOW = {
    "jobs": [*READING, {"id": "wait", "hook": "patient:Wait", "with": {"dataset": DATASET}}]
}
# In the user's working folder: it must be shipped, and it goes on only when the test says so.
MODULE = """
import time

import ray

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.records import Dataset


@ray.remote(num_cpus=0)
def seen(storage):
    while "go" not in storage.names(""):
        time.sleep(0.2)


class Wait(Hook):
    def identity(self):
        return []

    def run(self, dataset: Dataset) -> None:
        self.context.progress.note(f"the middle is reached in {__file__}")
        ray.get(seen.remote(self.context.storage))
"""


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What runs in the background of a shell ignores Ctrl-C, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Service:
    """A cluster, and a bucket that is all that its nodes share."""

    nodes: Machines
    bucket: str


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("s3")
    with s3_here(folder) as server, machines(server.environment) as nodes:
        nodes.join("first")
        nodes.join("second")
        yield Service(nodes, server.url)
        for node in nodes.nodes.values():
            assert list(node.work.iterdir()) == [], f"{node.name} wrote files where it works"


class Place:
    """A user's working folder, and the program there."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder / "work"
        self.storage = Storage(f"{service.bucket}/{folder.name}")
        (self.folder / "flows").mkdir(parents=True)
        (self.folder / "flows" / "waits.yaml").write_text(yaml.safe_dump(WORKFLOW))
        (self.folder / "patient.py").write_text(MODULE)
        (self.folder / "x.yaml").write_text(yaml.safe_dump(CONFIG))
        self._ray = {"RAY_AUTH_MODE": "disabled", "RAY_API_SERVER_ADDRESS": service.nodes.dashboard}
        driver = service.nodes.driver
        del driver["RAY_ADDRESS"], driver["PYTHONPATH"]
        self._environment = {**driver, **self._ray}

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
        out, _ = process.communicate()
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
        return self.storage.read_json("runs/waits/run.json")["state"]


def test_submitted_stopped_and_resumed(service: Service, tmp_path: Path) -> None:
    place = Place(tmp_path, service)

    config, storage = str(place.folder / "x.yaml"), ["--storage", place.storage.url]
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
    assert f"{service.nodes.dashboard}/#/jobs/{name}" in said

    # Attach, and detach by Ctrl-C: the job goes on.
    attached = place.start("logs", name, "--follow")
    for line in attached.stdout:
        if "the middle is reached" in line:
            break
    assert place.state() == "RUNNING"
    attached.send_signal(signal.SIGINT)
    out, _ = attached.communicate()
    assert attached.returncode == 130
    assert f"detached: the job {name} goes on" in out
    assert f"djsandbox stop {name} --address {service.nodes.dashboard}" in out

    again = place.submit(*storage, code=2)
    assert f"is RUNNING as the job {name}" in again
    assert f"djsandbox logs {name} --follow" in again
    assert f"(there are: {name})" in place("logs", "nosuch", code=2)

    stopped = place("stop", "waits")  # by the name of the run
    assert f"{name} was stopped" in stopped
    assert f"djsandbox submit x.yaml --storage {place.storage.url} --no-follow" in stopped
    assert place.state() == "STOPPED"
    (job,) = place.jobs()
    assert (job["state"], job["exit_code"], job["node"] is None) == ("STOPPED", 1, False)
    assert "stopped: what is finished is kept" in place("logs", name)
    assert "is over already" in place("stop", name)

    place.storage.write_bytes("go", b"x")
    done = place.submit(*storage, "--follow")
    assert f"{INGEST}: done before" in done
    assert "is done after" in done
    assert place.state() == "COMPLETED"
    assert [job["state"] for job in place.jobs()] == ["SUCCEEDED", "STOPPED"]
    assert "the middle is reached in " in done
    assert f"the middle is reached in {place.folder}" not in done, "what ran is what was shipped"


@pytest.mark.slow
def test_a_job_that_fails_ends_the_follower_as_itself(service: Service, tmp_path: Path) -> None:
    place = Place(tmp_path, service)
    missing = json.dumps({"type": "parquet", "path": str(tmp_path / "missing.parquet")})
    out = place.submit("--storage", place.storage.url, "--set", f"dataset={missing}", code=2)
    assert "missing.parquet" in out
    assert "has failed" in out
    assert place.jobs()[0]["exit_code"] == 2


@pytest.mark.slow
def test_a_study_on_two_nodes_keeps_everything_in_the_bucket(
    service: Service, tmp_path: Path
) -> None:
    model = {"type": "small_family:Taster", "pause": 0.5, "place": str(tmp_path / "notes")}
    config = {**SMALL, "trials": {**SMALL["trials"], "model": model}, "tracking": {"type": "none"}}
    storage = Storage(f"{service.bucket}/study")
    storage.write_bytes("config.yaml", yaml.safe_dump(config).encode())
    words = ("run", storage.uri("config.yaml"), "--storage", storage.url)
    (tmp_path / "work").mkdir()
    told = said(*words, env=service.nodes.driver, cwd=tmp_path / "work")
    assert SECRET not in told
    assert {note["machine"] for note in notes(tmp_path / "notes", "start")} == {"first", "second"}
    states = storage.read_table("runs/small/trials.parquet")["state"].to_pylist()
    assert set(states) == {"COMPLETED"}
    assert "ranking.csv" in storage.names("runs/small")
    assert not [name for name in storage.names("trials") if not name.endswith(".json")]
    before = storage.stamps("datasets") | storage.stamps("trials")
    again = said(*words, env=service.nodes.driver, cwd=tmp_path / "work")
    assert "trials: done before" in again
    assert storage.stamps("datasets") | storage.stamps("trials") == before
    assert list((tmp_path / "work").iterdir()) == []
