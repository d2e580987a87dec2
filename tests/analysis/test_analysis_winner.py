from __future__ import annotations

import math
from dataclasses import replace

import pytest
from factories import pool, pools, ranking_row

from djsandbox_ray.analysis.together.winner import simplest_of_best, top_pool, winner
from djsandbox_ray.errors import BadInput


def ranked(name, change, verdict="better", **more):
    return ranking_row(name, change, verdict, **({"std": 0.0, "error": math.nan} | more))


CONTROLS = (pool("control/0"),)
MADE = (*(pool("&".join(parts), parts=tuple(parts)) for parts in ("a", "b", "ab")), pool("old"))
PYRAMID = pools((*MADE, *CONTROLS), id="p")


def test_the_best_of_a_pyramid():
    assert top_pool(PYRAMID).pool.id == "a&b"
    rows = [ranked("a&b", 0.1), ranked("b", 0.2), ranked("old", 9)]
    found = top_pool(PYRAMID, rows)
    assert found.pool.id == "b"
    assert found.sentence == (
        "the pool studied is b: greatest change of 2 combinations called better"
    )
    with pytest.raises(BadInput, match="none of a, b, a&b"):
        top_pool(PYRAMID, [ranked("a", math.nan)])
    with pytest.raises(BadInput, match="no pool of 'p' has parts"):
        top_pool(pools(CONTROLS, id="p"))


def test_it_is_the_one_that_the_recipe_stands_on():
    rows = [ranked("a&b", 0.30, std=0.04, error=0.02), ranked("a", 0.29)]
    found = top_pool(PYRAMID, rows)
    assert found.pool.id == "a"
    assert found.pool.id == winner([], None, rows, PYRAMID.pools).pool
    assert "within one standard error (0.02) of a&b" in found.sentence


def test_a_pool_that_was_not_called_better_is_studied_under_that_name():
    rows = [ranked("a&b", -0.3, "worse"), ranked("a", -0.05, "undecided")]
    found = top_pool(PYRAMID, rows)
    assert found.pool.id == "a"
    assert "no combination was called better" in found.sentence
    assert "the greatest change (undecided)" in found.sentence


def test_pools_that_break_a_policy_are_passed_over():
    broken = replace(MADE[2], breaks=("too few rows",))
    kept = replace(PYRAMID, pools=(*MADE[:2], broken, *CONTROLS))
    assert top_pool(kept, [ranked("a&b", 0.9), ranked("a", 0.1)]).pool.id == "a"
    found = top_pool(kept, [ranked("a&b", 0.9), ranked("a", 0.1, "undecided")])
    assert found.pool.id == "a&b"
    assert "no combination that keeps to the policies was called better" in found.sentence


def test_the_error_is_that_of_the_arm_and_not_of_its_seeds():
    parts = {"a": ("a",), "a&b": ("a", "b")}
    quiet = [ranked("a&b", 0.30, std=1e-4, error=0.02), ranked("a", 0.285, std=1e-4, error=0.02)]
    assert simplest_of_best(quiet, parts)[0].pool == "a"
    loud = [ranked("a&b", 0.30, std=1.0, error=0.001), ranked("a", 0.285, std=1.0, error=0.001)]
    assert simplest_of_best(loud, parts)[0].pool == "a&b"
    unknown = [ranked("a&b", 0.30), ranked("a", 0.2999)]
    assert simplest_of_best(unknown, parts)[0].pool == "a&b"
    assert simplest_of_best(quiet, {}) is None
