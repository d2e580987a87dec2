"""One bad row never ends an ingest: what goes wrong with an item becomes its rejection.

What is wrong with the machine (disk, network, memory) is no fault of a row: that stops the ingest,
with a sentence that says where.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from djsandbox_ray.dataset.source import Item, Rejection, Remark
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.storage.filesystems import refuses

META_LEFT_OUT = "samples without some of their meta data"

_FAILING = {
    getattr(errno, name)
    for name in (
        *("EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN"),
        *("ESTALE", "EREMOTEIO", "ENODEV", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH"),
        "EBUSY",  # of an object store that is asked too often
    )
    if hasattr(errno, name)
}
_OF_ONE_OBJECT = {"403", "AccessDenied", "AllAccessDisabled", "InvalidObjectState"}
"""Refusals of S3 that may be about one object, or one that is not there; others, such as of a token
that has expired, are about all."""
_OF_ONE_GCS_OBJECT = re.compile(r"storage\.objects\.\w+ (access|permission)|may not exist")
"""The same of Google's, whose client passes on no code."""
_CLIENTS = {"aiohttp", "botocore", "gcsfs", "google", "requests", "urllib3"}
"""What reads files of an object store or a server, and raises errors of its own."""
_OF_ONE_FILE = {403, 404, 405, 406, 410, 451}
"""Answers of a server that are about what was asked for."""
_DECODER, _OF_THE_FILE = "av.error", (errno.EIO, errno.EAGAIN)
"""What PyAV says of a video that ends too early: it reads from memory, or what was just written."""
_SHOWN = 80
_LONGEST = 500


class Unusable(Exception):
    """An item cannot be used; becomes a :class:`~djsandbox_ray.dataset.source.Rejection`."""

    def __init__(self, reason: str, detail: str, lost: int = 1) -> None:
        super().__init__(reason, detail, lost)
        self.reason, self.detail, self.lost = reason, detail, lost


def attempt(source: str, make: Callable[[], list[Item]]) -> list[Item]:
    """Return what ``make`` returns or, if it raises, one rejection.

    Args:
        source: of the item.
        make: reads it.

    Raises:
        Exception: what is no fault of the item.
    """
    try:
        return make()
    except Unusable as error:
        return [Rejection(source, error.reason, error.detail, error.lost)]
    except Exception as error:
        if is_no_fault(error):
            raise
        return [Rejection(source, "unreadable", described(error))]


def is_failing(error: BaseException) -> bool:
    """Tell a failing disk, network or machine, which must stop the run, from a fault of the data.

    An error that was put in words already stops it too.
    """
    if isinstance(error, SandboxError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, PermissionError):
        return _refusal(error) not in _OF_ONE_OBJECT | {""}
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        # Of an address that is none, too, the others may be good.
        return not is_about_one_file(error) and not isinstance(error, ValueError)
    if refuses(error):
        return _OF_ONE_GCS_OBJECT.search(str(error)) is None
    if not isinstance(error, OSError) or error.errno not in _FAILING:
        return False
    return not (type(error).__module__ == _DECODER and error.errno in _OF_THE_FILE)


def is_about_one_file(error: BaseException) -> bool:
    """Say whether a server has answered, and refuses just the file that was asked for."""
    return getattr(error, "status", getattr(error, "code", None)) in _OF_ONE_FILE


def _refusal(error: PermissionError) -> str:
    """Return the code by which S3 has refused a request; empty for another refusal."""
    answer = getattr(error.__cause__, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def is_no_fault(error: BaseException) -> bool:
    """Tell what is no fault of a row: with other luck, or on another machine, it would be read.

    Memory that ran out is among it, which :func:`is_failing` leaves to whoever asks: a whole file,
    when damaged, may announce more than any machine holds.
    """
    return isinstance(error, MemoryError) or is_failing(error)


def described(error: BaseException) -> str:
    """Return what an error says, with its kind where that says more."""
    said = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, ValueError | OSError) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def shown(text: str) -> str:
    """Return a text of the user's in quotes, not more than a line of it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...") + (
        f" ({len(text)} characters)" if len(text) > _SHOWN else ""
    )


def printable(text: str, longest: int = 2 * _LONGEST) -> str:
    """Return a text that any file can hold: halves of characters are spelled, the rest cut."""
    whole = text.encode(errors="backslashreplace").decode()
    return whole if len(whole) <= longest else f"{whole[: longest - 3]}..."


def kept_meta(source: str, load: Callable[[], Any]) -> tuple[dict[str, Any], list[Item]]:
    """Return meta data as plain JSON: what is damaged is left out, with a remark.

    Args:
        source: of the sample.
        load: returns an object, or None for no meta data.
    """
    try:
        value = load()
        if value is None:
            return {}, []
        if not isinstance(value, dict):
            raise ValueError(f"an object is needed, not {type(value).__name__}")
        meta = as_json(value)
        return meta, []
    except Exception as error:
        if is_no_fault(error):
            raise
        return {}, [Remark(source, META_LEFT_OUT, described(error))]


def as_json(value: Any) -> Any:
    """Turn a value into plain JSON data.

    NaN and infinities become None, and halves of characters are spelled.

    Raises:
        TypeError: it has no JSON form (bytes).
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {as_json(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"a value of type {type(value).__name__} cannot be kept as meta data")
