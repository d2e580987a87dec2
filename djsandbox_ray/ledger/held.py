"""CPU time of the cluster that is spent below a call whose result has no room for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_NOTED: ContextVar[list[float] | None] = ContextVar("noted", default=None)


@contextmanager
def held_cpu_seconds() -> Iterator[list[float]]:
    """Collect what :func:`note_held` is told inside, in this thread: CPUs times seconds."""
    noted: list[float] = []
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


def note_held(cpu_seconds: float) -> None:
    """Put CPUs times seconds on the account of whoever collects them, if anybody does."""
    noted = _NOTED.get()
    if noted is not None:
        noted.append(cpu_seconds)
