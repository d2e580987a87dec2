"""First studies and pyramids that several tests share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from factories import pools

from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.combine import Pyramid, pyramid
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.records import Pools

First = tuple[Pools, np.ndarray, dict[str, np.ndarray]]
"""Pools, row ids and columns of codes."""

CHOSEN = ("a/high", "b/low", "c/middle")


def first_study(n: int = 900, seed: int = 0, excluded: int = 0, shuffle: bool = False) -> First:
    """Make the pools of three statistics, of which two are correlated."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    values = {"a": a, "b": rng.normal(size=n) - a, "c": rng.normal(size=n)}
    rows = np.arange(n, dtype=np.int64) * 7
    if shuffle:
        order = rng.permutation(n)
        rows, values = rows[order], {name: column[order] for name, column in values.items()}
    out = np.sort(rows)[:excluded]
    built = construct(rows, values, PoolConfig(min_contrast=0, self_tests=False), out)
    return pools(built.pools), rows, built.assignments


def combined(first: First, minimum: int = 1, chosen: tuple[str, ...] = CHOSEN) -> Pyramid:
    pools, rows, codes = first
    return pyramid(
        pools, chosen, rows, codes, minimum=minimum, controls=lambda _: 5, first=20, draw_share=1.0
    )


def record(made: Pyramid, first: Pools) -> Pools:
    return replace(first, id="pyramid", pools=made.pools, size=made.size, draw_size=made.draw_size)


def rows_by_pool(first: First) -> dict[str, set[int]]:
    pools, rows, codes = first
    return {pool.id: set(rows[codes[pool.column] == pool.code].tolist()) for pool in pools.pools}
