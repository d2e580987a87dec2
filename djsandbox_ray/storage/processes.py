"""Processes of this machine, identified so that a number that was given again is another process.

A number means something among processes that see each other: in one PID namespace of one system
that was started once. Of any other process nothing can be known here.
"""

from __future__ import annotations

import os
from contextlib import suppress
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
        """Return a process that this one can see, None if it is gone or cannot be looked up."""
        with suppress(OSError):
            if (started := _started(pid)) is not None:
                return cls(_space(), pid, started)
        return None

    @classmethod
    def this(cls) -> Process:
        """Return the process that asks; of no space if it cannot be looked up.

        Nobody takes such a one for gone; one with another start than it has, everybody would.
        """
        pid = os.getpid()
        return cls.of(pid) or cls("", pid, 0)

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that the process has ended."""
        if not self.space or self.space != _space():
            return False
        try:
            return _started(self.pid) != self.started
        except OSError:
            return False


@cache
def _space() -> str:
    try:
        boot = Path(_BOOT).read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux, or a sandbox that hides it
        return ""


def _started(pid: int) -> int | None:
    """Return when a living process began; None if there is certainly none of that number.

    Raises:
        OSError: nothing is known of it, as it is hidden from this user, or too many files are open.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        if _answers(pid):
            raise
        return None
    # The name of the program, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in _DEAD else int(fields[19])


def _answers(pid: int) -> bool:
    """Say whether the system knows a process of that number, also one that /proc hides."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True
