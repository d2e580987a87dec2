"""What lies among data and is none: hidden files, copies, what other programs have left."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

HIDDEN, COPY, LEFT, UNFINISHED = "hidden", "checkpoint copy", "left by a program", "unfinished"
CHECKSUM, OTHER = "checksum or lock", "of another ending"
DANGLING, LOOP, TWICE = "dangling link", "link to a folder around it", "reached twice"
SPECIAL, FOLDER, UNNAMED = "neither file nor folder", "folder", "without a name"
MATCH = "match of what is itself a name"

PassedOver: TypeAlias = Mapping[str, Collection[str]]
"""Names by what they are."""

Beside: TypeAlias = Callable[[str], bool]
"""Whether there is something of a name in the same folder."""

_LEFT = frozenset({"_SUCCESS", "_temporary", "_metadata", "_common_metadata", "__MACOSX"})
_LEFT |= {"_delta_log", "_spark_metadata", "lost+found"}
_UNFINISHED: tuple[str, ...] = (".part", ".partial", ".filepart", ".incomplete", ".download")
_UNFINISHED += (".crdownload", ".aria2", ".tmp", ".temp", ".swp", "~")
_CHECKSUM = (".crc", ".md5", ".sha1", ".sha256", ".sha512", ".lock")
_COPY = re.compile(r"(.+)-checkpoint(\.[^/]*)?")
_SHOWN = 3


def debris(name: str, beside: Beside = lambda name: False) -> str | None:
    """Return what a file or folder is, if it is no data by its name.

    Args:
        name: its last part.
        beside: a copy has an original there.
    """
    if not name:
        return UNNAMED
    if name.startswith("."):
        return HIDDEN
    if name in _LEFT or name.startswith(("_started_", "_committed_")):
        return LEFT
    if name.lower().endswith(_UNFINISHED):
        return UNFINISHED
    if name.lower().endswith(_CHECKSUM):
        return CHECKSUM
    if (copy := _COPY.fullmatch(name)) and beside(f"{copy[1]}{copy[2] or ''}"):
        return COPY
    return None


def is_wanted(path: str, suffixes: tuple[str, ...]) -> bool:
    """Say whether a file has one of the endings, in whatever case."""
    return path.lower().endswith(suffixes)


def unwanted(name: str, suffixes: tuple[str, ...]) -> str | None:
    """Return what a file of another ending is, where it may have been meant: ``a.tar.part``."""
    meant = any(f"{s}." in name.lower() or name.lower().endswith(f"{s}~") for s in suffixes)
    return (debris(name) or OTHER) if meant else None


def other_endings(paths: Iterable[str], pattern: str, suffixes: tuple[str, ...]) -> set[str]:
    """Return which matches are of another kind, where the pattern leaves the ending open."""
    other = {path for path in paths if not is_wanted(path, suffixes)}
    return other if pattern.endswith("*") and len(other) < len(set(paths)) else set()


def any_case(pattern: str, suffixes: tuple[str, ...]) -> str:
    """Have a pattern that ends like the files match endings in upper case, too."""
    for suffix in suffixes:
        if pattern.endswith(suffix):
            letters = (f"[{sign}{sign.upper()}]" if sign.isalpha() else sign for sign in suffix)
            return pattern.removesuffix(suffix) + "".join(letters)
    return pattern


def told(passed_over: PassedOver) -> str:
    """Say what was passed over: how many, and the first names."""
    return ", ".join(_told(kind, names) for kind, names in passed_over.items())


def _told(kind: str, names: Collection[str]) -> str:
    first = sorted(names)[:_SHOWN]
    shown = [name if name.isprintable() else repr(name) for name in first]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(shown)}{more})"
