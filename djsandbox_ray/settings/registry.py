"""One small generic registry: built-in names, or ``package.module:Class`` where one may stand."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from djsandbox_ray.errors import BadInput, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names for the subclasses of ``base``; a class is imported when it is asked for.

    Args:
        kind: what the entries are, for messages ("source", "evaluator").
        base: every entry, a user's own class too, must be a subclass of it.
        built_in: per name, the class as ``package.module:Class``.
    """

    def __init__(self, kind: str, base: type[T], built_in: Mapping[str, str]) -> None:
        self.kind = kind
        self.base = base
        self._built_in = dict(sorted(built_in.items()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._built_in)

    def get(self, name: str) -> type[T]:
        """Return the class that a built-in name or ``package.module:Class`` stands for.

        Raises:
            BadInput: unknown name (lists the known ones), or no concrete subclass of ``base``.
        """
        place = self._built_in.get(name, name)
        if ":" not in place:
            raise unknown(self.kind, name, self, otherwise="package.module:Class")
        try:
            found = imported(place)
        except (Exception, SystemExit) as error:  # importing a module may raise anything
            raise BadInput(
                f"{self.kind} {name!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise BadInput(f"{self.kind} {name!r} is not a subclass of {self.base.__name__}")
        if abstract := ", ".join(sorted(getattr(found, "__abstractmethods__", ()))):
            raise BadInput(f"{self.kind} {name!r} does not define {abstract}")
        return found


def imported(place: str) -> Any:
    """Return what ``package.module:Class`` stands for; raises whatever importing it raises."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
