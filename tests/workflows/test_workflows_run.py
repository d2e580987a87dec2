"""What is checked before a run starts anything."""

from __future__ import annotations

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
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows import run as run_module
from djsandbox_ray.workflows.run import open_context, run_sandbox
from djsandbox_ray.workflows.state import refuse_if_running

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


def test_two_runs_of_one_name_do_not_write_over_each_other(tmp_path: Path) -> None:
    config = load_config(str(DEMO), ["tracking.type=none"], str(tmp_path))
    context = open_context(config, Progress(Console(quiet=True)))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = psutil.Process(other.pid).create_time()
        owner = {"host": gethostname(), "pid": other.pid, "started": started}

        def written_by(**changes: Any) -> None:
            state = {"state": "RUNNING", "process": {**owner, **changes}}
            context.storage.write_json("runs/demo/run.json", state)

        written_by()
        with pytest.raises(BadInput, match=f"is being run by process {other.pid}"):
            refuse_if_running(context.storage, context.config.name)
        written_by(started=started - 60)  # the number was given to another process since
        refuse_if_running(context.storage, context.config.name)
        written_by(host="elsewhere")
        refuse_if_running(context.storage, context.config.name)
        written_by()
        other.kill()
    refuse_if_running(
        context.storage, context.config.name
    )  # it was killed: this is how a run is resumed
