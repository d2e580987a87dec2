"""What is checked before a run starts anything, and how it is told to stop.

Who is writing a run: what this machine cannot know, the Ray cluster is asked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from socket import gethostname
from typing import Any

import psutil
import pytest
import yaml
from rich.console import Console

from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows import run as run_module
from djsandbox_ray.workflows.run import run_sandbox, stoppable
from djsandbox_ray.workflows.state import refuse_if_running, this_process

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def test_missing_data_is_found_in_all_sources_at_once(tmp_path: Path) -> None:
    document: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    document["storage"] = str(tmp_path / "storage")
    document["dataset"] = {"type": "parquet", "path": str(tmp_path / "no.parquet")}
    document["scorer"]["dataset"] = {"type": "webdataset", "path": str(tmp_path / "*.tar")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(BadInput) as caught:
        run_sandbox(load_config(str(path)), Console(quiet=True))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["dataset", "scorer.dataset"]
    assert not (tmp_path / "storage").exists()


def test_a_driver_that_shows_with_the_cluster_keeps_its_log_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(str(DEMO), ["tracking.type=none"], str(tmp_path))
    storage = Storage(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:

        def connected(*arguments: Any) -> None:
            started = psutil.Process(other.pid).create_time()
            owner = {"host": gethostname(), "pid": other.pid, "started": started}
            storage.write_json("runs/demo/run.json", {"state": "RUNNING", "process": owner})

        monkeypatch.setattr(run_module, "connect", connected)
        with pytest.raises(BadInput, match=f"is being run by process {other.pid}"):
            run_sandbox(config, Console(quiet=True))
        other.kill()
    assert storage.names("runs/demo") == ["run.json"]


def _stopped_by(number: signal.Signals) -> None:
    with stoppable():
        os.kill(os.getpid(), number)
        pytest.fail("nothing was raised")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_end_the_block_and_are_given_back(number: signal.Signals) -> None:
    before = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        _stopped_by(number)
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == before


def test_while_the_block_ends_sigterm_is_ignored_and_ctrl_c_is_not() -> None:
    ended = []

    def clean_up() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ended.append("cleaned up")
        os.kill(os.getpid(), signal.SIGINT)
        ended.append("not reached")

    def run() -> None:
        with stoppable():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                clean_up()

    with pytest.raises(KeyboardInterrupt):
        run()
    assert ended == ["cleaned up"]


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
