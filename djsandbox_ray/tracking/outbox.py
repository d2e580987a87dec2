"""A queue with a thread: work that may fail for a while and must not hold up who hands it in."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0


class Refused(Exception):
    """The receiver will never take this; trying again is of no use."""


class Outbox:
    """Sends what is put into it, in order, from a background thread.

    Of several sendings under one key that wait, only the newest is kept. What fails is tried again,
    with growing pauses, behind everything else that waits; what is refused is dropped and counted.

    Args:
        receiver: who gets it, for messages; must not hold a password.
    """

    def __init__(self, receiver: str) -> None:
        self._receiver = receiver
        self._waiting: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._down = False
        self._delay = 0.0
        self._retry_at = 0.0
        self._sent_at = 0.0
        self._refused = 0
        self._closing = False
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, key: str, send: Callable[[], None]) -> None:
        """Queue ``send`` and drop an older one under the same key; returns at once."""
        with self._changed:
            if self._closing:
                raise RuntimeError("the outbox is closed")
            self._waiting.pop(key, None)
            self._waiting[key] = send
            self._changed.notify()

    def close(self, patience: float, within: float | None = None) -> int:
        """Send what waits; stop when nothing could be sent for ``patience`` seconds.

        Args:
            patience: seconds without anything sent.
            within: seconds in all, whatever is sent.

        Returns:
            How many sendings were refused or still wait. Waiting time is bounded, as nothing can be
            added any more.
        """
        with self._changed:
            self._closing = True
            self._sent_at = now = time.monotonic()
            latest = math.inf if within is None else now + within
            self._delay = self._retry_at = 0.0
            self._changed.notify()
            while self._waiting:
                left = min(self._sent_at + patience, latest) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._given_up = True
            self._changed.notify_all()
            return len(self._waiting) + self._refused

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            key, send = entry
            try:
                send()
            except Refused as error:
                told = {"event": "tracker_refused"}
                logger.warning("%s refused %s: %s", self._receiver, key, error, extra=told)
                self._done(key, send, refused=True)
            except Exception as error:
                self._failed(key, send, error)
            else:
                self._done(key, send, refused=False)

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        with self._changed:
            while not self._given_up:
                pause = self._retry_at - time.monotonic()
                if self._waiting and pause <= 0:
                    return next(iter(self._waiting.items()))
                if self._closing and not self._waiting:
                    return None
                self._changed.wait(pause if self._waiting else None)
            return None

    def _done(self, key: str, send: Callable[[], None], *, refused: bool) -> None:
        with self._changed:
            if self._waiting.get(key) is send:  # else a newer one came in the meantime
                del self._waiting[key]
            self._refused += refused
            self._sent_at = time.monotonic()
            self._delay = 0.0
            if self._down and not refused:
                told = {"event": "tracker_back"}
                logger.warning("%s answers again", self._receiver, extra=told)
                self._down = False
            self._changed.notify_all()

    def _failed(self, key: str, send: Callable[[], None], error: Exception) -> None:
        with self._changed:
            if not self._down:  # one message per outage
                logger.warning(
                    "%s: sending %s failed, the run goes on and it is tried again: %s",
                    self._receiver,
                    key,
                    error,
                    extra={"event": "tracker_away"},
                )
            self._down = True
            if self._waiting.get(key) is send:
                self._waiting[key] = self._waiting.pop(key)  # one bad item never blocks the others
            longest = FIRST_DELAY if self._closing else LONGEST_DELAY
            self._delay = min(max(2 * self._delay, FIRST_DELAY), longest)
            self._retry_at = time.monotonic() + self._delay
