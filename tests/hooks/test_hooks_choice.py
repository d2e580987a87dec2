from __future__ import annotations

import math

import pytest
from planted_world import confirmation_of, context_of, first_pools, ranking_of

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.choice import ChooseTop
from djsandbox_ray.records import Choice
from djsandbox_ray.storage.store import Storage

NAN = math.nan


FIRST = [
    ("a/high", 0.9, "better"),
    ("b/low", 0.8, "better"),
    ("self_test/x", 0.75, "better"),
    ("a/middle", 0.7, "better"),
    ("c/high", 0.6, "better"),
    ("d/high", 0.5, "better"),
    ("e/high", 0.45, "better"),
    ("c/low", 0.1, "undecided"),
    ("b/high", -0.9, "worse"),
    ("e/low", NAN, "failed"),
]
SECOND = [
    ("a/high", 0.2, "better"),
    ("b/low", 0.4, "better"),
    ("a/middle", 0.3, "better"),
    ("c/high", 0.0, "undecided"),
    ("d/high", -0.3, "worse"),
]


def choose(
    storage: Storage, seconds: list[tuple[str, float, str]] | None = SECOND, **parameters: object
) -> tuple[Choice | None, dict[str, str], str]:
    """Return the choice, the reasons by pool as they are written, and what was said."""
    context, said = context_of(storage)
    pools = first_pools(context)
    ranking = ranking_of(storage, *FIRST)
    confirmation = None if seconds is None else confirmation_of(storage, *seconds)
    found = ChooseTop(context).run(pools, ranking, confirmation, **parameters)
    written = storage.read_sealed("runs/planted/choice.json")
    assert written["chosen"] == [item["pool"] for item in written["candidates"] if item["taken"]]
    assert written["chosen"] == list(found.pools if found else ())
    reasons = {item["pool"]: item["reason"] for item in written["candidates"]}
    assert set(reasons) == {pool for pool, *_ in FIRST if pool != "self_test/x"}
    return found, reasons, said.getvalue()


def test_confirmed_pools_are_taken_by_their_confirmed_effect_one_per_statistic(
    storage: Storage,
) -> None:
    found, reasons, said = choose(storage)
    assert found is not None
    assert found.pools == ("b/low", "a/middle")
    assert "choice: b/low, a/middle" in said
    assert list(reasons)[:3] == ["b/low", "a/middle", "a/high"]
    assert reasons == {
        "b/low": "is confirmed",
        "a/middle": "is confirmed",
        "a/high": "is of the statistic of a/middle, which is better",
        "c/high": "is undecided in the second look",
        "d/high": "is worse in the second look",
        "e/high": "has had no second look",
        "c/low": "was not called better, but undecided",
        "b/high": "was not called better, but worse",
        "e/low": "was not called better, but failed",
    }


def test_unconfirmed_pools_follow_where_they_may_but_not_those_that_were_worse(
    storage: Storage,
) -> None:
    found, reasons, _ = choose(storage, only_confirmed=False, top=4)
    assert found is not None
    assert found.pools == ("b/low", "a/middle", "c/high", "e/high")
    assert reasons["d/high"] == "is worse in the second look"
    assert reasons["c/high"] == "was called better"


def test_no_more_than_the_best_are_taken(storage: Storage) -> None:
    found, reasons, _ = choose(storage, top=1)
    assert found is not None
    assert found.pools == ("b/low",)
    assert reasons["a/middle"] == "is not among the best 1"
    assert choose(storage, top=2)[0].id != found.id


def test_without_a_second_look_nothing_is_confirmed(storage: Storage) -> None:
    found, _, said = choose(storage, None)
    assert found is None
    assert "no pool is taken: a/high has had no second look" in said
    found, _, _ = choose(storage, None, only_confirmed=False)
    assert found is not None
    assert found.pools == ("a/high", "b/low", "c/high")


def test_a_top_of_none_is_an_error(storage: Storage) -> None:
    with pytest.raises(BadInput, match="top is 0; at least 1"):
        choose(storage, top=0)
