"""Writes that go on in the background: an object store answers in tens of milliseconds.

Who hands in a write goes on at once. What must be there before something else happens is waited
for: :meth:`Backlog.flush`. A write that fails is raised where the next one is handed in, at the
latest by ``flush``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_THREADS = 16
_IDLE_SECONDS = 10.0
_MOST = 1000
"""So many may wait; then who hands in waits too, and a kill never loses more."""


class Backlog:
    """Does what is put into it with some threads; of one key, one after the other.

    Of what waits under one key only the newest is done: it says all that the older ones said. As a
    context it ends when all is done; an error of the block itself is not covered up by another.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: dict[str, Callable[[], object]] = {}
        self._busy: set[str] = set()
        self._threads = self._idle = 0
        self._failed: Exception | None = None
        lock = threading.Lock()
        self._handed_in = threading.Condition(lock)
        self._done = threading.Condition(lock)

    def __enter__(self) -> Backlog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._wait()
        if kind is None:
            self._raise()

    def put(self, key: str, work: Callable[[], object]) -> None:
        """Hand in some work; what waits under the same key is left out.

        Raises:
            Exception: what earlier work has raised, once and for all.
        """
        with self._done:
            self._done.wait_for(lambda: len(self._waiting) < _MOST or key in self._waiting)
            self._raise()
            self._waiting[key] = work
            if self._idle:
                self._handed_in.notify()
            elif self._threads < _THREADS:
                self._threads += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def flush(self, within: float | None = None) -> None:
        """Wait until all is done, or for so many seconds.

        Raises:
            Exception: what any of it has raised.
        """
        self._wait(within)
        self._raise()

    def _wait(self, within: float | None = None) -> None:
        with self._done:
            self._done.wait_for(lambda: not self._waiting and not self._busy, within)

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            key, work = entry
            try:
                work()
            except Exception as error:
                self._failed = self._failed or error
            finally:
                with self._done:
                    self._busy.discard(key)
                    self._done.notify_all()

    def _next(self) -> tuple[str, Callable[[], object]] | None:
        """Return the next work; None after a while without any, and the thread is gone."""
        with self._handed_in:
            self._idle += 1
            there = self._handed_in.wait_for(self._first, _IDLE_SECONDS)
            self._idle -= 1
            if there is None:
                self._threads -= 1
                return None
            self._busy.add(there)
            return there, self._waiting.pop(there)

    def _first(self) -> str | None:
        return next((key for key in self._waiting if key not in self._busy), None)
