"""Pools that are not cut from a statistic: random buckets, and any chosen rows.

A random bucket is what one bucket of a shuffled statistic would be: ``size`` rows of the dataset,
those of least hash under a key of its own. Under the null hypothesis a pool is exchangeable with
it, so that the control arms measure all of the noise of an arm, its make-up included. A second
study sets some pools of the first beside control arms that are fresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import unknown
from djsandbox_ray.identity import rows_hash
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT
from djsandbox_ray.pools.eligible import EligibleRows
from djsandbox_ray.pools.filling import Column, RandomColumn, Rows, filled, spoilt
from djsandbox_ray.records import Pool, PoolKind, Pools, Spoil

Arm = tuple[Pool, NDArray[np.int8]]
"""A pool and its column of codes: 0 for its rows, ``LEFT_OUT`` for the others."""


def pool_hash(rows: NDArray[np.int64], spoil: Spoil | None = None) -> str:
    """Hash the rows of a pool and what is done to them; 32 hex digits."""
    return spoilt(rows_hash(rows), spoil)


def arm_of(
    name: str,
    row_ids: NDArray[np.int64],
    chosen: NDArray[np.bool_] | NDArray[np.intp],
    *,
    kind: PoolKind = PoolKind.BUCKET,
    others: NDArray[np.int8] | None = None,
    **more: Any,
) -> Arm:
    """Make the pool of some rows.

    Args:
        name: its id, and that of its column.
        row_ids: (n,).
        chosen: its rows, as a mask of shape (n,) or as positions.
        kind: what it is for.
        others: (n,), the codes of the rows that are not chosen; ``LEFT_OUT`` by default.
        **more: further fields of the pool.
    """
    codes = np.full(len(row_ids), LEFT_OUT, dtype=np.int8) if others is None else others.copy()
    codes[chosen] = 0
    rows = row_ids[chosen]
    content = pool_hash(rows, more.get("spoil"))
    return Pool(name, kind, column=name, code=0, size=len(rows), hash=content, **more), codes


def named_pools(pools: Pools, names: Iterable[str]) -> list[Pool]:
    """Return the pools of these ids.

    Raises:
        BadInput: there is none of an id; says the nearest and lists all.
    """
    by_id = {pool.id: pool for pool in pools.pools}
    names = list(names)
    for name in names:
        if name not in by_id:
            raise unknown("pool", name, by_id)
    return [by_id[name] for name in names]


def control_columns(
    size: int, count: int, seed: int, first: int = 0, prefix: str = "control/"
) -> Iterator[RandomColumn]:
    """Yield the columns of ``count`` random buckets of ``size`` rows.

    They are called ``prefix`` and a number from ``first`` on. Those of another name are other
    buckets; of one name, a smaller bucket is a part of the larger one.
    """
    for index in range(first, first + count):
        yield RandomColumn(f"{prefix}{index}", PoolKind.CONTROL, size, seed)


def control_arms(
    row_ids: NDArray[np.int64],
    size: int,
    count: int,
    seed: int,
    first: int = 0,
    prefix: str = "control/",
) -> Iterator[Arm]:
    """Yield the arms of :func:`control_columns` among ``row_ids``, shape (n,)."""
    rows = EligibleRows(row_ids, {}, np.empty(0, np.int64))
    for column in control_columns(size, count, seed, first, prefix):
        yield from ((pool, rows.expand(codes)) for pool, codes in arms_of(column, rows))


SPOILT_POOLS: dict[Spoil, str] = {
    "captions": "self_test/shuffled_captions",
    "frames": "self_test/first_frames",
}
"""Names of self-tests by what is done to their samples."""


def self_test_columns(size: int, seed: int, spoils: Sequence[Spoil]) -> Iterator[RandomColumn]:
    """Yield the columns of the pools whose verdict is known beforehand.

    A shuffled statistic says nothing about the samples, so that its pool must be undecided; samples
    that are spoilt must be worse.

    Args:
        size: rows of each.
        seed: of the pools.
        spoils: what spoils samples for the model that is trained.
    """
    kind = PoolKind.SELF_TEST
    yield RandomColumn("self_test/shuffled_statistic", kind, size, seed, {"expected": "undecided"})
    for spoil in spoils:
        more = {"expected": "worse", "spoil": spoil}
        yield RandomColumn(SPOILT_POOLS[spoil], kind, size, seed, more)


def arms_of(column: Column, rows: Rows) -> Iterator[Arm]:
    """Yield the pools of a column with its codes of all rows, which they share."""
    codes: list[NDArray[np.int8]] = []
    for made in filled(column, rows):
        if isinstance(made, tuple):
            whole = np.concatenate([np.empty(0, np.int8), *codes])
            yield from ((pool, whole) for pool in made)
        else:
            codes.append(made)


@dataclass(frozen=True, eq=False)
class SecondLook:
    """Chosen pools, fresh controls, and the columns of codes of the controls."""

    pools: tuple[Pool, ...]
    assignments: dict[str, NDArray[np.int8]]
    """Per fresh control: (n,), as in :class:`djsandbox_ray.pools.build.Construction`."""


def second_look(
    pools: Pools, chosen: Sequence[str], codes: NDArray[np.int8], controls: int, study: str = ""
) -> SecondLook:
    """Set chosen pools beside control arms that the first study did not have.

    Args:
        pools: of the first study.
        chosen: ids of pools of it.
        codes: (n,), any column of the first study's assignments, by row id: it says which rows are
            kept out of every pool.
        controls: how many control arms to make.
        study: whose own the control arms are: those of another study are other buckets, of whatever
            size. By default they are the next after those of the first study.

    Raises:
        BadInput: an id that is not one of the first study's.
    """
    again = named_pools(pools, chosen)
    used = 0 if study else sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
    prefix = f"control/{study}/" if study else "control/"
    eligible = np.flatnonzero(codes != EXCLUDED).astype(np.int64)
    arms = list(control_arms(eligible, pools.size, controls, pools.seed, used, prefix))
    assignments = {}
    for pool, own in arms:
        column = np.full(len(codes), EXCLUDED, dtype=np.int8)
        column[eligible] = own
        assignments[pool.column] = column
    return SecondLook((*again, *(pool for pool, _ in arms)), assignments)
