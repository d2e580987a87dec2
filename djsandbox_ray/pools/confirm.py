"""The pools of a second study: some pools of the first, beside control arms that are fresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import control_arms
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.records import Pool, PoolKind, Pools


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
    by_id = {pool.id: pool for pool in pools.pools}
    if unknown := [name for name in chosen if name not in by_id]:
        raise BadInput(f"no pool {unknown[0]!r} among {', '.join(by_id)}")
    used = 0 if study else sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
    prefix = f"control/{study}/" if study else "control/"
    eligible = np.flatnonzero(codes != EXCLUDED).astype(np.int64)
    arms = list(control_arms(eligible, pools.size, controls, pools.seed, used, prefix))
    assignments = {}
    for pool, own in arms:
        column = np.full(len(codes), EXCLUDED, dtype=np.int8)
        column[eligible] = own
        assignments[pool.column] = column
    return SecondLook((*(by_id[name] for name in chosen), *(pool for pool, _ in arms)), assignments)
