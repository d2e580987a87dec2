"""A whole run with its storage in S3, on two raylets that share no folder.

The driver, the head and the second raylet have working folders of their own. Trusted data, model,
statistics, checkpoints and recipe pass between them through the bucket and Ray alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from raylets import environment, two_raylets
from s3_server import SECRET, S3Server, s3_here
from small_run import SMALL

from djsandbox_ray.storage.store import Storage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

WORKFLOWS = Path(__file__).resolve().parents[2] / "djsandbox_ray" / "workflows" / "builtin"
CHANGES: dict[str, Any] = {
    "operators": [{"image_text_similarity_filter": {"hf_clip": "${scorer}"}}],
    "pools": {"controls": 5, "size": 250, "self_tests": False},
    "trials": {**SMALL["trials"], "budget": 320},
    "tracking": {"type": "none"},
}


@dataclass(frozen=True)
class World:
    """A cluster, a bucket, and where the command is typed."""

    folder: Path
    server: S3Server
    storage: Storage
    command: list[str]
    environment: dict[str, str]

    def finished(self) -> str:
        done = subprocess.run(
            self.command,
            cwd=self.folder / "driver",
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout


def _workflow() -> dict[str, Any]:
    """Give the pools and their trials, then a recipe that Data-Juicer itself runs."""
    first, last = (
        yaml.safe_load((WORKFLOWS / f"{name}.yaml").read_text())["jobs"]
        for name in ("single_op", "recipe_only")
    )
    wanted = ("noise", "learning_rate", "confirmation")
    jobs = [job for job in first if not job["id"].startswith(wanted) and job["id"] != "report"]
    known = {job["id"] for job in jobs}
    return {"jobs": [*jobs, *(job for job in last if job["id"] not in known)]}


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
        with two_raylets(folder, own) as cluster:
            command = [sys.executable, "-m", "djsandbox_ray", "run", inputs.uri("config.yaml")]
            yield World(
                folder,
                server,
                storage,
                [*command, "--storage", storage.url],
                {**environment(cluster), **own, "TMPDIR": str(folder / "temp")},
            )


def _completed(storage: Storage) -> list[str]:
    """Return the files of the trials that are over."""
    names = [name for name in storage.names("trials") if name.endswith(".json")]
    return [name for name in names if storage.read_json(f"trials/{name}")["state"] == "COMPLETED"]


def test_a_run_on_s3_is_killed_and_goes_on(world: World) -> None:
    storage, log = world.storage, world.folder / "log"
    with log.open("w") as file:
        driver = subprocess.Popen(
            world.command,
            cwd=world.folder / "driver",
            env=world.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            end = time.monotonic() + 240
            while len(_completed(storage)) < 2:
                assert driver.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(1)
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
    assert all(f"{job}: done before" in again for job in jobs if job != "ledger")
    assert world.storage.stamps("datasets") | world.storage.stamps("models") == before


def test_data_juicer_kept_what_was_promised(world: World) -> None:
    accepted = world.storage.read_json("runs/small/acceptance.json")
    assert accepted["differing"] == 0
    assert 0 < accepted["kept"] < accepted["rows"]
    recipe = yaml.safe_load(world.storage.read_bytes("runs/small/recipes/small.yaml"))
    (operator,) = recipe["process"]
    folder = operator["image_text_similarity_filter"]["hf_clip"]
    assert folder.startswith(f"{world.storage.url}/models/"), "not a folder of one node"


def test_the_model_is_on_the_machine_once(world: World) -> None:
    entries = [path for path in (world.folder / "cache").iterdir() if path.is_dir()]
    assert len(entries) == 1
    assert (entries[0] / "config.json").exists()


def test_nothing_is_left_in_working_folders(world: World) -> None:
    for name in ("driver", "head", "second"):
        assert list((world.folder / name).iterdir()) == [], name
    left = [path.name for path in (world.folder / "temp").glob("djsandbox-*")]
    assert not left


def test_no_file_of_the_run_holds_a_credential(world: World) -> None:
    secrets = [SECRET, world.server.environment["AWS_ACCESS_KEY_ID"]]
    for name in world.storage.stamps("runs"):
        content = world.storage.read_bytes(f"runs/{name}")
        assert not [secret for secret in secrets if secret.encode() in content], name
    state = world.storage.read_json("runs/small/run.json")
    assert state["state"] == "COMPLETED"
    assert os.environ["AWS_ACCESS_KEY_ID"] not in json.dumps(state)
