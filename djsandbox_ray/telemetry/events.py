"""Every event of a run: one line of JSON each, in the storage and, if wished, on stderr.

``event`` hands an event to Python's own logging, whoever calls it and wherever; an ``EventLog``,
which a run holds open, writes it down. Warnings of the package's other loggers are written too.

A storage cannot append: the log is files of bounded size, each replaced whole. A background thread
writes what is new every few seconds, and at once what is urgent. After a clean end everything is
there; a driver killed by force loses at most the last ``PAUSE`` seconds.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from djsandbox_ray.errors import BadInput, Stopped
from djsandbox_ray.masking import masker, without_secrets
from djsandbox_ray.storage.store import Storage

EVENTS: Mapping[str, str] = {
    "run_begun": "a driver takes up the run; `resumed` says whether there was one before",
    "run_done": "the driver came to the end",
    "run_stopped": "the user has stopped the driver",
    "run_failed": "the driver ends with an error",
    "job_begun": "a job of the workflow is run",
    "job_skipped": "its artifact is there already",
    "job_done": "with its seconds; `kept` says whether the same command does it again",
    "job_failed": "with the error and where it was raised",
    "study_begun": "trials to do, and those that are known already",
    "trial_started": "a trial was given its place; `after` counts the samples it has behind it",
    "trial_rung": "a report: samples, loss, metrics",
    "trial_finished": "it reached its budget",
    "trial_stopped": "it was given up early",
    "trial_retried": "it crashed and will be tried again; the details are those of a failure",
    "trial_silent": "it says nothing for long; `replaced` tells whether its worker is ended now",
    "trial_failed": "error, place (rank, node, process), traceback, last lines of its output, log",
    "race_decided": "which pools are given up at a rung, and which of these run on as a check",
    "self_test_failed": "a verdict that was known beforehand came out otherwise",
    "samples_rejected": "samples set aside when a source was read, by reason",
    "files_passed_over": "files beside a source's own that are not read, by kind, with names",
    "node_joined": "a node of the cluster is new",
    "node_lost": "a node of the cluster is gone",
    "waiting": "nothing can run for want of resources",
    "waiting_over": "something runs again",
    "tracker_away": "the tracking server does not answer; what it misses is sent later",
    "tracker_back": "it answers again",
    "tracker_refused": "it will never take something",
    "warning": "a warning of another part of the package",
}

VARIABLE = "DJSANDBOX_LOG"
"""Environment variable; with the value ``json`` every event is a line on stderr, too."""

PAUSE = 2.0
"""Seconds between two writes."""
LINES = 1000
"""Lines of a file, beyond which another is begun: every write sends a whole file."""

_logger = logging.getLogger(__name__)
_logger.propagate = False
_logger.addHandler(logging.NullHandler())
_PACKAGE = logging.getLogger("djsandbox_ray")
_FIELDS = "event_fields"


def event(
    name: str,
    *,
    level: int = logging.INFO,
    stage: str | None = None,
    pool: str | None = None,
    seed: int | None = None,
    **details: Any,
) -> None:
    """Tell of an event; without a run that listens, nothing happens.

    Args:
        name: one of :data:`EVENTS`.
        level: of Python's logging.
        stage: the job or study.
        pool: the pool, where it is about one.
        seed: of the trial, where it is about one.
        details: plain data.

    Raises:
        ValueError: an unknown name.
    """
    if name not in EVENTS:
        raise ValueError(f"unknown event {name!r} (known: {', '.join(EVENTS)})")
    fields = {"stage": stage, "pool": pool, "seed": seed, "event": name, "details": details}
    _logger.log(level, name, extra={_FIELDS: fields})


class Segments:
    """Files ``<prefix>-<start of this process>-<number>.jsonl``; in order of name, of time, too.

    Args:
        storage: where they lie.
        folder: in the storage.
        prefix: of their names.
    """

    def __init__(self, storage: Storage, folder: str, prefix: str) -> None:
        self._storage = storage
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        self._stem = f"{folder}/{prefix}-{start}Z-{uuid4().hex[:6]}"
        self._number = 0
        self._lines: list[str] = []
        """Of the file that is open."""
        self._written = 0
        self._urgent = self._closing = False
        self._failing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=prefix, daemon=True)
        self._thread.start()

    def add(self, line: str, *, urgent: bool = False) -> None:
        """Take a line; returns at once."""
        with self._changed:
            self._lines.append(line)
            self._urgent |= urgent
            if urgent or len(self._lines) == self._written + 1:
                self._changed.notify()

    def close(self) -> int:
        """Write what is left; return how many lines could not be written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        return len(self._lines) - self._written

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._written < len(self._lines) or self._closing)
                self._changed.wait_for(lambda: self._urgent or self._closing, PAUSE)
                closing, self._urgent = self._closing, False
            while self._written < len(self._lines) and self._write():
                pass
            if closing:
                return
            if self._failing:
                with self._changed:  # what is urgent, too, waits for a storage that is away
                    self._changed.wait_for(lambda: self._closing, PAUSE)

    def _write(self) -> bool:
        """Write the open file, and begin another if it is full; say whether that worked."""
        lines = self._lines[:LINES]
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            self._storage.write_bytes(f"{self._stem}-{self._number:04}.jsonl", data)
        except Exception as error:
            if not self._failing:  # one message per outage
                text = f"the event log cannot be written, it is tried again: {error}"
                print(without_secrets(text), file=sys.stderr)
            self._failing = True
            return False
        self._failing = False
        with self._changed:
            self._written = len(lines)
            if len(lines) == LINES:
                del self._lines[:LINES]
                self._written, self._number = 0, self._number + 1
        return True


