"""Who is writing a run: what this machine cannot know, the Ray cluster is asked."""

from __future__ import annotations

import subprocess
import sys
from socket import gethostname
from typing import Any

import psutil
import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.state import refuse_if_running, this_process

ELSEWHERE = {"host": "elsewhere", "pid": 7, "started": 1.0}


def _written_by(storage: Storage, **owner: Any) -> None:
    storage.write_json("runs/r/run.json", {"state": "RUNNING", "process": {**ELSEWHERE, **owner}})


def test_a_driver_on_another_machine_of_this_cluster(ray_cluster: None, storage: Storage) -> None:
    driver = this_process()["ray"]
    assert driver["submission"] is None
    _written_by(storage, ray={**driver, "submission": "r-1"})
    with pytest.raises(BadInput, match="by process 7 on elsewhere, the Ray job r-1; wait"):
        refuse_if_running(storage, "r")


@pytest.mark.parametrize(
    "change", [{"job": "ffff0000"}, {"node": "0" * 56}], ids=["an ended job", "another cluster"]
)
def test_what_is_over_or_unknown_never_blocks(
    ray_cluster: None, storage: Storage, change: dict[str, str]
) -> None:
    _written_by(storage, ray={**this_process()["ray"], **change})
    refuse_if_running(storage, "r")


def test_records_of_earlier_versions_and_of_runs_without_ray(storage: Storage) -> None:
    _written_by(storage)
    refuse_if_running(storage, "r")
    _written_by(storage, ray=None)
    refuse_if_running(storage, "r")


def test_this_process_is_not_another_one(storage: Storage) -> None:
    _written_by(storage, **this_process())
    refuse_if_running(storage, "r")


def test_another_process_of_this_machine_while_it_lives(storage: Storage) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = psutil.Process(other.pid).create_time()
        owner = {"host": gethostname(), "pid": other.pid, "started": started}
        _written_by(storage, **owner)
        with pytest.raises(BadInput, match=f"is being run by process {other.pid}"):
            refuse_if_running(storage, "r")
        # The number was given to another process since; or it is one of another machine.
        for change in ({"started": started - 60}, {"host": "elsewhere"}):
            _written_by(storage, **{**owner, **change})
            refuse_if_running(storage, "r")
        _written_by(storage, **owner)
        other.kill()
    refuse_if_running(storage, "r")  # it was killed: this is how a run is resumed
