"""Processes of this machine, identified so that a number that was given again is another process.

A number means something among processes that see each other: in one PID namespace of one system
that was started once. Of any other process nothing can be known here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DEAD = ("Z", "X")
_BOOT = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Process:
    """One process, by all that makes it unique; plain data, to be kept in JSON."""

    space: str
    """The start of the system and the PID namespace; empty where the system does not say."""
    pid: int
    started: int
    """When, in ticks of its system."""

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return a process that this one can see, None if it is gone."""
        found = _stat(pid)
        return None if found is None else cls(_space(), pid, found)

    @classmethod
    def this(cls) -> Process:
        """Return the process that asks."""
        pid = os.getpid()
        return cls(_space(), pid, _stat(pid) or 0)

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that the process has ended."""
        return bool(self.space) and self.space == _space() and _stat(self.pid) != self.started


@cache
def _space() -> str:
    try:
        boot = Path(_BOOT).read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux, or a sandbox that hides it
        return ""


def _stat(pid: int) -> int | None:
    """Return when a living process began; None if there is none of that number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name of the program, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in _DEAD else int(fields[19])
