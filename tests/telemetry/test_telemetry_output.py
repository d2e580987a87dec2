"""Logs of trials: slices of what a process prints, bounded, without secrets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import output
from djsandbox_ray.telemetry.output import FAILED, HEAD, TAIL, TrialLog, last_lines, log_path


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[int]:
    """A file descriptor in place of stdout."""
    fd = os.open(tmp_path / "worker.out", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(fd, b":job_id:01000000\nof the trial before\n")
    yield fd
    os.close(fd)


def _text(storage: Storage, path: str = "logs/t.log") -> str:
    return storage.read_bytes(path).decode()


def test_a_log_holds_what_was_printed_meanwhile(storage: Storage, printed: int) -> None:
    log = TrialLog(storage, "logs/t.log", "demo/trials: s/low seed 0", [printed])
    os.write(printed, b"one\n:actor_name:Trial\ntwo\n")
    log.note("64 samples")
    log.close()
    os.write(printed, b"of the trial behind\n")
    lines = [line.split("] ")[-1] for line in _text(storage).splitlines()]
    assert lines == ["BEGUN: demo/trials: s/low seed 0", "one", "two", "64 samples"]


def test_another_attempt_goes_on_in_the_same_log(storage: Storage, printed: int) -> None:
    for attempt in ("first", "second"):
        log = TrialLog(storage, "logs/t.log", attempt, [printed])
        os.write(printed, f"in the {attempt}\n".encode())
        log.close()
    lines = [line.split("] ")[-1] for line in _text(storage).splitlines()]
    assert lines == ["BEGUN: first", "in the first", "BEGUN: second", "in the second"]


def test_it_is_written_while_the_trial_lasts(
    storage: Storage, printed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PAUSE", 0.01)
    log = TrialLog(storage, "logs/t.log", "begun", [printed])
    os.write(printed, b"whole line\nhalf a li")
    while not (storage.exists("logs/t.log") and "whole line" in _text(storage)):
        pass
    assert "half" not in _text(storage), "a secret may lie across the border"
    log.close()
    assert _text(storage).endswith("half a li")


def test_secrets_are_masked(storage: Storage, printed: int) -> None:
    log = TrialLog(storage, "logs/t.log", "begun", [printed])
    os.write(printed, b"GET s3://me:hunter2@host/?token=SECRET\n")
    log.close()
    assert "hunter2" not in _text(storage)
    assert "SECRET" not in _text(storage)


def test_a_flood_keeps_its_begin_and_its_end(storage: Storage, printed: int) -> None:
    log = TrialLog(storage, "logs/t.log", "title", [printed])
    os.write(printed, b"first\n")
    log.write()
    for number in range(40):
        os.write(printed, b"x" * 20_000 + b"\n")
        if number % 15 == 0:
            log.write()
    os.write(printed, b"last\n")
    log.close()
    text = _text(storage)
    assert len(text) <= HEAD + TAIL + 200
    assert "title\nfirst\n" in text
    assert text.endswith("last\n")
    assert "left out: the log is too long" in text


def test_a_pipe_is_said_to_be_elsewhere(storage: Storage) -> None:
    reading, writing = os.pipe()
    TrialLog(storage, "logs/t.log", "title", [writing]).close()
    assert "in Ray's own logs only" in _text(storage)
    os.close(reading)
    os.close(writing)


def test_a_storage_that_is_away_fails_nothing(
    storage: Storage,
    printed: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*args: object) -> None:
        raise OSError("password=SECRET")

    log = TrialLog(storage, "logs/t.log", "title", [printed])
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", refuse)
        log.write()
    err = capsys.readouterr().err
    assert "logs/t.log cannot be written" in err
    assert "SECRET" not in err
    log.close()
    assert "title" in _text(storage)


def test_a_storage_that_is_away_at_the_begin_keeps_what_the_attempt_before_said(
    storage: Storage,
    printed: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    TrialLog(storage, "logs/t.log", "first", [printed]).close()

    def refuse(*args: object) -> None:
        raise OSError("password=SECRET")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read_bytes", refuse)
        log = TrialLog(storage, "logs/t.log", "second", [printed])
        os.write(printed, b"meanwhile\n")
        log.write()
    err = capsys.readouterr().err
    assert "logs/t.log cannot be written" in err
    assert "SECRET" not in err
    log.close()
    lines = [line.partition("] ")[2] or line for line in _text(storage).splitlines()]
    assert lines == ["BEGUN: first", "BEGUN: second", "meanwhile"]


def test_an_output_that_cannot_be_read_fails_nothing_and_is_said_once(
    storage: Storage, printed: int, tmp_path: Path
) -> None:
    """As when somebody cleans up where Ray has its logs."""
    log = TrialLog(storage, "logs/t.log", "title", [printed])
    os.write(printed, b"before\n")
    log.write()
    (tmp_path / "worker.out").unlink()
    log.note("64 samples")
    log.note("128 samples")
    log.close()
    lines = [line.partition("] ")[2] or line for line in _text(storage).splitlines()]
    assert lines[:2] == ["BEGUN: title", "before"]
    assert lines[2].startswith("what is printed cannot be read: ")
    assert "worker.out" in lines[2]
    assert lines[3:] == ["64 samples", "128 samples"]


def test_a_full_disk_of_the_node_fails_nothing(
    storage: Storage, printed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own logs lie there, behind stdout and stderr."""

    class Full(StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    def refuse(*args: object) -> None:
        raise OSError("away")

    log = TrialLog(storage, "logs/t.log", "title", [printed])
    os.write(printed, b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        patch.setattr(sys, "stderr", Full())
        patch.setattr(storage, "write_bytes", refuse)
        log.note("64 samples")
        log.write()
    log.close()
    lines = [line.partition("] ")[2] or line for line in _text(storage).splitlines()]
    assert sorted(lines[1:]) == [
        "64 samples",
        "one",
        "what is printed cannot be read: [Errno 28] No space left on device",
    ]


def test_last_lines_are_those_before_the_failure(storage: Storage, printed: int) -> None:
    path = log_path("logs", "t")
    log = TrialLog(storage, path, "an attempt before", [printed])
    log.note(f"{FAILED}OSError")
    log.close()
    log = TrialLog(storage, path, "title", [printed])
    os.write(printed, b"".join(f"line {number}\n".encode() for number in range(50)))
    log.note(f"{FAILED}KeyError: 'x'\nTraceback\n  KeyError: 'x'")
    log.close()
    assert last_lines(storage, path, 3) == ["line 47", "line 48", "line 49"]
    assert last_lines(storage, path, 100) == [f"line {number}" for number in range(50)]
    assert last_lines(storage, "logs/never.log") == []
    assert log_path("logs", "t", 2) == "logs/t.rank2.log"
