"""How a run is told to stop: SIGTERM, which ``ray job stop`` sends, is taken as Ctrl-C is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

FLUSH_SECONDS = 1.5
"""How long a stopped run waits for its tracker in all: Ray kills a job 3 seconds after SIGTERM,
unless its submitter asked for more."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the block with a KeyboardInterrupt.

    Ray's calls pass on no other exception of a signal handler. While the block ends, a second
    SIGTERM does nothing; a second Ctrl-C breaks that off too. To be entered after Ray is connected,
    which installs a handler of its own. Without effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
