"""Watches over the workers of a study: who says nothing for long is reported, then replaced.

Of a trial with several workers, one whose process says nothing at all is enough; that the work does
not go on counts when it goes on nowhere, as workers wait for each other.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.processes import Process
from djsandbox_ray.trials.pulse import NAMESPACE, store

logger = logging.getLogger(__name__)

NOTE = 60.0
"""Seconds of silence that are worth a line."""
PAUSE = 5.0


@dataclass(frozen=True)
class Silence:
    """A trial that says nothing."""

    trial: str
    """Its id."""
    seconds: float
    place: str
    """The worker that is to blame, in words."""
    replaced: bool
    """Whether that worker is ended now, so that the trial is tried again from its last rung."""


@dataclass
class _Worker:
    """What was last heard of a worker, and when by the driver's own clock."""

    process: Process
    node: str
    place: str
    beats: int
    progress: int
    beat_at: float
    progress_at: float


class Vigil:
    """Looks at the pulses of a study's workers, in a thread.

    Args:
        limit: seconds after which a silent worker is replaced; None or 0 for never: then nothing
            is watched.
        on_silence: called in the thread.
        replace: ends a process on a node.
        clock: seconds.
    """

    def __init__(
        self,
        limit: float | None,
        on_silence: Callable[[Silence], None],
        replace: Callable[[Process, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watch = f"pulse/{uuid4().hex}" if limit else None
        """By which workers know whom to tell; None for nobody."""
        self._limit, self._on_silence = limit or float("inf"), on_silence
        self._replace, self._clock = replace or end_process, clock
        self.pause = min(PAUSE, self._limit / 6)
        """Seconds between two looks, and between two pulses."""
        self._workers: dict[tuple[str, int], _Worker] = {}
        self._gone: set[Process] = set()
        self._noted: set[str] = set()
        self._over = threading.Event()

    def begin(self, running: Callable[[], Collection[str]]) -> None:
        """Watch, until :meth:`end`.

        Args:
            running: the ids of the trials that have a place.
        """
        if self.watch is not None:
            thread = threading.Thread(target=self._run, args=(running,), name="vigil", daemon=True)
            thread.start()

    def end(self) -> None:
        """Watch no longer, and leave nothing in the cluster."""
        self._over.set()
        if self.watch is not None:
            with suppress(Exception):  # as while the head is away: it is little
                store()._internal_kv_del(f"{self.watch}/", del_by_prefix=True, namespace=NAMESPACE)

    def crashed(self, trial: str) -> None:
        """Expect nothing more of the processes that had a trial."""
        for (name, _), worker in list(self._workers.items()):
            if name == trial:
                self._gone.add(worker.process)

    def look(self, told: dict[tuple[str, int], dict[str, Any]], running: Collection[str]) -> None:
        """Take in what workers say now, by trial and rank, and act upon silence."""
        now = self._clock()
        for place, content in told.items():
            self._hear(place, content, now)
        heard = {
            place: worker
            for place, worker in self._workers.items()
            if place in told and place[0] in running and worker.process not in self._gone
        }
        self._workers = {place: self._workers[place] for place in told}
        for trial in {trial for trial, _ in heard}:
            self._judge(trial, [heard[place] for place in sorted(heard) if place[0] == trial], now)

    def _run(self, running: Callable[[], Collection[str]]) -> None:
        failing = False
        while not self._over.wait(self.pause):
            try:
                self.look(self._told(), running())
                failing = False
            except Exception as error:  # as while the head is away: nobody is to blame
                self._workers.clear()
                if not failing:  # one message per outage
                    failing = True
                    said = without_secrets(f"{type(error).__name__}: {error}")
                    logger.warning("silent workers are not noticed for now: %s", said)

    def _told(self) -> dict[tuple[str, int], dict[str, Any]]:
        found = {}
        for name in store()._internal_kv_list(f"{self.watch}/", namespace=NAMESPACE):
            trial, _, rank = name.decode().removeprefix(f"{self.watch}/").rpartition("/")
            if content := store()._internal_kv_get(name, namespace=NAMESPACE):
                found[trial, int(rank)] = json.loads(content)
        return found

    def _hear(self, place: tuple[str, int], content: dict[str, Any], now: float) -> None:
        process = Process(**content["process"])
        worker, last = (
            _Worker(
                process,
                content["node"],
                content["place"],
                content["beats"],
                content["progress"],
                beat_at=now,
                progress_at=now,
            ),
            self._workers.get(place),
        )
        if last is not None and last.process == process:
            if last.beats == worker.beats:
                worker.beat_at = last.beat_at
            if last.progress == worker.progress:
                worker.progress_at = last.progress_at
        self._workers[place] = worker

    def _judge(self, trial: str, workers: list[_Worker], now: float) -> None:
        stopped = min(workers, key=lambda worker: worker.beat_at)
        silent = max(now - stopped.beat_at, min(now - worker.progress_at for worker in workers))
        if silent < min(NOTE, self._limit / 2):
            self._noted.discard(trial)
            return
        # One that is stopped is to blame; of those that live, the first ends all others with it.
        blamed = stopped if now - stopped.beat_at >= silent / 2 else workers[0]
        replaced = silent >= self._limit
        if replaced:
            self._replace(blamed.process, blamed.node)
            for worker in workers:  # should that fail, it is tried again
                worker.beat_at = worker.progress_at = now
        if replaced or trial not in self._noted:
            self._noted.add(trial)
            self._on_silence(Silence(trial, silent, blamed.place, replaced))


def end_process(process: Process, node: str) -> None:
    """End a process by force, on whichever node it is: one that is stopped hears nothing else."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(_kill)
    task.options(name="end a silent worker", scheduling_strategy=there).remote(process)


def _kill(process: Process) -> None:
    if Process.of(process.pid) == process:
        os.kill(process.pid, signal.SIGKILL)
