"""What the text of a ``path`` stands for: several sources in one, alternatives in braces."""

from __future__ import annotations

import re
from collections.abc import Sequence

from djsandbox_ray.errors import BadInput

MOST = 1_000_000
"""Files that braces may stand for; the largest public collections have 250,000 tars."""

_LONGEST = 4096
"""Characters of one path, as in Linux."""

_CHAINED = frozenset({"blockcache", "cached", "dir", "filecache", "libarchive", "reference"})
_CHAINED |= {"simplecache", "tar", "zip"}
"""What fsspec reads through another address: ``zip://a.tar::s3://bucket/a.zip`` is one source."""
_JOINT = re.compile(r"::(?![0-9A-Fa-f:.]*\])")  # not that of an address, http://[::1]/
_NUMBERS = re.compile(r"(-?\d{1,15})\.\.(-?\d{1,15})(?:\.\.(-?\d{1,15}))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])")


class Absent(BadInput):
    """What a path names is not there."""


def is_pattern(path: str) -> bool:
    """Say whether a path holds signs that stand for others."""
    return any(sign in path for sign in "*?[")


def several(path: str) -> list[str]:
    """Return the sources that one text names, as open_clip writes them: ``a/*.tar::b/*.tar``.

    Raises:
        BadInput: nothing stands before or behind a ``::``.
    """
    found: list[str] = []
    for part in _JOINT.split(path):
        before = found[-1].rpartition("::")[2].partition("://")[0] if found else ""
        if before in _CHAINED:
            found[-1] += f"::{part}"
        else:
            found.append(part.strip() if _JOINT.search(path) else part)
    if not all(found):
        raise BadInput(f"path {path!r}: a source is needed before and behind every '::'")
    return found


def alternatives(path: str) -> list[str]:
    """Return what braces stand for, in their order: ``{00..11}``, ``{0..10..2}``, ``{a,b}``.

    Other braces are a part of the name.

    Raises:
        BadInput: they stand for more than a million, or the path is longer than a path can be.
    """
    if len(path) > _LONGEST:
        raise BadInput(f"path {path[:40]!r}... has {len(path):,} characters, {_LONGEST:,} at most")
    try:
        return _expanded(path)
    except (_TooManyError, RecursionError):
        raise BadInput(f"path {path!r}: its braces stand for more than {MOST:,} files") from None


class _TooManyError(Exception):
    """Nothing that could be a list of files."""


def _expanded(text: str) -> list[str]:
    found, done = [""], 0
    for start, end in _groups(text):
        options = _options(text[start + 1 : end]) if start >= done else None
        if options is not None:
            if len(found) * len(options) > MOST:
                raise _TooManyError
            found = [f"{one}{text[done:start]}{option}" for one in found for option in options]
            done = end + 1
    return [one + text[done:] for one in found]


def _groups(text: str) -> list[tuple[int, int]]:
    """Return where braces open and close, the outer before the inner ones."""
    opened: list[int] = []
    pairs = []
    for index, sign in enumerate(text):
        if sign == "{":
            opened.append(index)
        elif sign == "}" and opened:
            pairs.append((opened.pop(), index))
    return sorted(pairs)


def _options(inside: str) -> Sequence[str] | None:
    """Return what may stand for two braces; None where they hold no list and no range."""
    if (numbers := _NUMBERS.fullmatch(inside)) is not None:
        return _range(*numbers.groups())
    if (letters := _LETTERS.fullmatch(inside)) is not None:
        first, last = map(ord, letters.groups())
        step = 1 if first <= last else -1
        return [chr(code) for code in range(first, last + step, step)]
    parts = _listed(inside) if "," in inside else []
    return [option for part in parts for option in _expanded(part)] if len(parts) > 1 else None


def _range(first: str, last: str, step: str | None) -> list[str]:
    padded = any(re.match(r"-?0\d", number) for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    start, stop, by = int(first), int(last), abs(int(step or 1)) or 1
    numbers = range(start, stop + 1, by) if start <= stop else range(start, stop - 1, -by)
    if len(numbers) > MOST:
        raise _TooManyError
    return [f"{number:0{width}d}" for number in numbers]


def _listed(inside: str) -> list[str]:
    """Split at the commas that are in no inner braces."""
    parts, depth = [""], 0
    for sign in inside:
        depth += (sign == "{") - (sign == "}")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts
