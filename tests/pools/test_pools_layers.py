from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from combined_pools import CHOSEN, First, combined, first_study, record, rows_by_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.pools.draws import draw, members
from djsandbox_ray.pools.layers import Layers

TOP = "&".join(CHOSEN)
ROWS = st.integers(150, 400)


def layers_of(first: First, top: str = TOP, minimum: int = 1) -> tuple[Layers, list[set[int]]]:
    """Return the layers, and which rows are in them: in the top pool's parts, best first."""
    pools, rows, _ = first
    made = combined(first, minimum)
    found = Layers(record(made, pools), top, rows, made.assignments)
    eligible = set(rows[first[2]["a"] != EXCLUDED].tolist())
    held = rows_by_pool(first)
    wanted: list[set[int]] = [set() for _ in range(len(found.top.parts) + 1)]
    for row in eligible:
        wanted[sum(row not in held[part] for part in found.top.parts)].add(row)
    return found, wanted


def ids(first: First, arm: tuple) -> set[int]:
    pool, codes = arm
    return set(members(first[1], codes, pool).tolist())


@settings(deadline=None, max_examples=25)
@given(ROWS, st.integers(0, 1_000), st.sampled_from([0, 9]))
def test_layers_partition_the_rows(n: int, seed: int, excluded: int) -> None:
    first = first_study(n, seed, excluded)
    found, wanted = layers_of(first)
    assert found.sizes == tuple(map(len, wanted))
    assert sum(found.sizes) == n - excluded
    ends, before = np.cumsum(found.sizes), set()
    for end, layer in zip(ends, wanted, strict=True):
        if end:
            rows = ids(first, found.expanded("x", int(end)))
            assert rows - before == layer
            before = rows


@settings(deadline=None, max_examples=25)
@given(ROWS, st.integers(0, 1_000), st.integers(1, 400), st.integers(0, 50))
def test_more_rows_hold_fewer_rows_and_begin_with_the_top_pool(
    n: int, seed: int, some: int, more: int
) -> None:
    first = first_study(n, seed)
    found, wanted = layers_of(first)
    fewer, bigger = (ids(first, found.expanded("x", count)) for count in (some, some + more))
    assert fewer <= bigger
    assert len(fewer) == min(some, n)
    top = ids(first, found.strategies(1, 1)["repeat"])
    assert fewer <= top if some <= len(top) else top <= fewer
    # A row of a layer is there only if all rows of better layers are.
    reached = max(index for index, layer in enumerate(wanted) if fewer & layer)
    assert all(layer <= fewer for layer in wanted[:reached])


def test_among_rows_in_equally_many_parts_those_in_better_parts_come_first() -> None:
    first = first_study()
    found, wanted = layers_of(first)
    held = rows_by_pool(first)
    without_c, without_b, without_a = (
        {row for row in wanted[1] if row not in held[part]} for part in reversed(CHOSEN)
    )
    start = found.sizes[0]
    rows = ids(first, found.expanded("x", start + len(without_c) + 1))
    assert without_c <= rows
    assert len(without_b & rows) == 1
    assert not without_a & rows


def test_a_part_of_a_layer_is_chosen_by_chance() -> None:
    first = first_study(3000)
    found, wanted = layers_of(first)
    last = wanted[-1]
    rows = ids(first, found.expanded("x", 3000 - len(last) // 2)) & last
    assert abs(np.mean(list(rows)) / np.mean(list(last)) - 1) < 0.05


def test_layers_do_not_depend_on_row_order() -> None:
    pools, rows, codes = first_study(excluded=5)
    made = combined((pools, rows, codes))
    order = np.random.default_rng(1).permutation(len(rows))
    one = Layers(record(made, pools), TOP, rows, made.assignments)
    moved = {name: column[order] for name, column in made.assignments.items()}
    two = Layers(record(made, pools), TOP, rows[order], moved)
    for name, (pool, column) in one.strategies(3, 20).items():
        assert two.strategies(3, 20)[name][0] == pool
        np.testing.assert_array_equal(two.strategies(3, 20)[name][1], column[order])


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_strategies_see_equally_many_samples(factor: int) -> None:
    first = first_study(3000)
    found, wanted = layers_of(first)
    unit = found.top.size // 2
    arms = found.strategies(factor, unit)
    assert list(arms) == ["repeat", "expand", "random"]
    for name, (pool, codes) in arms.items():
        assert pool.id == f"{name}/x{factor}"
        rows = members(first[1], codes, pool)
        drawn = draw(pool, rows, 0, pool.draw_size, 0)
        assert len(set(drawn.rows)) == (unit if name == "repeat" else factor * unit)
        assert pool.size == (1 if name == "repeat" else factor) * found.top.size
    top = ids(first, arms["repeat"])
    assert top <= ids(first, arms["expand"])
    if factor == 1:
        assert arms["expand"][0].hash == found.top.hash
    share = found.top.size / 3000  # a random pool has no more of the top than chance gives
    overlap = len(top & ids(first, arms["random"]))
    expected = arms["random"][0].size * share
    assert abs(overlap - expected) < 5 * np.sqrt(expected)
    assert len(wanted[0]) >= found.top.size


def test_where_rows_run_out_a_pool_holds_what_there_is() -> None:
    first = first_study(300, excluded=10)
    found, _ = layers_of(first, top="a/high", minimum=20)
    factor = 290 // found.top.size + 2
    for name in ("expand", "random"):
        pool, _ = found.strategies(factor, found.top.size)[name]
        assert (pool.size, pool.draw_size) == (290, 290)
    assert found.strategies(factor, found.top.size)["expand"][0].parts == ("a/high",)


def test_the_top_may_be_any_combination() -> None:
    first = first_study()
    found, wanted = layers_of(first, top="a/high&c/middle")
    assert len(found.sizes) == 3
    assert found.sizes == tuple(map(len, wanted))


def test_what_cannot_be_layered_is_an_error() -> None:
    first = first_study()
    pools, rows, _ = first
    made = combined(first)
    both = record(made, pools)
    with pytest.raises(BadInput, match=r"unknown combination 'a/hihg'.* \(known: a/high, b/low"):
        Layers(both, "a/hihg", rows, made.assignments)
    with pytest.raises(BadInput, match="unknown combination 'control/20'"):
        Layers(both, "control/20", rows, made.assignments)
    lacking = replace(both, pools=tuple(p for p in both.pools if p.id != "b/low"))
    with pytest.raises(BadInput, match=r"the part 'b/low' of .* is not among the pools"):
        Layers(lacking, TOP, rows, made.assignments)
    found = Layers(both, TOP, rows, made.assignments)
    with pytest.raises(BadInput, match="a factor of 0; 1 or more"):
        found.strategies(0, 5)
    with pytest.raises(BadInput, match=f"draws of {made.size + 1} rows of .*: 1 to {made.size}"):
        found.strategies(2, made.size + 1)
