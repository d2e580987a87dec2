"""A dataset of two statistics whose truth is known, its pools, and verdicts on them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from factories import confirmation_row, ranking_row
from numpy.typing import NDArray

from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.records import (
    ConfirmationRow,
    Dataset,
    Pool,
    PoolKind,
    Pools,
    RankingRow,
    Statistic,
    Statistics,
)
from djsandbox_ray.storage.store import Storage

ROWS = 900
DATASET = Dataset("dataset-1", "datasets/dataset-1/samples.lance", ROWS, 0)


def columns() -> dict[str, NDArray[np.float64]]:
    """Return a length (whole numbers, tied) and a ratio (without ties, some missing)."""
    rng = np.random.default_rng(0)
    ratio = rng.permutation(np.linspace(0.0, 0.5, ROWS))
    ratio[:9] = np.nan
    return {"text_len": rng.integers(10, 60, ROWS).astype(float), "special_char_ratio": ratio}


def statistics(storage: Storage) -> Statistics:
    """Write the columns as the statistics of the dataset."""
    operators = {
        "text_len": "text_length_filter",
        "special_char_ratio": "special_characters_filter",
    }
    found = []
    for name, column in columns().items():
        path = f"datasets/dataset-1/stats/{name}.parquet"
        storage.write_table(path, pa.table({"row_id": np.arange(ROWS), name: column}))
        found.append(Statistic(name, name, operators[name], f"op-{name}", path))
    return Statistics("statistics-1", tuple(found))


def pools(storage: Storage) -> Pools:
    """Build the pools of the single-operator stage."""
    built = construct(np.arange(ROWS, dtype=np.int64), columns(), PoolConfig(controls=5))
    path = "runs/r/assignments.parquet"
    storage.write_table(path, pa.table({"row_id": np.arange(ROWS), **built.assignments}))
    sizes = {"size": built.size, "draw_size": built.draw_size, "eligible": built.eligible}
    return Pools("pools-1", path, built.pools, **sizes, seed=0)


def combined(storage: Storage, single: Pools, *parts: str) -> Pools:
    """Return a pyramid of two single pools, trained again, and what they have in common."""
    known = {pool.id: pool for pool in single.pools}
    table = storage.read_table(single.assignments)
    masks = [table[known[p].column].to_numpy() == known[p].code for p in parts]
    path = "runs/r/combination_assignments.parquet"
    both = np.where(np.logical_and(*masks), 0, -1).astype(np.int8)
    written = {p.replace("/", "_"): np.where(m, 0, -1) for p, m in zip(parts, masks, strict=True)}
    storage.write_table(path, pa.table({"row_id": np.arange(ROWS), "both": both, **written}))
    made = [replace(known[p], column=p.replace("/", "_"), code=0, parts=(p,)) for p in parts]
    size = int((both == 0).sum())
    name = "&".join(parts)
    made.append(Pool(name, PoolKind.BUCKET, "both", 0, size, "hash-both", parts=tuple(parts)))
    return replace(single, id="pools-2", assignments=path, pools=tuple(made))


def row(name: str, change: float, verdict: str, **more: Any) -> RankingRow:
    """Return the verdict on a pool of four seeds, shrunken by a fifth."""
    return ranking_row(name, change, verdict, **{"seeds": 4, "shrunken": 0.8 * change, **more})


def again(name: str, change: float, verdict: str) -> ConfirmationRow:
    """Return the second look at a pool."""
    ends = {"low": change - 0.03, "high": change + 0.03}
    return confirmation_row(name, change, verdict, seeds=4, **ends)


RANKING = [
    row("special_char_ratio/low", 0.20, "better"),
    row("special_char_ratio/middle", 0.10, "better"),
    row("text_len/high", 0.09, "better", carried_by="zero_shot"),
    row("text_len/middle", 0.02, "undecided"),
    row("special_char_ratio/high", -0.20, "worse"),
    row("text_len/low", math.nan, "failed"),
    row("self_test/shuffled", 0.9, "better", expected="undecided"),
]
