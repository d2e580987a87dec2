"""Trackers that write elsewhere: a queue between the run, which never waits, and what writes."""

from __future__ import annotations

import itertools
import logging
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from pydantic import Field

from djsandbox_ray.records import TrialRecord
from djsandbox_ray.settings.sections import MOST_SECONDS, Component
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.outbox import Outbox
from djsandbox_ray.tracking.tracker import DatasetInput, PoolVerdict, RunInfo, Tracker

logger = logging.getLogger(__name__)


class QueuedConfig(Component):
    """How long a run waits for its tracker at the end."""

    patience: float = Field(30.0, ge=0, le=MOST_SECONDS)
    """Seconds to wait at the end of a run while nothing can be sent."""


class Writer(ABC):
    """Writes one sandbox run where a tracker keeps it; writing again what is there changes nothing.

    Every method is called in one thread, may take long and may raise: then it is called again.
    """

    def attempt(self, send: Callable[[], None]) -> None:
        """Call ``send``, a method of this object.

        Raises:
            Refused: it will never be taken.
            Exception: anything else is worth another attempt.
        """
        send()

    @abstractmethod
    def start(self) -> None:
        """Begin the run, or take it up again; left out where it ends before that was sent."""

    def dataset(self, dataset: DatasetInput) -> None:  # noqa: B027 - optional
        """Add a dataset that the run learns from."""

    @abstractmethod
    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Bring what is there of a trial up to date with its record."""

    @abstractmethod
    def judged(self, stage: str, pools: Sequence[PoolVerdict]) -> None:
        """Say what became of the pools of a study."""

    @abstractmethod
    def metrics(self, numbers: Mapping[str, float], time_ms: int) -> None:
        """Write numbers of the run as a whole."""

    @abstractmethod
    def artifact(self, name: str, data: bytes) -> None:
        """Write a file of the run, in the place of an older one of that name."""

    @abstractmethod
    def describe(self, text: str) -> None:
        """Write what the run has found, as Markdown."""

    @abstractmethod
    def end(self, ok: bool) -> None:
        """End the run, and trials that were cut off with it."""


class Queued(Tracker):
    """Hands everything to a :class:`Writer` through an :class:`Outbox`; training never waits.

    As the writer writes nothing twice, what an outage kept away is sent by telling everything
    again.
    """

    Config = QueuedConfig
    config: QueuedConfig

    def __init__(self, config: QueuedConfig, storage: Storage) -> None:
        super().__init__(config, storage)
        self._writer: Writer | None = None
        self._outbox: Outbox | None = None
        self._count = itertools.count()
        self._name = ""

    @property
    @abstractmethod
    def receiver(self) -> str:
        """Who gets it, for messages; without passwords."""

    @abstractmethod
    def open(self, run: RunInfo) -> Writer:
        """Return what writes a run; nothing is written yet."""

    def start(self, run: RunInfo) -> None:
        """Begin, or take up again, the run with the key ``run.key``.

        Raises:
            RuntimeError: the tracker was started before.
        """
        if self._writer is not None:
            raise RuntimeError("the tracker was started before")
        self._name = run.name
        self._writer = self.open(run)
        self._outbox = Outbox(self.receiver)
        self._send("the run", self._writer.start)

    def dataset(self, dataset: DatasetInput) -> None:
        """Queue an input of the run and of all trials that are sent after it."""
        self._send(f"dataset {dataset.digest}", partial(self._started.dataset, dataset))

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Queue the newest record of a trial; an older one that still waits is replaced."""
        send = partial(self._started.trial, record, dict(tags), dict(params), tuple(inputs))
        self._send(f"trial {record.spec.id}", send)

    def judged(self, stage: str, pools: Sequence[PoolVerdict]) -> None:
        """Queue the verdicts of a study."""
        self._send(f"verdicts {stage}", partial(self._started.judged, stage, tuple(pools)))

    def metrics(self, values: Mapping[str, float], time_ms: int | None = None) -> None:
        """Queue numbers of the run."""
        since = time_ms or time.time_ns() // 1_000_000
        send = partial(self._started.metrics, dict(values), since)
        self._send(f"metrics {next(self._count)}", send)

    def artifact(self, name: str, data: bytes) -> None:
        """Queue a file of the run; replaces one of the same name.

        Raises:
            ValueError: ``name`` is not a relative path inside the run's artifacts.
        """
        path = PurePosixPath(name)
        if not path.name or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"not a relative path of an artifact: {name!r}")
        self._send(f"artifact {path}", partial(self._started.artifact, str(path), data))

    def describe(self, text: str) -> None:
        """Queue what the run has found."""
        self._send("the description", partial(self._started.describe, text))

    def finish(self, ok: bool, within: float | None = None) -> int:
        """End the run; give up after ``patience`` seconds in which nothing was sent.

        Args:
            ok: whether the run came to its end.
            within: give up after so many seconds, whatever was sent.

        Returns:
            How many things were not sent; a warning says so too.
        """
        if self._outbox is None:
            return 0
        self._send("the run", partial(self._started.end, ok))
        unsent = self._outbox.close(self.config.patience, within)
        if unsent:
            logger.warning(
                "%s: %d things were not sent; they are safe in the storage, and the same command "
                "again sends them, or: %s",
                self.receiver,
                unsent,
                self._sync_command,
            )
        return unsent

    @property
    def _sync_command(self) -> str:
        storage = shlex.quote(self.storage.shown)
        return f"djsandbox sync {shlex.quote(self._name)} --storage {storage}"

    @property
    def _started(self) -> Writer:
        if self._writer is None:
            raise RuntimeError("the tracker was not started")
        return self._writer

    def _send(self, what: str, send: Callable[[], None]) -> None:
        if self._outbox is None:
            raise RuntimeError("the tracker was not started")
        self._outbox.put(what, partial(self._started.attempt, send))
