"""What stands for the code of a class in ids: whoever edits a class of theirs gets other ids.

Classes of this package have a ``VERSION``, which is raised when what they compute changes, or are
described by it otherwise. A user's class may have one of its own; else it is known by the contents
of the file that it stands in, and of those of the user's classes that it inherits from.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.settings.registry import imported

_VERSION = "VERSION"
_BUILT_IN = frozenset({"builtins", "djsandbox_ray", "data_juicer"}) | sys.stdlib_module_names


def version_of(kind: type) -> Any:
    """Return plain data that changes with what a class computes.

    Args:
        kind: a class of this package: its ``VERSION``, or None; or a user's.

    Raises:
        BadInput: a user's class has no ``VERSION``, and its source cannot be read.
    """
    if not is_users(kind) or _VERSION in vars(kind):
        return getattr(kind, _VERSION, None)
    return [getattr(kind, _VERSION, None), _digest(kind)]


def with_code(identity: Any, kind: type) -> Any:
    """Return what identifies an object, with its class where that is a user's.

    Args:
        identity: plain data; of a built-in class it stands for the class, too.
        kind: the class.
    """
    return {"identity": identity, "code": version_of(kind)} if is_users(kind) else identity


def codes_in(settings: Any) -> list[Any]:
    """Return what stands for the users' classes that plain data name: ``{type: module:Class}``."""
    return [[name, version_of(kind)] for name, kind in sorted(_named(settings))]


def _named(settings: Any) -> Iterator[tuple[str, type]]:
    if isinstance(settings, list):
        for item in settings:
            yield from _named(item)
    elif isinstance(settings, dict):
        for item in settings.values():
            yield from _named(item)
        name = settings.get("type")
        if isinstance(name, str) and ":" in name:
            try:
                found = imported(name)
            except (Exception, SystemExit):  # said by whoever reads the setting
                return
            if isinstance(found, type) and is_users(found):
                yield name, found


def is_users(kind: type) -> bool:
    """Say whether a class comes from outside."""
    return kind.__module__.partition(".")[0] not in _BUILT_IN


@cache
def _digest(kind: type) -> str:
    """Hash the files that a class and its users' bases stand in, as they are when first asked."""
    modules = dict.fromkeys(base.__module__ for base in kind.__mro__ if is_users(base))
    digest = hashlib.blake2b(digest_size=16)
    for name in modules:
        digest.update(hashlib.blake2b(_source(kind, name)).digest())
    return digest.hexdigest()


def _source(kind: type, name: str) -> bytes:
    module = sys.modules.get(name)
    try:
        if file := getattr(module, "__file__", None):
            return Path(file).read_bytes()
    except OSError:
        pass  # in an archive: its loader knows the text
    try:
        return inspect.getsource(module or kind).encode()
    except (OSError, TypeError) as error:
        raise BadInput(
            f"the source of {kind.__module__}:{kind.__qualname__} cannot be read: give the class a "
            "VERSION, a number to be raised when what it computes changes"
        ) from error
