from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import pool_hash
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.draws import Draw, draw, draw_from, members, members_of
from djsandbox_ray.pools.order import hash_key, hash_rows
from djsandbox_ray.records import Pool, PoolKind


def pool_of(rows: np.ndarray, name: str = "x/low", shuffle: bool = False) -> Pool:
    return Pool(
        id=name,
        kind=PoolKind.BUCKET,
        column="x",
        code=0,
        size=len(rows),
        hash=pool_hash(rows, "captions" if shuffle else None),
        spoil="captions" if shuffle else None,
    )


def test_hashes_of_spoilt_pools_are_those_that_trials_are_known_by() -> None:
    rows = np.arange(7)
    plain = pool_hash(rows)
    for spoil, told in (("captions", "shuffle_captions"), ("frames", "first_frames")):
        known = hashlib.blake2b(f"{told} {plain}".encode(), digest_size=16).hexdigest()
        assert pool_hash(rows, spoil) == known  # type: ignore[arg-type]


def test_pools_of_spoilt_frames_draw_their_own_captions() -> None:
    rows = np.arange(40)
    pool = replace(pool_of(rows), hash=pool_hash(rows, "frames"), spoil="frames")
    drawn = draw(pool, rows, 0, 1, base_seed=0)
    np.testing.assert_array_equal(drawn.captions, drawn.rows)


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(0, 50), st.booleans(), st.data())
def test_a_draw_is_a_subset_of_its_pool(n: int, seed: int, shuffle: bool, data) -> None:  # type: ignore[no-untyped-def]
    rows = np.random.default_rng(seed).permutation(5 * n)[:n]
    size = data.draw(st.integers(2, n))
    drawn = draw(pool_of(rows, shuffle=shuffle), rows, seed, size, base_seed=0)
    assert len(set(drawn.rows.tolist())) == len(drawn.rows) == size
    assert set(drawn.rows.tolist()) <= set(rows.tolist())
    assert sorted(drawn.captions.tolist()) == sorted(drawn.rows.tolist())
    if shuffle:
        assert np.all(drawn.captions != drawn.rows)
    else:
        np.testing.assert_array_equal(drawn.captions, drawn.rows)


def test_a_draw_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = np.arange(100)
    one = draw(pool_of(rows), rows, 0, 50, 0)
    two = draw(pool_of(rows), rows[::-1], 0, 50, 0)
    np.testing.assert_array_equal(one.rows, two.rows)
    assert one.hash == two.hash


@pytest.mark.parametrize("other", [("x/low", 1, 0), ("x/high", 0, 0), ("x/low", 0, 1)])
def test_draws_of_other_seeds_and_pools_are_independent(other: tuple[str, int, int]) -> None:
    rows = np.arange(4_000)
    name, seed, base_seed = other
    one = draw(pool_of(rows), rows, 0, 2_000, 0)
    two = draw(pool_of(rows, name), rows, seed, 2_000, base_seed)
    assert one.hash != two.hash
    shared = len(np.intersect1d(one.rows, two.rows))
    assert abs(shared - 1_000) < 5 * 16, "hypergeometric: mean 1000, standard deviation 15.8"


@given(
    order=st.permutations(range(60)),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    size=st.integers(2, 30),
    shuffle=st.booleans(),
)
def test_a_draw_read_in_parts_is_that_of_all_rows(
    order: list[int], cuts: list[int], size: int, shuffle: bool
) -> None:
    row_ids = np.array(order, dtype=np.int64)
    codes = (row_ids % 2).astype(np.int8)
    evens = np.sort(row_ids[codes == 0])
    pool = pool_of(evens, shuffle=shuffle)
    hashes = hash_rows(evens, hash_key(7, "draw", pool.id, "3"))
    ends = [0, *sorted(cuts), 60]
    parts = [(row_ids[a:b], codes[a:b]) for a, b in pairwise(ends)]
    drawn = draw_from(parts, pool, 3, size, 7)
    assert drawn.rows.tolist() == evens[np.argsort(hashes)][:size].tolist()
    assert drawn.hash == draw(pool, evens, 3, size, 7).hash
    assert {p.id: rows.tolist() for p, rows in members_of(parts, [pool])} == {
        pool.id: evens.tolist()
    }


def test_a_column_with_other_rows_is_refused() -> None:
    rows = np.arange(10)
    codes = np.zeros(10, np.int8)
    codes[3] = 1
    with pytest.raises(BadInput, match="give 9 rows for the pool 'x/low' that are not the 10"):
        draw_from([(rows, codes)], pool_of(rows), 0, 5, 0)


def test_whole_buckets_give_every_seed_the_same_rows() -> None:
    rows = np.arange(100)
    draws = [draw(pool_of(rows), rows, seed, 100, 0) for seed in range(3)]
    assert len({tuple(np.sort(d.rows)) for d in draws}) == 1
    assert len({d.hash for d in draws}) == 3, "in another order"


def test_captions_are_permuted_apart_from_the_order_of_the_rows() -> None:
    """Neighbours in a draw must not get each other's captions: they may share a batch."""
    rows = np.arange(2_000)
    drawn = draw(pool_of(rows, shuffle=True), rows, 0, 2_000, 0)
    place = {row: at for at, row in enumerate(drawn.rows.tolist())}
    distance = np.array([abs(place[c] - at) for at, c in enumerate(drawn.captions.tolist())])
    assert np.mean(distance < 64) < 0.1
    other = draw(pool_of(rows, shuffle=True), rows, 1, 2_000, 0)
    pairs = set(zip(drawn.rows.tolist(), drawn.captions.tolist(), strict=True))
    assert len(pairs & set(zip(other.rows.tolist(), other.captions.tolist(), strict=True))) < 20


def test_the_hash_tells_shuffled_captions_from_true_ones() -> None:
    rows = np.arange(10)
    assert Draw(rows, rows).hash != Draw(rows, rows[::-1]).hash
    assert pool_hash(rows, "captions") != pool_hash(rows)
    assert len(pool_hash(rows, "captions")) == len(pool_hash(rows)) == 32


@pytest.mark.parametrize(("size", "shuffle"), [(0, False), (11, False), (1, True)])
def test_impossible_draw_sizes_are_refused(size: int, shuffle: bool) -> None:
    rows = np.arange(10)
    with pytest.raises(BadInput, match=f"a draw of {size} rows from 'x/low': . to 10"):
        draw(pool_of(rows, shuffle=shuffle), rows, 0, size, 0)


def test_rows_of_another_pool_are_refused() -> None:
    with pytest.raises(BadInput, match="has 10 rows"):
        draw(pool_of(np.arange(10)), np.arange(9), 0, 5, 0)


def test_members_are_the_rows_that_the_pool_was_built_of() -> None:
    rows = np.random.default_rng(0).permutation(300)
    built = construct(rows, {"x": rows.astype(float)}, PoolConfig())
    low = built.pools[0]
    assert members(rows, built.assignments["x"], low).tolist() == list(range(100))
    for pool in built.pools:
        assert len(members(rows, built.assignments[pool.column], pool)) == pool.size
    with pytest.raises(BadInput, match="not the 100 it was built of"):
        members(rows, built.assignments["x"], replace(low, code=1))
    with pytest.raises(BadInput, match="300 row ids, but 299 codes"):
        members(rows, built.assignments["x"][1:], low)
