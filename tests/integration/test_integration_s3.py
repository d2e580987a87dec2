"""A whole run with its storage in S3, on two nodes that share no folder.

Trusted data, model, statistics, checkpoints and recipe pass between them and the driver through the
bucket and Ray alone. Once the driver is killed; once Ray's own commands submit, stop, and resume.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import wait_until
from machines import BIN, Machines, machines
from s3_server import SECRET, S3Server, s3_here
from small_runs import ROOT, SMALL, environment, jobs_until, said, started

from djsandbox_ray.storage.store import Storage

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

CHANGES: dict[str, Any] = {
    "scorer": {
        "dataset": {"type": "shapes", "samples": 300, "seed": 1},
        "model": {"type": "clip"},
        "budget": 600,
    },
    "operators": [{"image_text_similarity_filter": {"hf_clip": "${scorer}"}}],
    "pools": {"controls": 5, "size": 250, "self_tests": False},
    "trials": {**SMALL["trials"], "model": {"type": "clip", "batch_size": 32}, "budget": 320},
    "tracking": {"type": "none"},
}


@dataclass(frozen=True)
class World:
    """A cluster, a bucket, and where the command is typed."""

    folder: Path
    server: S3Server
    storage: Storage
    nodes: Machines
    words: tuple[str, ...]
    """Of the command."""
    place: dict[str, Any]
    """Working folder and environment of the command."""

    def finished(self) -> str:
        told = said(*self.words, **self.place)
        assert SECRET not in told
        return told


def _workflow() -> dict[str, Any]:
    """Give the pools and their trials, then a recipe that Data-Juicer itself runs."""
    first = jobs_until("ranking")["jobs"]
    recipe = yaml.safe_load((ROOT / "configs" / "workflows" / "recipe_only.yaml").read_text())
    known = {job["id"] for job in first}
    more = [job for job in recipe["jobs"] if job["id"] not in known]
    for job in more:
        if job["id"] == "thresholds":  # those of all rows, whatever the trials have found
            job["with"] |= {"pools": None, "ranking": None}
    return {"jobs": [*first, *more]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("s3")
    with s3_here(folder) as server:
        # Configuration and workflow come from the bucket, too.
        storage = Storage(f"{server.url}/team/sandbox")
        inputs = Storage(f"{server.url}/inputs")
        inputs.write_bytes("workflow.yaml", yaml.safe_dump(_workflow()).encode())
        config = {**SMALL, **CHANGES, "workflow": inputs.uri("workflow.yaml")}
        inputs.write_bytes("config.yaml", yaml.safe_dump(config).encode())
        for name in ("driver", "temp"):
            (folder / name).mkdir()
        own = {**server.environment, "DJSANDBOX_CACHE": str(folder / "cache")}
        with machines(own) as nodes:
            nodes.join("first")
            nodes.join("second")
            words = ("run", inputs.uri("config.yaml"), "--storage", storage.url)
            environment = {**nodes.driver, "TMPDIR": str(folder / "temp")}
            place = {"cwd": folder / "driver", "env": environment}
            yield World(folder, server, storage, nodes, words, place)


def _completed(storage: Storage) -> list[str]:
    """Return the files of the trials that are over."""
    names = [name for name in storage.names("trials") if name.endswith(".json")]
    return [name for name in names if storage.read_json(f"trials/{name}")["state"] == "COMPLETED"]


def test_a_run_on_s3_is_killed_and_goes_on(world: World) -> None:
    storage, log = world.storage, world.folder / "log"
    driver = started(*world.words, log=log, **world.place)
    try:

        def some() -> bool:
            assert driver.poll() is None, log.read_text()
            return len(_completed(storage)) >= 2

        wait_until(some, log.read_text, pause=1)
    finally:
        driver.kill()
        driver.wait()
    done = {name: storage.stamps("trials")[name] for name in _completed(storage)}
    again = world.finished()
    assert "scorer: done before" in again
    assert "statistics: done before" in again
    assert all(storage.stamps("trials")[name] == stamp for name, stamp in done.items())
    assert set(storage.read_table("runs/small/trials.parquet")["state"].to_pylist()) == {
        "COMPLETED"
    }
    kept = [name for name in storage.names("trials") if not name.endswith(".json")]
    assert not kept, "checkpoints of trials that are over are removed"
    assert storage.names("datasets") == [
        name for name in storage.names("datasets") if not name.startswith(".staging")
    ]


def test_the_same_command_does_nothing(world: World) -> None:
    before = world.storage.stamps("datasets") | world.storage.stamps("models")
    again = world.finished()
    jobs = [job["id"] for job in _workflow()["jobs"]]
    assert all(f"{job}: done before" in again for job in jobs)
    assert world.storage.stamps("datasets") | world.storage.stamps("models") == before


def test_data_juicer_kept_what_was_promised(world: World) -> None:
    accepted = world.storage.read_sealed("runs/small/acceptance.json")
    assert accepted["differing"] == 0
    assert 0 < accepted["kept"] < accepted["rows"]
    recipe = yaml.safe_load(world.storage.read_bytes("runs/small/recipes/small.yaml"))
    (operator,) = recipe["process"]
    folder = operator["image_text_similarity_filter"]["hf_clip"]
    assert folder.startswith(f"{world.storage.url}/models/"), "not a folder of one node"


def test_the_model_is_on_the_machine_once(world: World) -> None:
    entries = [path for path in (world.folder / "cache").iterdir() if path.is_dir()]
    assert len(entries) == 1
    assert (entries[0] / "files" / "config.json").exists()


def test_nothing_is_left_in_working_folders(world: World) -> None:
    folders = [world.folder / "driver", *(node.work for node in world.nodes.nodes.values())]
    assert [path for folder in folders for path in folder.iterdir()] == []
    left = [path for path in (world.folder / "temp").rglob("*") if not path.is_dir()]
    assert not left


def test_no_file_of_the_run_holds_a_credential(world: World) -> None:
    secrets = [SECRET, world.server.environment["AWS_ACCESS_KEY_ID"]]
    for name in world.storage.stamps("runs"):
        content = world.storage.read_bytes(f"runs/{name}")
        assert not [secret for secret in secrets if secret.encode() in content], name
    state = world.storage.read_json("runs/small/run.json")
    assert state["state"] == "COMPLETED"
    assert os.environ["AWS_ACCESS_KEY_ID"] not in json.dumps(state)


# Ray's own commands instead of ours: `ray job submit`, `ray job stop`, and the same once more.


@dataclass(frozen=True)
class Place:
    """A user's folder with ``configs/x.yaml``."""

    folder: Path
    nodes: Machines
    storage: Storage

    def submit(self, *options: str) -> str:
        command = f"djsandbox run configs/x.yaml --storage {self.storage.url}".split()
        return self.ray("submit", "--working-dir", ".", *options, "--", *command)

    def ray(self, verb: str, *words: str) -> str:
        done = subprocess.run(
            [str(BIN / "ray"), "job", verb, "--address", self.nodes.dashboard, *words],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def state(self) -> str:
        return str(self.storage.read_json("runs/small/run.json")["state"])


def test_stopped_by_ray_and_resumed_by_the_same_command(world: World, tmp_path: Path) -> None:
    place = Place(tmp_path / "work", world.nodes, Storage(f"{world.server.url}/prefix"))
    (place.folder / "configs").mkdir(parents=True)
    config = {**SMALL, **CHANGES, "scorer": None, "operators": SMALL["operators"]}
    (place.folder / "configs" / "x.yaml").write_text(yaml.safe_dump(config))
    first = "raysubmit_first"
    place.submit("--no-wait", "--submission-id", first)

    def some() -> bool:
        going = re.search("PENDING|RUNNING", place.ray("status", first))
        assert going, place.ray("logs", first)
        return len(_completed(place.storage)) >= 2

    wait_until(some, lambda: place.ray("logs", first))
    assert "was stopped" in place.ray("stop", first)
    assert place.state() == "STOPPED"
    stamps = place.storage.stamps("trials")
    kept = {name: stamps[name] for name in _completed(place.storage)}

    told = place.submit()
    assert "statistics: done before" in told
    assert "succeeded" in told
    assert SECRET not in told
    assert place.state() == "COMPLETED"
    assert kept.items() <= place.storage.stamps("trials").items()
    trials = place.storage.read_table("runs/small/trials.parquet")
    assert set(trials["state"].to_pylist()) == {"COMPLETED"}
    assert "ranking.csv" in place.storage.names("runs/small")
    for node in world.nodes.nodes.values():
        assert list(node.work.iterdir()) == [], node.name
