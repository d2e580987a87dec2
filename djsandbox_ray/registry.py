"""One small generic registry: built-in names, or ``package.module:Class`` where one may stand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from djsandbox_ray.errors import BadInput

T = TypeVar("T")


class Registry(Generic[T]):
    """Names for the subclasses of ``base``.

    Args:
        kind: what the entries are, for messages ("source", "evaluator").
        base: every entry, a user's own class too, must be a subclass of it.
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind = kind
        self.base = base
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make ``name`` stand for the class.

        Raises:
            ValueError: the name is taken.
        """

        def add(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"the {self.kind} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def get(self, name: str) -> type[T]:
        """Return the class that a built-in name or ``package.module:Class`` stands for.

        Raises:
            BadInput: unknown name (lists the known ones), or no concrete subclass of ``base``.
        """
        if name in self._classes:
            return self._classes[name]
        if ":" in name:
            return self._load(name)
        near = get_close_matches(name, self._classes, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(self)
        raise BadInput(
            f"unknown {self.kind} {name!r}{hint} (known: {known}; or package.module:Class)"
        )

    def _load(self, name: str) -> type[T]:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # importing a module may raise anything
            raise BadInput(
                f"{self.kind} {name!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise BadInput(f"{self.kind} {name!r} is not a subclass of {self.base.__name__}")
        if abstract := ", ".join(sorted(getattr(found, "__abstractmethods__", ()))):
            raise BadInput(f"{self.kind} {name!r} does not define {abstract}")
        return found
