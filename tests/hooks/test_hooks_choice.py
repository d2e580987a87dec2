from __future__ import annotations

import math
from dataclasses import replace

import pytest
from planted_world import context_of, first_pools

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.choice import ChooseTop
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.records import Choice, Confirmation, ConfirmationRow, PoolKind, RankingRow
from djsandbox_ray.records import Ranking as RankingRecord
from djsandbox_ray.storage.rows import to_csv
from djsandbox_ray.storage.store import Storage

NAN = math.nan


def first(pool: str, change: float, verdict: str = "better") -> RankingRow:
    statistic, _, bucket = pool.partition("/")
    kind = PoolKind.SELF_TEST if statistic == "self_test" else PoolKind.BUCKET
    named = (None, None) if kind is PoolKind.SELF_TEST else (statistic, bucket)
    judged = replace(
        RankingRow(1, pool, kind, *named, change, 0.1, 0.0, 1.0, 0.01, 0.01, verdict, 2, 0),
        shrunken=change / 2,
    )
    return judged if verdict != "failed" else replace(judged, change=NAN, shrunken=NAN)


def second(pool: str, confirmed: float, verdict: str = "better") -> ConfirmationRow:
    return ConfirmationRow(pool, 0.1, 0.0, 0.2, 0.05, confirmed, 0.0, 0.2, verdict, 2)


FIRST = [
    first("a/high", 0.9),
    first("b/low", 0.8),
    first("self_test/x", 0.75),
    first("a/middle", 0.7),
    first("c/high", 0.6),
    first("d/high", 0.5),
    first("e/high", 0.45),
    first("c/low", 0.1, "undecided"),
    first("b/high", -0.9, "worse"),
    first("e/low", NAN, "failed"),
]
SECOND = [
    second("a/high", 0.2),
    second("b/low", 0.4),
    second("a/middle", 0.3),
    second("c/high", 0.0, "undecided"),
    second("d/high", -0.3, "worse"),
]


def choose(
    storage: Storage, seconds: list[ConfirmationRow] | None = SECOND, **parameters: object
) -> tuple[Choice | None, dict[str, str], str]:
    """Return the choice, the reasons by pool as they are written, and what was said."""
    context, said = context_of(storage)
    pools = first_pools(context)
    storage.write_bytes("ranking.csv", to_csv(RankingRow, FIRST).encode())
    confirmation = None
    if seconds is not None:
        storage.write_bytes("confirmation.csv", to_csv(ConfirmationRow, seconds).encode())
        confirmation = Confirmation("confirmation", "confirmation.csv")
    ranking = RankingRecord("ranking", "ranking.csv")
    found = ChooseTop(context).run(pools, ranking, confirmation, **parameters)
    written = storage.read_json("runs/planted/choice.json")
    assert written["chosen"] == [item["pool"] for item in written["candidates"] if item["taken"]]
    assert written["chosen"] == list(found.pools if found else ())
    reasons = {item["pool"]: item["reason"] for item in written["candidates"]}
    assert set(reasons) == {row.pool for row in FIRST if row.kind is PoolKind.BUCKET}
    return found, reasons, said.getvalue()


def test_it_is_registered() -> None:
    assert HOOKS.get("top_k") is ChooseTop


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
