"""The errors that a user is meant to read, each with the exit code of the command line."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from types import ModuleType

logger = logging.getLogger(__name__)


class SandboxError(Exception):
    """Something went wrong during a run; what is finished is kept and the same command resumes."""

    exit_code = 1


class Stopped(SandboxError):
    """The user has stopped the run; what is finished is kept and the same command resumes."""


class BadInput(SandboxError):
    """What the user gave cannot be used: says where, what is wrong and what is allowed."""

    exit_code = 2


class Damaged(BadInput):
    """A file of the storage is not what was written there: says which, and what mends it.

    Args:
        what: the file, and what is wrong with it.
        remedy: what the user does about it.
        path: of the file or folder in the storage; empty where that is not known.
    """

    def __init__(self, what: str, remedy: str, path: str = "") -> None:
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy, self.path = what, remedy, path

    def __reduce__(self) -> tuple[type[Damaged], tuple[str, str, str]]:
        # An exception is pickled by its message; this one is made from three texts.
        return type(self), (self.what, self.remedy, self.path)


class Missing(Damaged):
    """A file of the storage is not there."""


class StorageFailed(SandboxError):
    """The storage is full, read-only, gone or away: says where, and what the system said."""


class PlanRefused(SandboxError):
    """The plan costs more than the user allows, or would see less than they ask for."""

    exit_code = 3


class MissingExtra(BadInput):
    """A package of an optional extra is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"the package {module!r} is not installed; it comes with the extra {extra!r}: "
            f"pip install 'djsandbox-ray[{extra}]'"
        )
        self.module, self.extra = module, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        # An exception is pickled by its message; this one is made from two words.
        return type(self), (self.module, self.extra)


@contextmanager
def uncovered(what: str) -> Iterator[None]:
    """Log what cleaning up raises, while an error is on its way that it would cover.

    Args:
        what: is cleaned up, in words.
    """
    try:
        yield
    except Exception as error:
        logger.warning("%s, after an error: %s: %s", what, type(error).__name__, error)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` if a known name is like this one."""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(
    kind: str, name: str, known: Iterable[str], *, otherwise: str = "", listed: str = ""
) -> BadInput:
    """Return the error about a name that is none of the known ones: the nearest, and what may be.

    Args:
        kind: what the name should stand for.
        name: as it was given.
        known: what may stand there; the nearest is suggested.
        otherwise: what else may stand there.
        listed: what is said in place of all known names, where they are too many.
    """
    known = list(known)
    listed = listed or f"known: {', '.join(known) or 'none'}"
    more = f"; or {otherwise}" if otherwise else ""
    return BadInput(f"unknown {kind} {name!r}{nearest(name, known)} ({listed}{more})")


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` lazily.

    Raises:
        MissingExtra: it is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(module, extra) from error
