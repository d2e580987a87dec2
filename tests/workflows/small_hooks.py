"""Hooks of a user, as small as they can be; every one notes in ``RAN`` that it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Statistic, Statistics

if TYPE_CHECKING:
    from nowhere import Unknown

RAN: list[str] = []
BROKEN: set[str] = set()
"""Hooks that raise half-way."""


@dataclass(frozen=True)
class Number:
    id: str
    value: float


@dataclass(frozen=True)
class BigNumber(Number):
    digits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Nameless:
    value: float


def number(value: float) -> Number:
    return Number(content_id("number", float(value)), float(value))


class Noted(Hook):
    def note(self) -> None:
        RAN.append(type(self).__name__)
        path = f"{self.context.folder}/{type(self).__name__}.json"
        self.context.storage.write_json(path, len(RAN))
        if type(self).__name__ in BROKEN:
            raise RuntimeError("half-way")


class Seed(Noted):
    """Gives the seed of the pools: its output changes with the configuration."""

    def identity(self) -> Any:
        return self.config.pools.seed

    def run(self) -> Number:
        self.note()
        return number(self.config.pools.seed)


class Buckets(Noted):
    """Depends on the number of buckets, but gives the same whatever it is."""

    def identity(self) -> Any:
        return self.config.pools.buckets

    def run(self) -> Number:
        self.note()
        return number(7)


class Add(Noted):
    def run(self, left: Number, right: Number) -> Number:
        self.note()
        return number(left.value + right.value)


class Double(Noted):
    def run(self, left: Number) -> Number:
        self.note()
        return number(2 * left.value)


class Nothing(Noted):
    def run(self) -> None:
        self.note()


class Perhaps(Noted):
    def identity(self) -> Any:
        return self.config.pools.self_tests

    def run(self) -> Number | None:
        self.note()
        return number(1) if self.config.pools.self_tests else None


class OrZero(Noted):
    def run(self, left: Number | None) -> Number:
        self.note()
        return number(0 if left is None else left.value + 100)


class Optional(Noted):
    def run(self, left: Number, right: Number | None = None) -> Number:
        self.note()
        return left if right is None else number(left.value - right.value)


class Big(Noted):
    def run(self) -> BigNumber:
        self.note()
        return BigNumber("big", 12.0, (1, 2))


class Nested(Noted):
    def run(self) -> Statistics:
        self.note()
        return Statistics("s", (Statistic("a", "b", "c", "d", "e"), Statistic("f", *"ghij")))


class Anything(Noted):
    def run(self, left: Any) -> Number:
        self.note()
        return number(len(str(left)))


class Untyped(Noted):
    def run(self, left):  # type: ignore[no-untyped-def]
        self.note()
        return number(1)


class GivesNameless(Noted):
    def run(self) -> Nameless:
        self.note()
        return Nameless(1)


class GivesFloat(Noted):
    def run(self) -> float:
        self.note()
        return 1.0


class Unreadable(Noted):
    def run(self) -> Unknown:
        self.note()


class Liar(Noted):
    """Promises a number and gives None."""

    def run(self) -> Number:
        self.note()
        return None  # type: ignore[return-value]


class NoHook:
    def run(self) -> Number:
        return number(1)


class Abstract(Hook):
    pass
