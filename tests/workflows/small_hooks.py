"""Hooks of a user, as small as they can be; every one notes in ``RAN`` that it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from pydantic import Field

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Statistic, Statistics
from djsandbox_ray.storage.store import Storage

if TYPE_CHECKING:
    from nowhere import Unknown

RAN: list[str] = []
SEEN: list[Any] = []
"""What settings were given."""
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
class Tally(Number):
    count: int


@dataclass(frozen=True)
class Nameless:
    value: float


@dataclass(frozen=True)
class Located:
    id: str
    path: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Box:
    """What is in a record that has more than numbers."""

    inner: Number
    sizes: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class Boxes:
    id: str
    first: Box
    second: Box | None
    share: float | None = None


def out(job: str, *fields: str) -> str:
    """Return the reference to a job's output, or to a field of it."""
    return "${" + ".".join((job, "output", *fields)) + "}"


def job(
    id: str, hook: str, settings: dict[str, Any] | None = None, **inputs: str
) -> dict[str, Any]:
    """Return a job of a built-in hook (lower case), of a small one, or of ``module:Class``.

    ``inputs`` are ids of jobs, whose outputs it takes.
    """
    name = hook if hook.islower() or ":" in hook else f"small_hooks:{hook}"
    given = {**{name: out(source) for name, source in inputs.items()}, **(settings or {})}
    return {"id": id, "hook": name, **({"with": given} if given else {})}


def number(value: float) -> Number:
    return Number(content_id("number", float(value)), float(value))


def tally(count: int) -> Tally:
    return Tally(content_id("tally", count), float(count), count)


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


class Doubts(Noted):
    """Cannot do all that it is for."""

    def run(self) -> Number | None:
        self.note()
        self.context.caveat("doubts: cannot be judged: too few")
        return None


class Repeats(Noted):
    """Gives how many caveats there were before it."""

    def identity(self) -> Any:
        return list(self.context.caveats)

    def run(self) -> Number:
        self.note()
        return number(len(self.context.caveats))


class WritesTable(Noted):
    """Writes a file that its output names, one that it does not, and one as a task elsewhere."""

    def run(self, left: Number) -> Located:
        self.note()
        path, _ = self.write_rows(Number, "kept/table.csv", [left])
        elsewhere = Storage(self.storage.url)
        elsewhere.write_json(self.path("elsewhere.json"), left.value)
        return Located(left.id, path, (self.path("elsewhere.json"),))


class ReadsTable(Noted):
    def run(self, table: Located) -> Number:
        self.note()
        (row,) = self.rows(Number, table)
        return number(row.value)


class SpoilsOnce(Noted):
    """Damages a file of an earlier job, as a disk might."""

    def run(self, left: Number) -> Number:
        self.note()
        Storage(self.storage.url).write_bytes(self.path("kept/table.csv"), b"id,val")
        return number(1)


class AlwaysDamaged(Noted):
    def run(self, left: Number) -> Number:
        self.note()
        raise self.storage.damaged(self.path("always.csv"), "it is of no use")


class Shares(Noted):
    """Writes what other runs share."""

    def broken(self, output: Any) -> dict[str, str]:
        path = "models/shared.json"
        return {} if self.storage.exists(path) else {path: "is not there"}

    def run(self, left: Number) -> Number:
        self.note()
        self.storage.write_json("models/shared.json", {})
        return number(2)


class Sleeps(Noted):
    """Is taken over while it works, perhaps while it reads what its successor writes."""

    def run(self, left: Number, reads: bool = False) -> Number:
        self.note()
        assert self.context.lease is not None
        self.context.lease.lost = "the run was taken over"
        if reads:
            raise self.storage.damaged(self.path("Seed.json"), "it is another one")
        return number(3)


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


class Scale(Noted):
    """Has settings of many kinds."""

    def run(
        self,
        left: Number,
        factor: float = 2.0,
        times: Annotated[int, Field(ge=1)] = 1,
        mode: Literal["up", "down"] = "up",
        offsets: tuple[float, ...] = (),
        names: dict[str, int] = {},  # noqa: B006 - never changed
        limit: int | Literal["auto"] | None = None,
        title: str = "",
        exact: bool = False,
    ) -> Number:
        self.note()
        SEEN.append((factor, times, mode, offsets, names, limit, title, exact))
        value = left.value * factor**times if mode == "up" else left.value / factor**times
        return number(value + sum(offsets))


class Boxed(Noted):
    """Gives records in a record."""

    def identity(self) -> Any:
        return self.config.pools.seed

    def run(self, left: Number | None = None) -> Boxes:
        self.note()
        box = Box(left or number(self.config.pools.seed), (1, 2), "a")
        return Boxes("boxes", box, None, float("nan"))


class TakesBox(Noted):
    """Takes what YAML cannot hold and what is no record."""

    def run(self, box: Box, sizes: list[int]) -> Number:
        self.note()
        SEEN.append((box, sizes))
        return number(box.inner.value)


class Counting(Noted):
    """Gives a number as long as the pools' seed is small."""

    def identity(self) -> Any:
        return self.config.pools.seed

    def run(self) -> Tally | None:
        self.note()
        count = self.config.pools.seed + 1
        return tally(count) if count <= 3 else None


class Sized(Noted):
    def run(self, times: Annotated[list[int], Field(max_length=1)]) -> Number:
        self.note()
        return number(len(times))


class Greedy(Noted):
    def run(self, **everything: Any) -> Number:
        self.note()
        return number(len(everything))


class WrongDefault(Noted):
    def run(self, times: int = "many") -> Number:  # type: ignore[assignment]
        self.note()
        return number(times)


class NoHook:
    def run(self) -> Number:
        return number(1)


class Abstract(Hook):
    pass


class Passed(Hook):
    """Gives nothing only where it may be given nothing."""

    @overload
    def run(self, left: Number) -> Number: ...

    @overload
    def run(self, left: Number | None) -> Number | None: ...

    def run(self, left: Number | None) -> Number | None:
        return left
