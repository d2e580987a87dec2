"""What hooks say that they will train; those that train for tests compare it with what they did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from planted_world import TRAIN, context_of, first_pools

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.bounds import UNBUILT, combined_pools, largest_draw
from djsandbox_ray.hooks.choice import ChooseTop
from djsandbox_ray.hooks.clusters import ClusterMetrics, ClusterStatistics
from djsandbox_ray.hooks.combine import CombinationTrials, CombinePools
from djsandbox_ray.hooks.confirmation import ConfirmTrials
from djsandbox_ray.hooks.hook import HOOKS, Planned
from djsandbox_ray.hooks.learning_rate import LearningRateTrials
from djsandbox_ray.hooks.noise import MeasureNoise
from djsandbox_ray.hooks.repetition import RepeatOrExpand
from djsandbox_ray.hooks.scaling import ScaleCompute
from djsandbox_ray.hooks.search import SearchThresholds
from djsandbox_ray.hooks.trials import RunTrials
from djsandbox_ray.pools.builder import PoolBuilder, RangePool
from djsandbox_ray.records import Choice, PoolKind, Ranking, RankingRow
from djsandbox_ray.storage.rows import to_csv
from djsandbox_ray.storage.store import Storage

OPERATORS = ["text_length_filter", "words_num_filter", "alphanumeric_filter"]
NOTHING = Planned()


class Twice(RangePool):
    """A user's range is a range, too."""


class Own(PoolBuilder):
    """Nobody knows how many pools it makes."""

    def build(self, row_ids: Any, columns: Any) -> Any:
        raise AssertionError("a plan builds nothing")


def test_hooks_that_train_nothing_need_not_answer(storage: Storage) -> None:
    context, _ = context_of(storage)
    for name in ("ingest", "statistics", "pools", "ranking", "refine", "recipe", "report"):
        assert HOOKS.get(name)(context).ahead(any="thing") == NOTHING


def test_all_pools_and_the_controls_among_them(storage: Storage) -> None:
    context, _ = context_of(storage, operators=OPERATORS)
    # 3 statistics of 3 buckets, 6 controls, 2 self-tests; two seeds of 20 samples.
    assert RunTrials(context).ahead(NOTHING) == Planned(34, 680)
    assert MeasureNoise(context).ahead(NOTHING) == Planned(12, 240, part_of_first=True)
    pools = first_pools(context)
    controls = sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
    assert RunTrials(context).ahead(pools).trials == 2 * len(pools.pools)
    assert MeasureNoise(context).ahead(pools).trials == 2 * controls


@pytest.mark.parametrize(
    ("kind", "unknown"),
    [(f"{__name__}:Twice", ""), (f"{__name__}:Own", UNBUILT)],
    ids=["range", "own"],
)
def test_nobody_knows_how_many_pools_a_builder_makes(
    storage: Storage, kind: str, unknown: str
) -> None:
    entry: dict[str, Any] = {"type": kind, "name": "own"}
    if not unknown:
        entry |= {"statistic": "text_len", "low": 3}
    context, _ = context_of(storage, pools={"extra": [entry]})
    assert RunTrials(context).ahead(NOTHING) == Planned(2 * (4 + 5 + 2), 440, unknown=unknown)
    plain, _ = context_of(storage)
    built = first_pools(plain)
    assert RunTrials(context).ahead(built).unknown == "", "now they are there"


def test_the_second_look(storage: Storage) -> None:
    context, _ = context_of(storage, confirm={"top": 4, "controls": 6, "seeds": 3})
    hook = ConfirmTrials(context)
    assert hook.ahead(NOTHING) == Planned(3 * 10, 600)
    assert hook.ahead(None) == NOTHING
    pools = first_pools(context)
    assert hook.ahead(replace(pools, pools=pools.pools[:7])).trials == 3 * 7
    none, _ = context_of(storage, confirm={"top": 0})
    assert ConfirmTrials(none).ahead(NOTHING) == NOTHING


