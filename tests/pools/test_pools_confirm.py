from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import second_look
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.pools.draws import members
from djsandbox_ray.records import PoolKind, Pools

N = 300
OUT = np.array([3, 7, 250], dtype=np.int64)


@pytest.fixture
def first() -> tuple[Pools, dict[str, np.ndarray]]:
    columns = {"length": np.random.default_rng(0).normal(size=N)}
    built = construct(np.arange(N), columns, PoolConfig(), OUT)
    pools = Pools(
        id="p",
        assignments="a",
        pools=built.pools,
        size=built.size,
        draw_size=built.draw_size,
        eligible=built.eligible,
        seed=0,
    )
    return pools, built.assignments


def test_chosen_pools_stand_beside_controls_that_were_not_there(first) -> None:
    pools, assignments = first
    look = second_look(pools, ["length/high"], assignments["length"], controls=4)
    assert [pool.id for pool in look.pools] == [
        "length/high",
        *(f"control/{i}" for i in range(5, 9)),
    ]
    assert look.pools[0] in pools.pools
    known = {pool.hash for pool in pools.pools}
    assert not known & {pool.hash for pool in look.pools[1:]}
    for pool in look.pools[1:]:
        assert pool.kind is PoolKind.CONTROL
        codes = look.assignments[pool.column]
        rows = members(np.arange(N), codes, pool)  # checks size and hash
        assert not set(rows) & set(OUT)
        assert (codes[OUT] == EXCLUDED).all()


def test_a_study_may_have_controls_that_are_no_other_studys(first) -> None:
    pools, assignments = first
    codes = assignments["length"]
    second = second_look(pools, ["length/high"], codes, controls=3)
    own = second_look(replace(pools, size=120), ["length/high"], codes, controls=3, study="search")
    assert [pool.id for pool in own.pools[1:]] == [f"control/search/{i}" for i in range(3)]
    for pool in own.pools[1:]:
        rows = set(members(np.arange(N), own.assignments[pool.column], pool))
        assert len(rows) == 120
        # Of one hash, all rows of the smaller bucket would be in the larger one.
        for other in second.pools[1:]:
            shared = rows & set(members(np.arange(N), second.assignments[other.column], other))
            assert len(shared) < 0.7 * other.size


def test_a_pool_that_is_not_there_is_an_error(first) -> None:
    pools, assignments = first
    with pytest.raises(BadInput, match="no pool 'length/hihg' among length/low"):
        second_look(pools, ["length/hihg"], assignments["length"], controls=4)
