"""What is checked before a run starts anything, and how it is told to stop."""

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
