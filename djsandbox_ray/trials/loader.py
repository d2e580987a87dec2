"""Batches made ready in threads, ahead of the step, and rows read from the sample table as needed.

Nothing of a draw is held as a whole: only ``prefetch`` batches are in memory at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

W = TypeVar("W")
B = TypeVar("B")


class Loader(Generic[W, B]):
    """Makes what is wanted, in its order, some of it ahead.

    Args:
        make: called in threads, for several at once; what it raises is raised where its turn comes.
        wanted: one item after the other; taken in the caller's thread, as far ahead as is made.
        threads: that make.
        prefetch: how many are made ahead of the one that is worked on.
    """

    def __init__(
        self, make: Callable[[W], B], wanted: Iterable[W], threads: int, prefetch: int
    ) -> None:
        self._make, self._wanted = make, wanted
        self._threads, self._prefetch = max(1, threads), prefetch

    def __call__(self) -> Generator[B]:
        """Yield what is made; closing the generator ends the threads."""
        wanted, ahead = iter(self._wanted), deque[Future[B]]()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="loader")
        try:
            ahead.extend(pool.submit(self._make, item) for item in islice(wanted, self._prefetch))
            while ahead:
                made = ahead.popleft().result()
                ahead.extend(pool.submit(self._make, item) for item in islice(wanted, 1))
                yield made
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
