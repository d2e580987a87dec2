"""Events: one line each, whole, without secrets, and still there after a kill."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factories import read_events, wait_until

from djsandbox_ray.errors import BadInput, Stopped
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import events as segments
from djsandbox_ray.telemetry.events import EVENTS, EventLog, event

PAGE = Path(__file__).resolve().parents[2] / "docs" / "watching.md"


def _names(storage: Storage, run: str = "demo") -> list[str]:
    return [found["event"] for found in read_events(storage, run)]


def test_a_line_says_when_who_and_what(storage: Storage) -> None:
    with EventLog(storage, "demo"):
        event("trial_rung", stage="trials", pool="text_len/high", seed=0, samples=64, loss=0.5)
    found = read_events(storage, "demo")
    assert [one["event"] for one in found] == ["run_begun", "trial_rung", "run_done"]
    line = found[1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "level": "info",
        "run": "demo",
        "stage": "trials",
        "pool": "text_len/high",
        "seed": 0,
        "event": "trial_rung",
        "details": {"samples": 64, "loss": 0.5},
    }
    assert found[0]["details"]["resumed"] is False


def test_without_a_run_that_listens_nothing_happens(capsys: pytest.CaptureFixture[str]) -> None:
    event("node_lost", level=logging.WARNING, node="n")
    assert capsys.readouterr().err == ""


def test_unknown_events_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="unknown event 'trial_exploded'"):
        event("trial_exploded")


def test_the_package_tells_of_known_events_only() -> None:
    package = Path(segments.__file__).parents[1]
    told = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r"\bevent\(\s*\"(\w+)\"", path.read_text())
    }
    assert "samples_rejected" in told
    assert told <= EVENTS.keys()


def test_the_docs_list_all_events() -> None:
    text = PAGE.read_text().split("## Events")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.M)) == EVENTS


def test_a_second_driver_resumes_in_a_file_of_its_own(storage: Storage) -> None:
    for _ in range(2):
        with EventLog(storage, "demo"):
            pass
    assert len(storage.names("runs/demo/logs")) == 2
    begun = [one for one in read_events(storage, "demo") if one["event"] == "run_begun"]
    assert [one["details"]["resumed"] for one in begun] == [False, True]


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (Stopped("by the user"), "run_stopped"),
        (KeyboardInterrupt(), "run_stopped"),
        (BadInput("there is no such column"), "run_failed"),
    ],
)
def test_how_a_run_ends_is_its_last_event(
    storage: Storage, error: BaseException, last: str
) -> None:
    with pytest.raises(type(error)), EventLog(storage, "demo"):
        raise error
    assert _names(storage)[-1] == last


def test_secrets_are_masked_and_no_line_breaks_json(storage: Storage) -> None:
    with EventLog(storage, "demo"):
        event(
            "job_failed",
            error='GET "s3://user:hunter2@host/x?token=SECRET1", then more',
            nested={"list": ["password=SECRET2", float("nan"), {"a": None}]},
        )
    text = storage.read_bytes(f"runs/demo/logs/{storage.names('runs/demo/logs')[0]}").decode()
    assert "hunter2" not in text
    assert "SECRET" not in text
    details = read_events(storage, "demo")[1]["details"]
    assert details["error"].startswith('GET "s3://***@host/x?token=***')
    assert details["nested"]["list"][1:] == ["nan", {"a": None}]


def test_warnings_of_the_package_are_events(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    logger = logging.getLogger("djsandbox_ray.some.part")
    with EventLog(storage, "demo"):
        logger.warning("the server %s is away", "m", extra={"event": "tracker_away"})
        logger.warning("odd")
        logger.info("not worth a line")
    found = read_events(storage, "demo")[1:-1]
    assert [(one["event"], one["details"]["message"]) for one in found] == [
        ("tracker_away", "the server m is away"),
        ("warning", "odd"),
    ]
    assert "the server m is away" in capsys.readouterr().err, "it is printed as ever"


def test_events_on_stderr_if_wished(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DJSANDBOX_LOG", "json")
    with EventLog(storage, "demo"):
        event("waiting", stage="trials", resources="4 CPUs")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines == read_events(storage, "demo")
    monkeypatch.setenv("DJSANDBOX_LOG", "yaml")
    with pytest.raises(BadInput, match="DJSANDBOX_LOG='yaml': only 'json'"):
        EventLog(storage, "demo")


def test_files_are_bounded_and_nothing_is_lost(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "LINES", 10)
    with EventLog(storage, "demo"):
        for number in range(33):
            event("trial_rung", samples=number)
    names = storage.names("runs/demo/logs")
    counts = [len(storage.read_bytes(f"runs/demo/logs/{n}").splitlines()) for n in names]
    assert counts == [10, 10, 10, 5]
    rungs = [one["details"]["samples"] for one in read_events(storage, "demo")[1:-1]]
    assert rungs == list(range(33))


class Away(Storage):
    """A storage that cannot be written for a while."""

    refusals = 0

    def write_bytes(self, path: str, data: bytes) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("token=SECRET: no route to host")
        super().write_bytes(path, data)


def test_a_storage_that_is_away_gets_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segments, "PAUSE", 0.01)
    storage = Away(str(tmp_path))
    storage.refusals = 3
    with EventLog(storage, "demo"):
        while storage.refusals:
            time.sleep(0.01)
    assert _names(storage) == ["run_begun", "run_done"]
    err = capsys.readouterr().err
    assert err.count("cannot be written") == 1
    assert "SECRET" not in err


def test_what_is_lost_in_the_end_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segments, "PAUSE", 0.01)
    storage = Away(str(tmp_path))
    storage.refusals = 10**9
    with EventLog(storage, "demo"):
        pass
    assert "2 lines of the event log could not be written" in capsys.readouterr().err


KILLED = """
import logging, sys, time
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.events import EventLog, event
with EventLog(Storage(sys.argv[1]), "demo"):
    event("trial_rung", samples=1)
    event("node_lost", level=logging.WARNING, node="n")
    time.sleep(600)
"""


def test_after_a_kill_the_lines_of_seconds_before_are_there(storage: Storage) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, storage.url])

    def told() -> bool:
        assert process.poll() is None
        return _names(storage)[-1:] == ["node_lost"]

    wait_until(told, "the last line")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _names(storage) == ["run_begun", "trial_rung", "node_lost"]
