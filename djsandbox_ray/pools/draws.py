"""The rows of a pool, and the draw of them that one seed trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import pool_hash
from djsandbox_ray.pools.order import hash_key, hash_rows
from djsandbox_ray.records import Pool

Rows = NDArray[np.int64]
Part = tuple[Rows, NDArray[np.int8]]
"""A part of a column of the assignments: row ids and codes, both of shape (n,)."""


@dataclass(frozen=True, eq=False)
class Draw:
    """What one trial trains on."""

    rows: NDArray[np.int64]
    """(draw_size,): row ids, in the order of their hash."""
    captions: NDArray[np.int64]
    """(draw_size,): row ids whose captions go with the images of ``rows``; the same row ids,
    unless the pool's captions are shuffled."""

    @property
    def hash(self) -> str:
        """Hash of both, in their order; 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.rows.astype("<i8").tobytes())
        digest.update(self.captions.astype("<i8").tobytes())
        return digest.hexdigest()


def members(row_ids: NDArray[np.int64], codes: NDArray[np.int8], pool: Pool) -> NDArray[np.int64]:
    """Return the row ids of a pool, ascending, shape (pool.size,).

    Args:
        row_ids: (n,).
        codes: (n,), the column ``pool.column`` of the assignments.
        pool: the pool.

    Raises:
        BadInput: the rows are not those that the pool was built of.
    """
    if row_ids.shape != codes.shape:
        raise BadInput(f"{len(row_ids)} row ids, but {len(codes)} codes in {pool.column!r}")
    ((_, rows),) = members_of([(row_ids, codes)], [pool])
    return rows


def members_of(parts: Iterable[Part], pools: Sequence[Pool]) -> Iterator[tuple[Pool, Rows]]:
    """Yield pools of one column with their row ids, ascending; the column is read once.

    Raises:
        BadInput: the rows are not those that a pool was built of.
    """
    found: dict[str, list[Rows]] = {pool.id: [] for pool in pools}
    for row_ids, codes in parts:
        for pool in pools:
            found[pool.id].append(row_ids[codes == pool.code])
    for pool in pools:
        rows = np.concatenate([np.empty(0, np.int64), *found.pop(pool.id)])
        rows.sort()
        if pool_hash(rows, pool.spoil) != pool.hash:
            raise BadInput(_others(pool, len(rows)))
        yield pool, rows


def draw(pool: Pool, rows: NDArray[np.int64], seed: int, draw_size: int, base_seed: int) -> Draw:
    """Take the subsample of a pool that a seed trains on.

    Draws of two seeds, or of two pools, are independent. With ``draw_size == pool.size`` all
    seeds have the same rows, each in its own order.

    Args:
        pool: the pool.
        rows: (pool.size,), its row ids in any order.
        seed: seed of the trial.
        draw_size: rows to take, 1 to ``pool.size``; shuffled captions need 2.
        base_seed: seed of the pools.

    Raises:
        BadInput: ``rows`` or ``draw_size`` do not fit the pool.
    """
    if rows.shape != (pool.size,):
        raise BadInput(f"pool {pool.id!r} has {pool.size} rows, not an array of {rows.shape}")
    codes = np.full(len(rows), pool.code, dtype=np.int8)
    return draw_from([(rows, codes)], pool, seed, draw_size, base_seed)


def draw_from(parts: Iterable[Part], pool: Pool, seed: int, draw_size: int, base_seed: int) -> Draw:
    """Take the draw of :func:`draw` from the pool's column of the assignments, part by part.

    Which rows a draw has is decided by their hash alone: rows beyond the greatest hash that can
    still be among the least are let go of, so that memory holds some ``draw_size`` rows and a part.

    Raises:
        BadInput: the column has not as many rows of the pool as it was built of.
    """
    least_size = 2 if pool.spoil == "captions" else 1
    if not least_size <= draw_size <= pool.size:
        raise BadInput(
            f"a draw of {draw_size} rows from {pool.id!r}: {least_size} to {pool.size} are possible"
        )
    key, count = hash_key(base_seed, "draw", pool.id, str(seed)), 0
    kept: list[tuple[Rows, NDArray[np.uint64]]] = [(np.empty(0, np.int64), np.empty(0, np.uint64))]
    bound = np.uint64(np.iinfo(np.uint64).max)
    for row_ids, codes in parts:
        rows = row_ids[codes == pool.code]
        count += len(rows)
        hashes = hash_rows(rows, key)
        inside = hashes <= bound
        kept.append((rows[inside], hashes[inside]))
        if sum(len(some) for some, _ in kept) >= 2 * draw_size:
            rows, hashes = map(np.concatenate, zip(*kept, strict=True))
            least = np.argpartition(hashes, draw_size - 1)[:draw_size]
            kept = [(rows[least], hashes[least])]
            bound = hashes[least[-1]]
    if count != pool.size:
        raise BadInput(_others(pool, count))
    rows, hashes = map(np.concatenate, zip(*kept, strict=True))
    drawn = rows[np.argsort(hashes)[:draw_size]]
    if pool.spoil != "captions":
        return Draw(drawn, drawn)
    return Draw(drawn, _other_captions(drawn, hash_key(base_seed, "captions", pool.id, str(seed))))


def _others(pool: Pool, count: int) -> str:
    return (
        f"the assignments give {count} rows for the pool {pool.id!r} that are not the "
        f"{pool.size} it was built of: they belong to other pools, or were changed"
    )


def _other_captions(rows: NDArray[np.int64], key: np.uint64) -> NDArray[np.int64]:
    """Permute ``rows``, shape (n >= 2,), by one random cycle through all: no fixed points."""
    cycle = np.argsort(hash_rows(rows, key))
    captions = np.empty_like(rows)
    captions[cycle] = rows[np.roll(cycle, 1)]
    return captions
