"""What a worker says of itself while it trains: that its process lives, and that its work goes on.

A thread writes it every few seconds into the key-value store of the cluster's head, which costs no
process and no disk; the driver reads it (``vigil``), and no two clocks are compared. A process that
is stopped writes nothing. Work goes on if the family says so at every step; of one that never does,
if its process computes: one that waits for ever does not.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from djsandbox_ray.storage.processes import Process

NAMESPACE = "djsandbox"
_BUSY = 0.05
"""Of a CPU; the threads of an idle worker of Ray take less."""


def key(watch: str, trial: str, rank: int) -> str:
    """Return where the pulse of a worker stands: of a driver's watch, a trial and a rank."""
    return f"{watch}/{trial}/{rank}"


class Pulse:
    """The pulse of one worker, for one trial after the other.

    Args:
        watch: of the driver; None writes nothing.
        rank: of the worker.
        pause: seconds between two writes.
    """

    def __init__(self, watch: str | None = None, rank: int = 0, pause: float = 5.0) -> None:
        self._watch, self._rank, self._pause = watch, rank, pause
        self._trial: str | None = None
        self._place = ""
        self._training = False
        self._aside = 0
        self._steps = self._steps_seen = 0
        self._beats = self._progress = 0
        self._cpu, self._at = 0.0, 0.0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, trial: str, place: str) -> None:
        """Take up a trial, which is then being made ready, by a worker that is so called."""
        self.end()
        self._trial, self._place, self._training = trial, place, False
        self._steps = self._steps_seen = 0
        if self._watch is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
            self._thread.start()
        self._wake.set()

    def end(self) -> None:
        """Let go of the trial."""
        trial, self._trial = self._trial, None
        if self._watch is not None and trial is not None:
            with suppress(Exception):  # it only is one more key of a trial that is over
                store()._internal_kv_del(key(self._watch, trial, self._rank), namespace=NAMESPACE)

    def beat(self) -> None:
        """Say that the training goes on; cheap, to be called at every step."""
        self._steps += 1

    @contextmanager
    def training(self) -> Iterator[None]:
        """Have the work inside watched over, from one rung to the next."""
        self._training = True
        try:
            yield
        finally:
            self._training = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave out work that takes as long as it takes: an evaluation, a program, a transfer."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause)
            self._wake.clear()
            trial = self._trial
            if trial is not None:
                with suppress(Exception):  # the head may be away for a while
                    self._write(trial)

    def _write(self, trial: str) -> None:
        self._beats += 1
        self._progress += self._goes_on()
        told = {
            "beats": self._beats,
            "progress": self._progress,
            "process": asdict(Process.this()),
            "node": _node(),
            "place": self._place,
        }
        name = key(str(self._watch), trial, self._rank)
        store()._internal_kv_put(name, json.dumps(told), overwrite=True, namespace=NAMESPACE)

    def _goes_on(self) -> bool:
        """Say whether the work has gone on since the last time, as far as it can be known."""
        share, steps = self._share(), self._steps
        stepped, self._steps_seen = steps != self._steps_seen, steps
        if not self._training or self._aside or stepped:
            return True
        return steps == 0 and share > _BUSY

    def _share(self) -> float:
        """Return how much of a CPU the process has used since the last time."""
        now, cpu = time.monotonic(), time.process_time()
        share = (cpu - self._cpu) / max(now - self._at, 1e-3)
        self._cpu, self._at = cpu, now
        return share


def store() -> Any:
    """Return the key-value store of the cluster's head, which Ray has no public name for."""
    from ray.experimental import internal_kv

    return internal_kv


def _node() -> str:
    import ray

    if not ray.is_initialized():  # at the end of a process; asking would start a cluster
        raise RuntimeError("this process is no worker of a cluster")
    return str(ray.get_runtime_context().get_node_id())
