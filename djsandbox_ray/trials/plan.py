"""Which trials a run consists of, and under which ids their results are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.draws import draw
from djsandbox_ray.records import Pool, PoolKind, Pools, TrialSpec
from djsandbox_ray.trials.config import TrialsConfig
from djsandbox_ray.trials.family import ModelFamily


def plan_trials(
    dataset: str,
    pools: Pools,
    members: Callable[[Pool], NDArray[np.int64]],
    config: TrialsConfig,
    family: ModelFamily,
    evaluation: Sequence[Any],
) -> list[TrialSpec]:
    """List the trials: seed by seed, the controls of a seed first.

    Args:
        dataset: id of the dataset: row ids mean nothing without it.
        pools: all pools of the run.
        members: the rows of a pool, shape (pools.size,).
        config: budget and seeds.
        family: the model.
        evaluation: identity of the evaluation suite.
    """
    by_kind = sorted(pools.pools, key=lambda pool: pool.kind is not PoolKind.CONTROL)
    specs: list[list[TrialSpec]] = [[] for _ in range(config.seeds)]
    for pool in by_kind:
        rows = members(pool)
        for seed in range(config.seeds):
            drawn = draw(pool, rows, seed, pools.draw_size, pools.seed).hash
            parts = (dataset, drawn, family.identity(), seed, config.budget, list(evaluation))
            trial_id = content_id("trial", *parts)
            specs[seed].append(TrialSpec(trial_id, pool.id, seed, drawn, config.budget))
    return [spec for seed in specs for spec in seed]
