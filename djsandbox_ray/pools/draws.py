"""The rows of a pool, and the draw of them that one seed trains on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import pool_hash
from djsandbox_ray.pools.order import hash_key, hash_rows
from djsandbox_ray.records import Pool


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
    rows = np.sort(row_ids[codes == pool.code])
    if pool_hash(rows, pool.shuffle_captions) != pool.hash:
        raise BadInput(
            f"the assignments give {len(rows)} rows for the pool {pool.id!r} that are not the "
            f"{pool.size} it was built of: they belong to other pools, or were changed"
        )
    return rows


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
    least_size = 2 if pool.shuffle_captions else 1
    if rows.shape != (pool.size,):
        raise BadInput(f"pool {pool.id!r} has {pool.size} rows, not an array of {rows.shape}")
    if not least_size <= draw_size <= pool.size:
        raise BadInput(
            f"a draw of {draw_size} rows from {pool.id!r}: {least_size} to {pool.size} are possible"
        )
    order = np.argsort(hash_rows(rows, hash_key(base_seed, "draw", pool.id, str(seed))))
    drawn = rows[order[:draw_size]]
    if not pool.shuffle_captions:
        return Draw(drawn, drawn)
    return Draw(drawn, _other_captions(drawn, hash_key(base_seed, "captions", pool.id, str(seed))))


def _other_captions(rows: NDArray[np.int64], key: np.uint64) -> NDArray[np.int64]:
    """Permute ``rows``, shape (n >= 2,), by one random cycle through all: no fixed points."""
    cycle = np.argsort(hash_rows(rows, key))
    captions = np.empty_like(rows)
    captions[cycle] = rows[np.roll(cycle, 1)]
    return captions
