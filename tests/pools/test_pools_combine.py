from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pytest
from combined_pools import CHOSEN, combined, first_study, rows_by_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.combine import pyramid
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT, NO_VALUE
from djsandbox_ray.pools.draws import members
from djsandbox_ray.records import PoolKind

ALL = [names for level in (1, 2, 3) for names in combinations(CHOSEN, level)]
STUDIES = (st.integers(60, 300), st.integers(0, 1_000), st.sampled_from([0, 9]))


@settings(deadline=None, max_examples=40)
@given(*STUDIES, st.integers(1, 40))
def test_combinations_have_one_size_and_lie_in_all_of_their_parts(
    n: int, seed: int, excluded: int, minimum: int
) -> None:
    first = first_study(n, seed, excluded)
    minimum = min(minimum, first[0].size)
    made = combined(first, minimum)
    held = rows_by_pool(first)
    whole = {names: set.intersection(*(held[name] for name in names)) for names in ALL}
    kept = [names for names in ALL if len(whole[names]) >= minimum]
    assert made.size == min(len(whole[names]) for names in kept)
    pools = [pool for pool in made.pools if pool.kind is PoolKind.BUCKET]
    assert [pool.parts for pool in pools] == kept  # level by level
    assert [pool.id for pool in pools] == ["&".join(names) for names in kept]
    dropped = [names for names in ALL if names not in kept]
    assert [item.statistic for item in made.dropped] == ["&".join(names) for names in dropped]
    for item, names in zip(made.dropped, dropped, strict=True):
        assert item.reason == f"{len(whole[names])} rows; at least {minimum} are needed"
    out = np.sort(first[1])[:excluded]
    for pool in made.pools:
        codes = made.assignments[pool.column]
        rows = members(first[1], codes, pool)  # checks the hash
        assert len(rows) == pool.size == made.size
        assert set(first[1][codes == EXCLUDED]) == set(out)
        if pool.kind is PoolKind.BUCKET:
            assert set(rows) <= whole[pool.parts]
            inside = (codes == 0) | (codes == LEFT_OUT)
            assert set(first[1][inside]) == whole[pool.parts]
            assert set(np.unique(codes[~inside])) <= {NO_VALUE, EXCLUDED}


@settings(deadline=None, max_examples=25)
@given(*STUDIES)
def test_combinations_do_not_depend_on_row_order(n: int, seed: int, excluded: int) -> None:
    rng = np.random.default_rng(seed)
    pools, rows, codes = first_study(n, seed, excluded)
    order = rng.permutation(n)
    one = combined((pools, rows, codes))
    two = combined((pools, rows[order], {name: c[order] for name, c in codes.items()}))
    assert one.pools == two.pools
    for name, column in one.assignments.items():
        np.testing.assert_array_equal(column[order], two.assignments[name])


def test_a_single_keeps_its_name_its_statistic_and_nothing_of_its_bounds() -> None:
    first = first_study()
    made = combined(first)
    by_id = {pool.id: pool for pool in made.pools}
    before = {pool.id: pool for pool in first[0].pools}
    single = by_id["a/high"]
    assert (single.statistic, single.bucket, single.parts) == ("a", "high", ("a/high",))
    assert (single.low, single.high) == (None, None)
    assert single.hash != before["a/high"].hash
    triple = by_id["a/high&b/low&c/middle"]
    assert (triple.statistic, triple.bucket, triple.parts) == (None, None, CHOSEN)


def test_arms_are_cut_independently() -> None:
    # The pair is about a third of each single: what a single keeps has no more of it than that.
    first = first_study(6000)
    made = combined(first, chosen=("a/high", "c/middle"))
    held = rows_by_pool(first)
    single, pair = made.pools[0], made.pools[2]
    kept = set(members(first[1], made.assignments[single.id], single).tolist())
    whole = held["a/high"] & held["c/middle"]
    assert pair.size == len(whole) == made.size
    expected = len(whole) * made.size / len(held["a/high"])
    assert abs(len(kept & whole) - expected) < 5 * np.sqrt(expected)


def test_controls_are_fresh() -> None:
    first = first_study()
    made = combined(first, chosen=("a/high",))  # the size of the first study
    controls = [pool for pool in made.pools if pool.kind is PoolKind.CONTROL]
    assert [pool.id for pool in controls] == [f"control/{n}" for n in range(20, 25)]
    assert not {pool.hash for pool in controls} & {pool.hash for pool in first[0].pools}


def test_a_choice_of_one_has_the_rows_of_its_pool() -> None:
    first = first_study()
    made = combined(first, minimum=first[0].size, chosen=("b/low",))
    assert made.pools[0].hash == next(p.hash for p in first[0].pools if p.id == "b/low")
    assert made.dropped == ()


def test_columns_are_read_one_at_a_time() -> None:
    pools, rows, codes = first_study()
    read = []

    class Lazy(Mapping[str, np.ndarray]):
        def __getitem__(self, name: str) -> np.ndarray:
            read.append(name)
            return codes[name]

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("only what is chosen is read")

        def __len__(self) -> int:
            return len(codes)

    combined((pools, rows, Lazy()))
    assert set(read) == {"a", "b", "c"}


def test_draws_are_a_share_of_the_size() -> None:
    pools, rows, codes = first_study()
    options = {"minimum": 1, "controls": lambda count: count, "first": 20}
    made = pyramid(pools, ["a/high", "b/low"], rows, codes, draw_share=0.5, **options)
    assert made.draw_size == round(made.size * 0.5)
    assert len(made.pools) == 3 + 3
    with pytest.raises(BadInput, match=r"no row \(300 rows per pool x draw_share 0\.001\)"):
        pyramid(pools, ["a/high"], rows, codes, draw_share=0.001, **options)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("a/hihg",), r"unknown pool 'a/hihg'; did you mean 'a/high'\?"),
        (("a/high", "a/low"), "'a/high' and 'a/low' cannot be combined: buckets of one statistic"),
        (("a/high", "a/high"), "'a/high' and 'a/high' cannot be combined"),
        (("control/0",), "'control/0' is no bucket"),
        ((), "0 pools to combine; 1 to 8"),
    ],
)
def test_what_cannot_be_combined_is_an_error(chosen: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        combined(first_study(), chosen=chosen)


@pytest.mark.parametrize("minimum", [0, 301])
def test_a_minimum_that_no_single_can_have_is_an_error(minimum: int) -> None:
    with pytest.raises(BadInput, match=f"minimum is {minimum} rows per combination; 1 to 300"):
        combined(first_study(), minimum=minimum)


def test_codes_of_other_pools_are_an_error() -> None:
    pools, rows, codes = first_study()
    with pytest.raises(BadInput, match="belong to other pools"):
        combined((pools, rows, {**codes, "b": codes["c"]}))