def test_a_second_learning_rate(storage: Storage) -> None:
    context, _ = context_of(storage)
    assert LearningRateTrials(context).ahead(NOTHING, NOTHING) == NOTHING
    asked, _ = context_of(storage, learning_rate_check={"learning_rate": 0.1})
    hook, pools = LearningRateTrials(asked), first_pools(asked)
    assert hook.ahead(NOTHING, NOTHING).trials == 2 * (3 + 5 + 2)
    assert hook.ahead(pools, NOTHING).trials == 2 * len(pools.pools)
    rows = [
        RankingRow(
            1, name, PoolKind.BUCKET, name[0], name[2:], 0.5, 0.1, 0, 1, 0.01, 0.01, verdict, 2, 0
        )
        for name, verdict in (("a/high", "better"), ("b/low", "undecided"))
    ]
    storage.write_bytes("ranking.csv", to_csv(RankingRow, rows).encode())
    controls = sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
    assert hook.ahead(pools, Ranking("r", "ranking.csv")).trials == 2 * (1 + controls)
    storage.write_bytes("nothing.csv", to_csv(RankingRow, rows[1:]).encode())
    assert hook.ahead(pools, Ranking("r", "nothing.csv")) == NOTHING


def test_choices_say_how_much_they_take(storage: Storage) -> None:
    context, _ = context_of(storage)
    assert ChooseTop(context).ahead(top=5, ranking=NOTHING).pools == 5
    for kind in (ClusterStatistics, ClusterMetrics):
        assert kind(context).ahead(clusters=2) == Planned(pools=2)


@pytest.mark.parametrize(
    ("choice", "arms"),
    [
        (None, 0),
        (Choice("c", ("a/low",), ""), 1 + 5),
        (Planned(pools=2), 3 + 5),
        (Planned(pools=9), 7 + 5),
        (NOTHING, 7 + 5),
    ],
)
def test_combinations(storage: Storage, choice: Choice | Planned | None, arms: int) -> None:
    context, _ = context_of(storage, operators=OPERATORS)
    assert combined_pools(choice, context.config) == arms
    made = CombinePools(context).ahead(Planned(draw_size=40), choice, minimum=3)
    assert made == Planned(pools=arms, draw_size=40)
    assert CombinationTrials(context).ahead(made) == Planned(2 * arms, 40 * arms)
    assert RepeatOrExpand(context).ahead(TRAIN, made, factors=[2]) == Planned(6, 6 * 2 * 40)


def test_combinations_with_controls_of_their_own(storage: Storage) -> None:
    context, _ = context_of(storage, operators=OPERATORS)
    hook = CombinePools(context)
    assert hook.ahead(NOTHING, NOTHING, controls=9).pools == 7 + 9
    with pytest.raises(BadInput, match="4 controls of combinations"):
        hook.ahead(NOTHING, NOTHING, controls=4)
    # Nobody says how many there are: as many as could be.
    assert CombinationTrials(context).ahead(NOTHING).trials == 2 * 12


def test_draws_are_no_larger_than_their_share_of_a_bucket(storage: Storage) -> None:
    context, _ = context_of(storage)
    config = context.config
    assert largest_draw(config, TRAIN) == 450
    assert first_pools(context).draw_size <= 450
    assert largest_draw(config, NOTHING) == 2, "a generated world says how large it is"
    sized, _ = context_of(storage, pools={"size": 30, "draw_share": 1.0})
    assert largest_draw(sized.config, NOTHING) == 30


def test_nothing_combined_is_nothing_scaled(storage: Storage) -> None:
    context, _ = context_of(storage)
    assert RepeatOrExpand(context).ahead(TRAIN, None) == NOTHING
    assert ScaleCompute(context).ahead(None) == NOTHING
    assert CombinationTrials(context).ahead(None) == NOTHING


def test_the_plan_refuses_what_the_job_would(storage: Storage) -> None:
    context, _ = context_of(storage)
    for call, words in (
        (lambda: RepeatOrExpand(context).ahead(TRAIN, NOTHING, factors=[0]), "factors are"),
        (lambda: ScaleCompute(context).ahead(NOTHING, models=["x"]), "has no 'arch'"),
        (lambda: SearchThresholds(context).ahead(seeds=3), "seeds is 3"),
        (lambda: SearchThresholds(context).ahead(proposals=0), "proposals is 0"),
    ):
        with pytest.raises(BadInput, match=words):
            call()
