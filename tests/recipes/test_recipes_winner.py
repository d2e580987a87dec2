from __future__ import annotations

import refined_world as world
from factories import pool

from djsandbox_ray.analysis.together.winner import winner

A, B, AB = "special_char_ratio/low", "text_len/high", "special_char_ratio/low&text_len/high"
POOLS = [pool(A, parts=(A,)), pool(B, parts=(B,)), pool(AB, parts=(A, B))]


def test_a_combination_that_pays_for_itself() -> None:
    rows = [world.row(AB, 0.30, "better"), world.row(A, 0.2, "better"), world.row(B, 0.4, "worse")]
    found = winner(world.RANKING, [], rows, POOLS)
    assert found is not None
    assert (found.pool, found.parts) == (AB, (A, B))


def test_the_simplest_within_one_standard_error() -> None:
    # The error is that of the arm; 0.02 / 2, of its seeds alone, would not reach so far.
    rows = [world.row(AB, 0.30, "better", error=0.03), world.row(A, 0.275, "better")]
    found = winner(world.RANKING, [], rows, POOLS)
    assert found is not None
    assert (found.pool, found.parts) == (A, (A,))
    assert "within one standard error (0.03) of special_char_ratio/low&text_len/high" in found.why
    unknown = [world.row(AB, 0.30, "better"), world.row(A, 0.295, "better")]
    found = winner(world.RANKING, [], unknown, POOLS)
    assert found is not None
    assert found.pool == AB


def test_without_a_good_combination_the_best_confirmed_pool() -> None:
    rows = [world.row(AB, 0.30, "undecided")]
    looks = [world.again(A, 0.1, "better"), world.again(B, 0.2, "better")]
    found = winner(world.RANKING, looks, rows, POOLS)
    assert found is not None
    assert found.pool == B
    looks[1] = world.again(B, 0.2, "undecided")
    found = winner(world.RANKING, looks)
    assert found is not None
    assert found.pool == A


def test_nothing_to_stand_on() -> None:
    assert winner(world.RANKING, [world.again(A, 0.1, "undecided")]) is None
    assert winner(world.RANKING[3:], None) is None  # a self-test is no candidate
    assert winner([], None) is None


def test_unconfirmed_where_nothing_was_confirmed() -> None:
    found = winner(world.RANKING, None)
    assert found is not None
    assert found.pool == A
    assert "nothing was confirmed" in found.why


def test_refused_pools_are_passed_over() -> None:
    rows = [world.row(AB, 0.30, "better")]
    looks = [world.again(A, 0.1, "better"), world.again(B, 0.2, "better")]
    found = winner(world.RANKING, looks, rows, POOLS, refused={AB, B})
    assert found is not None
    assert found.pool == A
    assert winner(world.RANKING, looks, rows, POOLS, refused={AB, A, B}) is None
