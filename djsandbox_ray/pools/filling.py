"""Columns of codes, filled part by part: what a column stands for is small, its codes are not.

A column of the assignments is described before any row of it is known (a statistic with its cut,
or a random bucket), and filled by a walk over the rows, by whoever holds them. So columns can be
filled in other processes, and no process need hold one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.pools.cuts import LEFT_OUT, Cut, Read, trim
from djsandbox_ray.pools.order import Keys, hash_key, hash_limits, hash_rows
from djsandbox_ray.records import Pool, PoolKind, Spoil

Codes = NDArray[np.int8]
Filled = tuple[NDArray[np.int64], Codes, NDArray[np.float64] | None]
"""A part of a column: row ids, codes, and values where it has some, all of shape (n,)."""


class Rows(Protocol):
    """The rows that may be in a pool, in parts that are the same in every walk."""

    def __len__(self) -> int:
        """How many."""

    def ids(self) -> Iterator[NDArray[np.int64]]:
        """Yield their ids, ascending, a part at a time."""

    def reader(self, name: str) -> Read:
        """Return what gives a statistic of them in these parts, as often as it is asked."""


class Column(Protocol):
    """A column of the assignments, yet to be filled."""

    @property
    def name(self) -> str:
        """Its name in the assignments."""

    @property
    def count(self) -> int:
        """How many pools it has."""

    def parts(self, rows: Rows) -> Iterator[Filled]:
        """Yield its codes, a part at a time."""

    def pools(self, members: list[Members]) -> tuple[Pool, ...]:
        """Return its pools, by what was met of each; their codes count from 0."""


@dataclass
class Members:
    """What a walk has met of the rows of one pool."""

    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    """Of the row ids, ascending: that of :func:`djsandbox_ray.identity.rows_hash`."""
    low: float = np.inf
    high: float = -np.inf

    def add(self, row_ids: NDArray[np.int64], values: NDArray[np.float64] | None) -> None:
        """Take in rows that come after all others.

        Which of -0.0 and 0.0 is least depends on row order: 0.0 stands for both.
        """
        self.digest.update(np.ascontiguousarray(row_ids, dtype="<i8").data)
        if values is not None and len(values):
            self.low = min(self.low, float(values.min()) + 0.0)
            self.high = max(self.high, float(values.max()) + 0.0)

    def hash(self, spoil: Spoil | None = None) -> str:
        """Return the hash of the rows and of what is done to them; 32 hex digits."""
        return spoilt(self.digest.hexdigest(), spoil)


_SPOILT: dict[Spoil, str] = {"captions": "shuffle_captions", "frames": "first_frames"}
"""Hashes of pools, and thus ids of trials, begin with these: they stay."""


def spoilt(plain: str, spoil: Spoil | None) -> str:
    """Return the hash of a pool, whose rows have the hash ``plain``."""
    if spoil is None:
        return plain
    return hashlib.blake2b(f"{_SPOILT[spoil]} {plain}".encode(), digest_size=16).hexdigest()


def filled(column: Column, rows: Rows) -> Iterator[Codes | tuple[Pool, ...]]:
    """Yield the codes of a column, a part at a time as ``rows`` has them, and its pools last."""
    members = [Members() for _ in range(column.count)]
    for row_ids, codes, values in column.parts(rows):
        for code, met in enumerate(members):
            inside = np.flatnonzero(codes == code)
            met.add(row_ids[inside], None if values is None else values[inside])
        yield codes
    yield column.pools(members)


@dataclass(frozen=True, eq=False)
class BucketColumn:
    """The buckets of a statistic, all of one size."""

    name: str
    cut: Cut
    bucket_names: tuple[str, ...]
    size: int
    seed: int

    @property
    def count(self) -> int:
        """How many pools it has."""
        return len(self.bucket_names)

    def parts(self, rows: Rows) -> Iterator[Filled]:
        """Yield its codes, a part at a time."""
        read = rows.reader(self.name)
        trimmed = trim(read, self.cut, self.size, hash_key(self.seed, "trim", self.name))
        for row_ids, values in read():
            yield row_ids, trimmed.codes(row_ids, values), values

    def pools(self, members: list[Members]) -> tuple[Pool, ...]:
        """Return the buckets, from the least values to the greatest."""
        return tuple(
            Pool(
                id=f"{self.name}/{bucket}",
                kind=PoolKind.BUCKET,
                column=self.name,
                code=code,
                size=self.size,
                hash=met.hash(),
                statistic=self.name,
                bucket=bucket,
                low=met.low,
                high=met.high,
                ties=self.cut.ties[code],
            )
            for code, (bucket, met) in enumerate(zip(self.bucket_names, members, strict=True))
        )


@dataclass(frozen=True, eq=False)
class RandomColumn:
    """A random bucket: so many rows of least hash under a key of its own."""

    name: str
    kind: PoolKind
    size: int
    seed: int
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the pool."""
    count: int = 1

    def parts(self, rows: Rows) -> Iterator[Filled]:
        """Yield its codes, a part at a time."""
        key = hash_key(self.seed, "random_bucket", self.name)

        def hashes() -> Iterator[Mapping[int, Keys]]:
            for row_ids in rows.ids():
                yield {0: hash_rows(row_ids, key)}

        limit = None
        if self.size < len(rows):
            limit = hash_limits(hashes, {0: (len(rows), [self.size])})[0][0]
        for row_ids in rows.ids():
            if limit is None:
                codes = np.zeros(len(row_ids), dtype=np.int8)
            else:
                codes = (hash_rows(row_ids, key) >= limit).view(np.int8) * np.int8(LEFT_OUT)
            yield row_ids, codes, None

    def pools(self, members: list[Members]) -> tuple[Pool, ...]:
        """Return its one pool."""
        content = members[0].hash(self.more.get("spoil"))
        return (Pool(self.name, self.kind, self.name, 0, self.size, content, **self.more),)
