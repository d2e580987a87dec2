"""What is checked before a run starts anything, and how it is told to stop.

Who runs it: one process at a time; who loses a run, or its cluster, ends with a sentence.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError
from rich.console import Console

from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput, SandboxError, Stopped
from djsandbox_ray.nodes import anchor as anchor_module
from djsandbox_ray.nodes.anchor import Anchor, watched
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage import lease
from djsandbox_ray.storage.lease import Held, Lost
from djsandbox_ray.storage.processes import Process
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.journal import Recorded
from djsandbox_ray.workflows import run as run_module
from djsandbox_ray.workflows.language.repeat import Round
from djsandbox_ray.workflows.run import (
    FLUSH_SECONDS,
    run_rounds,
    run_sandbox,
    said_plainly,
    stoppable,
)
from djsandbox_ray.workflows.state import RunState, alone

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


def test_a_run_that_another_process_runs_is_refused_before_a_cluster_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(str(DEMO), ["tracking.type=none"], str(tmp_path))
    monkeypatch.setattr(lease, "RENEWAL", 0.2)
    monkeypatch.setattr(run_module, "connect", lambda *_: pytest.fail("connected"))
    said = StringIO()
    refused = pytest.raises(Held, match=rf"run 'demo' in .* is held by process {os.getpid()} ")
    with alone(Storage(str(tmp_path)), "demo"), refused:
        run_sandbox(config, Console(file=said, width=200))
    assert "looking whether it is alive" in said.getvalue()
    assert Held.exit_code == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["000001.json"]


def test_who_lost_its_run_is_stopped_and_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL", 0.2)
    config = load_config(str(DEMO), ["tracking.type=none"], str(tmp_path))
    storage, first = Storage(str(tmp_path)), Round.first(config)

    def run() -> None:
        with alone(storage, "demo") as held, stoppable(), RunState(held, first):
            successor = {"owner": "other", "who": "process 1 on elsewhere", "since": "noon"}
            storage.write_json("runs/demo/lease/000002.json", successor)
            storage.write_json("runs/demo/run.json", {"state": "of the successor"})
            time.sleep(60)
            pytest.fail("nobody has stopped it")

    with pytest.raises(Lost, match="the run 'demo' was taken over by process 1 on elsewhere"):
        run()
    assert storage.read_json("runs/demo/run.json") == {"state": "of the successor"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("of Ray"), SandboxError("6")])
def test_what_ends_a_run_whose_cluster_is_gone_is_told_as_that(
    tmp_path: Path, error: BaseException
) -> None:
    storage = Storage(str(tmp_path))
    first = Round.first(load_config(str(DEMO), [], str(tmp_path)))
    with subprocess.Popen(["sleep", "600"]) as raylet:
        anchor = Anchor(Process.of(raylet.pid))
        raylet.kill()
    told = pytest.raises(Stopped, match=r"cluster was lost \(the raylet .*the same command goes on")
    with told, alone(storage, "demo") as held, RunState(held, first, anchor):
        raise error
    assert storage.read_json("runs/demo/run.json")["state"] == "STOPPED"


def test_a_head_that_is_away_for_a_moment_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor_module, "_LOOK", 0.01)
    monkeypatch.setattr(anchor_module, "HEAD_PATIENCE", 0.5)
    monkeypatch.setattr(anchor_module, "GRACE", 3600)
    away, lost = threading.Event(), threading.Event()
    monkeypatch.setattr(anchor_module, "_answers", lambda address: not away.is_set())
    with watched(Anchor(head="127.0.0.1:1"), lost.set):
        away.set()
        assert not lost.wait(0.1)
        away.clear()
        assert not lost.wait(1)
        away.set()
        assert lost.wait(60)


_LOSING = """
import sys, threading, time
from djsandbox_ray.nodes import anchor
anchor._LOOK, anchor.HEAD_PATIENCE, anchor.GRACE = 0.01, 0, 1
lost = threading.Event()
with anchor.watched(anchor.Anchor(head="127.0.0.1:1"), lost.set):
    lost.wait()
    if "stuck" in sys.argv:
        time.sleep(600)
if "lives" in sys.argv:
    time.sleep(3)
    print("a notebook", flush=True)
if "clings" in sys.argv:
    import atexit
    atexit.register(time.sleep, 600)
"""


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [("stuck", 1, ""), ("clings", 1, ""), ("lives", 0, "a notebook\n"), ("ends", 0, "")],
)
def test_a_process_without_a_cluster_is_ended_only_where_it_is_stuck(
    what: str, code: int, said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LOSING, what], stdout=subprocess.PIPE, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (code, said)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BadInput("no samples")])
def test_what_the_tracker_raises_at_the_end_does_not_cover_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    def ends(*_: object) -> None:
        raise error

    def away(self: Recorded, ok: bool, within: float | None = None) -> int:
        told.append((ok, within))
        raise OSError("the tracker is away")

    told: list[tuple[bool, float | None]] = []
    monkeypatch.setattr(run_module, "run_workflow", ends)
    monkeypatch.setattr(Recorded, "finish", away)
    first = Round.first(load_config(str(DEMO), ["tracking.type=none"], str(tmp_path)))
    with alone(Storage(str(tmp_path)), "demo") as held, Progress(Console(quiet=True)) as progress:
        state = RunState(held, first)
        with pytest.raises(type(error)) as caught:
            run_rounds(first.config, progress, state)
    assert caught.value is error
    stopped = isinstance(error, KeyboardInterrupt)
    assert told == [(False, FLUSH_SECONDS if stopped else None)]
    assert "after an error: OSError: the tracker is away" in caplog.text


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WorkerCrashedError(), r"\(WorkerCrashedError: The worker died unexpectedly"),
        (OutOfMemoryError("Task was killed.\nMemory: all"), r"OutOfMemoryError: Task was killed\."),
        (RayActorError(), "RayActorError: "),
    ],
    ids=lambda given: type(given).__name__,
)
@pytest.mark.parametrize("around", [False, True])
def test_a_process_of_the_cluster_that_died_is_one_sentence(
    storage: Storage, error: Exception, said: str, around: bool
) -> None:
    """As of an operator that fills the memory, or a decoder that a file brings down."""
    raised = RuntimeError("of a library") if around else error
    raised.__cause__ = error if around else None
    with pytest.raises(SandboxError, match=said) as caught, said_plainly(storage):
        raise raised
    told = str(caught.value)
    assert "\n" not in told
    assert told.endswith("what is finished is kept, and the same command goes on")
    assert caught.value.exit_code == 1


def test_a_defect_is_told_whole(storage: Storage) -> None:
    with pytest.raises(KeyError, match="odd"), said_plainly(storage):
        raise KeyError("odd")
