from __future__ import annotations

import numpy as np
import pytest
import refined_world as world
from factories import pool
from pydantic import ValidationError

from djsandbox_ray.analysis.together.winner import winner
from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.policy import PolicyConfig, beyond, broken

COLUMNS = {"nsfw": np.array([0.0, 0.1, 0.2, 0.9, np.nan]), "length": np.array([5.0, 6, 7, 8, 9])}
ALL, SAFE = np.ones(5, bool), np.array([True, True, True, False, False])


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"above": 0.5}, "2 of 5 rows (40.00%) are above 0.5 (1 of them without a value); 0.00%"),
        ({"above": 0.5, "share": 0.3}, "2 of 5 rows"),
        ({"above": 0.5, "share": 0.4}, None),
        ({"below": 0.05, "share": 0.1}, "are below 0.05"),
        ({"mean_at_most": 0.2}, "the mean of 4 rows is 0.3; it must be at most 0.2"),
        ({"mean_at_most": 0.31}, None),
        ({"mean_at_least": 0.4}, "it must be at least 0.4"),
        ({"mean_at_least": 0.2}, None),
    ],
)
def test_limits(policy: dict[str, float], sentence: str | None) -> None:
    found = broken([PolicyConfig(statistic="nsfw", **policy)], COLUMNS, ALL)
    if sentence is None:
        assert found == []
    else:
        assert len(found) == 1
        assert sentence in found[0]


def test_only_the_kept_rows_count() -> None:
    policies = [PolicyConfig(statistic="nsfw", above=0.5)]
    assert broken(policies, COLUMNS, ALL)
    assert broken(policies, COLUMNS, SAFE) == []
    assert broken(policies, COLUMNS, np.zeros(5, bool)) == []
    unknown = np.array([False, False, False, False, True])
    mean = [PolicyConfig(statistic="nsfw", mean_at_most=0.5)]
    assert "no row has a value" in broken(mean, COLUMNS, unknown)[0]


def test_every_broken_policy_is_said() -> None:
    policies = [
        PolicyConfig(statistic="nsfw", above=0.5),
        PolicyConfig(statistic="length", mean_at_most=6.0),
    ]
    assert [line.split(":")[0] for line in broken(policies, COLUMNS, ALL)] == ["nsfw", "length"]


def test_which_rows_lie_beyond_a_limit() -> None:
    above = PolicyConfig(statistic="nsfw", above=0.5, share=0.5)
    found = beyond([above], COLUMNS)
    assert found is not None
    assert found.tolist() == [False, False, False, True, True]  # nobody knows of the last one
    both = beyond([above, PolicyConfig(statistic="length", below=6)], COLUMNS)
    assert both is not None
    assert both.tolist() == [True, False, False, True, True]
    assert beyond([PolicyConfig(statistic="nsfw", mean_at_most=0.1)], COLUMNS) is None
    assert beyond([], COLUMNS) is None
    with pytest.raises(BadInput, match="did you mean 'nsfw'"):
        beyond([PolicyConfig(statistic="nsfv", above=0.5)], COLUMNS)


def test_bad_policies() -> None:
    with pytest.raises(BadInput, match=r"policies\[0\].statistic: unknown .*did you mean 'nsfw'"):
        broken([PolicyConfig(statistic="nsfv", above=0.5)], COLUMNS, ALL)
    with pytest.raises(ValidationError, match="exactly one of above, below"):
        PolicyConfig(statistic="nsfw")
    with pytest.raises(ValidationError, match="exactly one of above, below"):
        PolicyConfig(statistic="nsfw", above=0.5, mean_at_most=0.1)
    with pytest.raises(ValidationError, match="share goes with above or below"):
        PolicyConfig(statistic="nsfw", mean_at_most=0.1, share=0.1)
    with pytest.raises(ValidationError):
        PolicyConfig(statistic="nsfw", above=0.5, share=1.0)


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
