"""What hooks say that they will train, and with which seeds.

Those that train for tests compare it with what they did.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from planted_world import TRAIN, context_of, first_pools, ranking_of

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.choice import ChooseTop
from djsandbox_ray.hooks.clusters import ClusterMetrics, ClusterStatistics
from djsandbox_ray.hooks.combine import CombinePools
from djsandbox_ray.hooks.confirmation import ChooseForConfirmation
from djsandbox_ray.hooks.hook import HOOKS, Planned
from djsandbox_ray.hooks.learning_rate import CheckLearningRate
from djsandbox_ray.hooks.noise import MeasureNoise
from djsandbox_ray.hooks.plans import (
    UNBUILT,
    combination_plan,
    combined_pools,
    confirmation_plan,
    largest_draw,
    scaling_seeds,
)
from djsandbox_ray.hooks.repetition import RepeatOrExpand
from djsandbox_ray.hooks.scaling import ScaleCompute
from djsandbox_ray.hooks.search import SearchThresholds
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.pools.builder import PoolBuilder, RangePool
from djsandbox_ray.records import Choice, PoolKind
from djsandbox_ray.storage.store import Storage

OPERATORS = ["text_length_filter", "words_num_filter", "alphanumeric_filter"]
NOTHING = Planned()


class Twice(RangePool):
    """A user's range is a range, too."""


class Own(PoolBuilder):
    """Nobody knows how many pools it makes."""

    def build(self, row_ids: Any, columns: Any) -> Any:
        raise AssertionError("a plan builds nothing")


def counted(planned: Planned) -> tuple[int, int]:
    return planned.trials, planned.samples


def test_hooks_that_train_nothing_need_not_answer(storage: Storage) -> None:
    context, _ = context_of(storage)
    for name in ("ingest", "statistics", "pools", "judge", "refine", "recipe", "report"):
        assert HOOKS.get(name)(context).ahead(any="thing") == NOTHING


def test_all_pools_and_the_controls_among_them(storage: Storage) -> None:
    context, _ = context_of(storage, operators=OPERATORS)
    # 3 statistics of 3 buckets, 6 controls, 2 self-tests; two seeds of 20 samples.
    assert counted(Train(context).ahead(NOTHING)) == (34, 680)
    assert counted(MeasureNoise(context).ahead(NOTHING)) == (12, 240)
    assert MeasureNoise(context).ahead(NOTHING).part_of_first
    pools = first_pools(context)
    controls = sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
    assert Train(context).ahead(pools).trials == 2 * len(pools.pools)
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
    bound = Train(context).ahead(NOTHING)
    assert (*counted(bound), bound.unknown) == (2 * (4 + 5 + 2), 440, unknown)
    plain, _ = context_of(storage)
    built = first_pools(plain)
    assert Train(context).ahead(built).unknown == "", "now they are there"


def test_the_second_look(storage: Storage) -> None:
    context, _ = context_of(storage, confirm={"top": 4, "controls": 6, "seeds": 3})
    chosen, hook = ChooseForConfirmation(context).ahead(), Train(context)
    plan = confirmation_plan(context.config)
    assert chosen == Planned(pools=10, study=plan)
    assert hook.ahead(chosen) == Planned(3 * 10, 600, study=plan)
    assert hook.ahead(None) == NOTHING
    pools = first_pools(context)
    assert hook.ahead(replace(pools, pools=pools.pools[:7], study=plan)).trials == 3 * 7
    none, _ = context_of(storage, confirm={"top": 0})
    assert Train(none).ahead(ChooseForConfirmation(none).ahead()).trials == 0


def test_a_second_learning_rate(storage: Storage) -> None:
    context, _ = context_of(storage)
    assert CheckLearningRate(context).ahead(NOTHING, NOTHING) == NOTHING
    asked, _ = context_of(storage, learning_rate_check={"learning_rate": 0.1})
    hook, pools = CheckLearningRate(asked), first_pools(asked)
    assert hook.ahead(NOTHING, NOTHING).trials == 2 * (3 + 5 + 2)
    assert hook.ahead(pools, NOTHING).trials == 2 * len(pools.pools)
    ranking = ranking_of(storage, ("a/high", 0.5, "better"), ("b/low", 0.1, "undecided"))
    controls = sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
    assert hook.ahead(pools, ranking).trials == 2 * (1 + controls)
    assert hook.ahead(pools, ranking_of(storage, ("b/low", 0.1, "undecided"))).trials == 0


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
    plan = combination_plan(context.config, "combination")
    assert made == Planned(pools=arms, draw_size=40, study=plan)
    assert Train(context).ahead(made) == Planned(2 * arms, 40 * arms, study=plan)
    assert RepeatOrExpand(context).ahead(TRAIN, made, factors=[2]) == Planned(6, 6 * 2 * 40)


def test_combinations_with_controls_of_their_own(storage: Storage) -> None:
    context, _ = context_of(storage, operators=OPERATORS)
    hook = CombinePools(context)
    assert hook.ahead(NOTHING, NOTHING, controls=9).pools == 7 + 9
    with pytest.raises(BadInput, match="4 controls of combinations"):
        hook.ahead(NOTHING, NOTHING, controls=4)


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
    assert Train(context).ahead(None) == NOTHING


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


def test_studies_that_choose_and_judge_share_no_seed(storage: Storage) -> None:
    context, _ = context_of(storage, confirm={"top": 2, "controls": 5, "seeds": 3})
    config = context.config
    ranges = [
        (0, 1),
        confirmation_plan(config).seeds,
        combination_plan(config, "combination").seeds,
        scaling_seeds(config),
    ]
    assert [len(seeds) for seeds in ranges] == [2, 3, 2, 2]
    assert all(before[-1] + 1 == after[0] for before, after in pairwise(ranges))
    assert scaling_seeds(config, 5) == range(7, 12)


def test_the_best_combination_is_scaled_with_seeds_that_did_not_choose_it(storage: Storage) -> None:
    context, _ = context_of(storage)
    chosen_by = combination_plan(context.config, "combination").seeds
    _, scaled_with, _ = ScaleCompute(context).identity()
    _, repeated_from = RepeatOrExpand(context).identity()
    assert not set(chosen_by) & set(scaled_with)
    assert repeated_from > max(chosen_by)
