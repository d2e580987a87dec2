from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from factories import pools as pools_of

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import arms_of, control_arms, second_look, self_test_columns
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT
from djsandbox_ray.pools.draws import members
from djsandbox_ray.pools.eligible import EligibleRows
from djsandbox_ray.records import PoolKind, Pools

ROWS = np.arange(9_000)


def test_controls_are_random_buckets_that_overlap_as_chance_has_it() -> None:
    """Two independent buckets of m rows out of n share m * m / n, hypergeometrically spread."""
    n, size = len(ROWS), 3_000
    parts = [np.flatnonzero(codes == 0) for _, codes in control_arms(ROWS, size, 8, seed=0)]
    assert {len(part) for part in parts} == {size}
    share = size / n
    spread = (size * share * (1 - share) * (n - size) / (n - 1)) ** 0.5
    for one, two in combinations(parts, 2):
        assert abs(len(np.intersect1d(one, two)) - size * share) < 5 * spread


def test_every_row_is_as_likely_to_be_in_a_control() -> None:
    counts = sum((codes == 0).astype(int) for _, codes in control_arms(ROWS, 3_000, 200, seed=0))
    expected, spread = 200 / 3, (200 * (1 / 3) * (2 / 3)) ** 0.5
    assert abs(np.mean(counts) - expected) < 1e-9
    assert abs(np.std(counts) / spread - 1) < 0.05, "as binomial counts spread"


def test_a_control_meets_a_bucket_as_chance_has_it() -> None:
    values = np.random.default_rng(0).normal(size=len(ROWS))
    built = construct(ROWS, {"x": values}, PoolConfig())
    codes = built.assignments["x"]
    for pool in built.pools:
        if pool.kind is PoolKind.CONTROL:
            inside = built.assignments[pool.id] == 0
            shared = [np.count_nonzero(inside & (codes == code)) for code in range(3)]
            assert np.abs(np.array(shared) - 1_000).max() < 5 * 22


def test_codes_of_a_random_bucket() -> None:
    for pool, codes in control_arms(ROWS, 100, 5, seed=3):
        assert pool.column == pool.id
        assert set(np.unique(codes)) == {LEFT_OUT, 0}
        assert (pool.statistic, pool.bucket, pool.low, pool.high) == (None,) * 4


def test_self_tests_know_their_verdict() -> None:
    rows = EligibleRows(ROWS, {}, np.empty(0, np.int64))
    columns = self_test_columns(100, seed=0, spoils=["captions"])
    (shuffled, _), (captions, codes) = (arm for c in columns for arm in arms_of(c, rows))
    assert (shuffled.id, shuffled.expected) == ("self_test/shuffled_statistic", "undecided")
    assert (captions.id, captions.expected) == ("self_test/shuffled_captions", "worse")
    assert shuffled.spoil is None
    assert captions.spoil == "captions"
    assert np.count_nonzero(codes == 0) == 100


def test_what_spoils_samples_has_a_pool_of_its_own() -> None:
    rows = EligibleRows(ROWS, {}, np.empty(0, np.int64))
    columns = self_test_columns(100, seed=0, spoils=["captions", "frames"])
    made = [pool for c in columns for pool, _ in arms_of(c, rows)]
    assert [(pool.id, pool.spoil, pool.expected) for pool in made] == [
        ("self_test/shuffled_statistic", None, "undecided"),
        ("self_test/shuffled_captions", "captions", "worse"),
        ("self_test/first_frames", "frames", "worse"),
    ]
    assert len({pool.hash for pool in made}) == 3
    built = construct(ROWS, {"x": ROWS.astype(float)}, PoolConfig(), spoils=["frames"])
    assert [pool.id for pool in built.pools][-2:] == [
        "self_test/shuffled_statistic",
        "self_test/first_frames",
    ]


def test_arms_of_a_construction_in_order() -> None:
    built = construct(ROWS, {"x": ROWS.astype(float)}, PoolConfig())
    assert [pool.id for pool in built.pools] == [
        *("x/low", "x/middle", "x/high"),
        *(f"control/{index}" for index in range(5)),
        *("self_test/shuffled_statistic", "self_test/shuffled_captions"),
    ]
    assert len({pool.hash for pool in built.pools}) == len(built.pools)
    without = construct(ROWS, {"x": ROWS.astype(float)}, PoolConfig(self_tests=False))
    assert without.pools == built.pools[:-2]


N = 300
OUT = np.array([3, 7, 250], dtype=np.int64)


@pytest.fixture
def first() -> tuple[Pools, dict[str, np.ndarray]]:
    columns = {"length": np.random.default_rng(0).normal(size=N)}
    built = construct(np.arange(N), columns, PoolConfig(), OUT)
    return pools_of(built.pools), built.assignments


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
    with pytest.raises(BadInput, match="unknown pool 'length/hihg'; did you mean 'length/high'"):
        second_look(pools, ["length/hihg"], assignments["length"], controls=4)
