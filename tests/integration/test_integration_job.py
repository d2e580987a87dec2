"""Ray's own commands instead of ours: `ray job submit`, `ray job stop`, and the same once more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from s3_server import SECRET, s3_here
from small_run import SMALL

from djsandbox_ray.storage.store import Storage

sys.path.append(str(Path(__file__).resolve().parents[1] / "cluster"))

from machines import BIN, Machines, machines

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PATIENCE = 300
CONFIG: dict[str, Any] = {
    **SMALL,
    "dataset": {**SMALL["dataset"], "samples": 300},
    "scorer": None,
    "operators": ["special_characters_filter"],
    "pools": {"controls": 5, "size": 80, "self_tests": False},
    "trials": {**SMALL["trials"], "budget": 64},
    "tracking": {"type": "none"},
}


class Place:
    """A user's folder with ``configs/x.yaml``, a bucket, and a cluster that shares only that."""

    def __init__(self, folder: Path, cluster: Machines, storage: Storage) -> None:
        self.folder = folder
        self.storage = storage
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "x.yaml").write_text(yaml.safe_dump(CONFIG))
        self._at = ["--address", cluster.dashboard]
        kept = {key: text for key, text in os.environ.items() if not key.startswith("RAY_")}
        self._environment = {**kept, "RAY_AUTH_MODE": "disabled"}

    def submit(self, *options: str) -> str:
        command = f"djsandbox run configs/x.yaml --storage {self.storage.url}".split()
        return self.ray("submit", "--working-dir", ".", *options, "--", *command)

    def ray(self, verb: str, *words: str) -> str:
        done = subprocess.run(
            [str(BIN / "ray"), "job", verb, *self._at, *words],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def completed(self) -> set[str]:
        names = [name for name in self.storage.names("trials") if name.endswith(".json")]
        records = {name: self.storage.read_json(f"trials/{name}") for name in names}
        return {name for name, record in records.items() if record["state"] == "COMPLETED"}

    def state(self) -> str:
        return str(self.storage.read_json("runs/small/run.json")["state"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with s3_here(tmp_path) as server:
        environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        with machines({**server.environment, **environment}) as cluster:
            cluster.join("first")
            cluster.join("second")
            storage = Storage(f"{server.url}/prefix")
            yield Place(tmp_path / "work", cluster, storage)
            for node in cluster.nodes.values():
                assert list(node.work.iterdir()) == [], node.name


def _log(place: Place) -> str:
    return place.ray("logs", "raysubmit_first")


def test_stopped_by_ray_and_resumed_by_the_same_command(place: Place) -> None:
    place.submit("--no-wait", "--submission-id", "raysubmit_first")
    end = time.monotonic() + PATIENCE
    while len(place.completed()) < 2:
        going = re.search("PENDING|RUNNING", place.ray("status", "raysubmit_first"))
        assert going, _log(place)
        assert time.monotonic() < end, _log(place)
    stopped = place.ray("stop", "raysubmit_first")
    assert "was stopped" in stopped
    assert place.state() == "STOPPED"
    kept = {name: place.storage.stamps("trials")[name] for name in place.completed()}

    said = place.submit()
    assert "statistics: done before" in said
    assert "succeeded" in said
    assert SECRET not in said
    assert place.state() == "COMPLETED"
    assert all(place.storage.stamps("trials")[name] == stamp for name, stamp in kept.items())
    trials = place.storage.read_table("runs/small/trials.parquet")
    assert set(trials["state"].to_pylist()) == {"COMPLETED"}
    assert "ranking.csv" in place.storage.names("runs/small")