class EventLog(logging.Handler):
    """Writes the events of a run to ``runs/<name>/logs/events-*.jsonl`` while its block lasts.

    The first event is ``run_begun``, the last ``run_done``, ``run_stopped`` or ``run_failed``.

    Args:
        storage: of the run.
        run: its name.

    Raises:
        BadInput: ``DJSANDBOX_LOG`` has a value that means nothing.
    """

    def __init__(self, storage: Storage, run: str) -> None:
        super().__init__(logging.INFO)
        wish = os.environ.get(VARIABLE, "")
        if wish not in ("", "json"):
            raise BadInput(f"{VARIABLE}={wish!r}: only 'json' is known, or leave it out")
        self._aloud = wish == "json"
        self._run = run
        folder = f"runs/{run}/logs"
        self._resumed = any(name.endswith(".jsonl") for name in storage.names(folder))
        self._segments = Segments(storage, folder, "events")

    def __enter__(self) -> EventLog:
        self._level = _logger.level
        _logger.setLevel(logging.INFO)
        _logger.addHandler(self)
        _PACKAGE.addHandler(self)
        event("run_begun", stage="run", resumed=self._resumed, process=os.getpid())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is None:
            event("run_done", stage="run")
        elif issubclass(kind, Stopped | KeyboardInterrupt):
            event("run_stopped", level=logging.WARNING, stage="run")
        else:
            reason = f"{kind.__name__}: {error}"
            event("run_failed", level=logging.ERROR, stage="run", error=reason)
        _PACKAGE.removeHandler(self)
        _logger.removeHandler(self)
        _logger.setLevel(self._level)
        if lost := self._segments.close():
            print(f"{lost} lines of the event log could not be written", file=sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as one line; a foreign one as the event that it names, or a warning."""
        fields = getattr(record, _FIELDS, None)
        if fields is None:
            if record.levelno < logging.WARNING:
                return
            if not logging.root.handlers and logging.lastResort is not None:
                # It would have been printed, had nobody listened.
                logging.lastResort.handle(record)
            fields = {
                **dict.fromkeys(("stage", "pool", "seed")),
                "event": getattr(record, "event", "warning"),
                "details": {"logger": record.name, "message": record.getMessage()},
            }
        line = self._line(record, fields)
        self._segments.add(line, urgent=record.levelno >= logging.WARNING)
        if self._aloud:
            print(line, file=sys.stderr, flush=True)

    def _line(self, record: logging.LogRecord, fields: Mapping[str, Any]) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {"time": when, "level": record.levelname.lower(), "run": self._run}
        plain = _plain({**head, **fields}, masker())
        return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def _plain(value: Any, mask: Callable[[str], str]) -> Any:
    """Return plain data without secrets, to which JSON has no objection."""
    if isinstance(value, Mapping):
        return {mask(str(key)): _plain(item, mask) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, mask) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return mask(str(value))
