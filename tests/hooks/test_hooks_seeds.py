"""Which seeds studies use: those that chose a pool never judge it."""

from __future__ import annotations

from itertools import pairwise

from planted_world import context_of

from djsandbox_ray.hooks.plans import combination_plan, confirmation_plan, scaling_seeds
from djsandbox_ray.hooks.repetition import RepeatOrExpand
from djsandbox_ray.hooks.scaling import ScaleCompute
from djsandbox_ray.storage.store import Storage


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
