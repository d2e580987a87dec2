"""Which trials a run consists of, and under which ids their results are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.draws import draw
from djsandbox_ray.records import Pool, PoolKind, Pools, TrialSpec


def plan_trials(
    dataset: str,
    pools: Pools,
    members: Callable[[Pool], NDArray[np.int64]],
    *,
    seeds: Sequence[int],
    budget: int,
    model: Any,
    evaluation: Sequence[Any],
) -> list[TrialSpec]:
    """List the trials: seed by seed, the controls of a seed first.

    Args:
        dataset: id of the dataset: row ids mean nothing without it.
        pools: the pools to train.
        members: the rows of a pool, shape (pools.size,).
        seeds: the trials of every pool.
        budget: samples seen in training.
        model: identity of the model family.
        evaluation: identity of the evaluation suite.
    """
    by_kind = sorted(pools.pools, key=lambda pool: pool.kind is not PoolKind.CONTROL)
    specs: list[list[TrialSpec]] = [[] for _ in seeds]
    for pool in by_kind:
        rows = members(pool)
        for index, seed in enumerate(seeds):
            drawn = draw(pool, rows, seed, pool.draw_size or pools.draw_size, pools.seed).hash
            parts = (dataset, drawn, model, seed, budget, list(evaluation))
            specs[index].append(
                TrialSpec(content_id("trial", *parts), pool.id, seed, drawn, budget)
            )
    return [spec for seed_specs in specs for spec in seed_specs]
