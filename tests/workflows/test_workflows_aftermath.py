"""A driver that is cut off without a word: its run is noted as stopped, and is free at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from djsandbox_ray.storage.lease import take
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.aftermath import tell

RUNNING = {"state": "RUNNING", "rounds": [{"state": "RUNNING"}]}
_DRIVER = """
import os, signal, subprocess, sys
from djsandbox_ray.nodes.anchor import Anchor
from djsandbox_ray.storage.lease import take
from djsandbox_ray.storage.processes import Process
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.aftermath import aftermath
storage = Storage(sys.argv[1])
raylet = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
held = Anchor(Process.of(raylet.pid))
if "raylet" in sys.argv[2]:
    raylet.kill(), raylet.wait()
print(raylet.pid, flush=True)
lease = take(storage, "runs/r/lease", "the run 'r'")
with lease, aftermath(lease, "runs/r/run.json", held):
    if "replaced" in sys.argv[2]:
        storage.write_json("runs/r/lease/000002.json", {"owner": "other"})
    if "exit" in sys.argv[2]:
        os._exit(1)
    if "kill" in sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def _drive(storage: Storage, how: str) -> tuple[int, str]:
    """Run a driver; return its exit code, and what was said on its standard error."""
    storage.write_sealed("runs/r/run.json", RUNNING)
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, storage.url, how],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    with suppress(ProcessLookupError):
        os.kill(int(done.stdout), signal.SIGKILL)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("kill", -signal.SIGKILL, "the process of the run was killed"),
        ("raylet exit", 1, "the connection to the cluster was lost (the raylet"),
    ],
)
def test_it_is_noted_and_said_and_the_run_is_free(
    storage: Storage, how: str, code: int, said: str
) -> None:
    ended, text = _drive(storage, how)
    assert ended == code
    assert text.startswith("stopped: ")
    assert said in text
    assert text.strip().endswith("what is finished is kept; the same command goes on")
    assert len(text.splitlines()) == 1
    state: dict[str, Any] = storage.read_sealed("runs/r/run.json")
    assert (state["state"], state["rounds"]) == ("STOPPED", [{"state": "STOPPED"}])
    with take(storage, "runs/r/lease", "the run 'r'", note=pytest.fail) as lease:
        assert lease.number == 3


def test_a_run_that_has_ended_by_itself_is_left_alone(storage: Storage) -> None:
    assert _drive(storage, "") == (0, "")
    assert storage.read_sealed("runs/r/run.json") == RUNNING


def test_a_run_that_goes_on_elsewhere_is_left_alone(storage: Storage) -> None:
    assert _drive(storage, "replaced kill") == (-signal.SIGKILL, "")
    assert storage.read_sealed("runs/r/run.json") == RUNNING


def test_why_it_could_not_be_noted_is_said(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.write_json("runs/r/lease/000001.json", {"owner": "gone"})
    told = {"storage": storage.url, "lease": "runs/r/lease", "owner": "gone", "what": "it"}
    tell(json.dumps({**told, "state": "runs/r/run.json", "anchor": {}}))
    said = capsys.readouterr().err
    assert "(run.json does not say so: Missing: " in said
    assert "runs/r/run.json is not there" in said
