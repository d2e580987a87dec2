from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from planted_world import (
    EVALUATION,
    STATISTICS,
    TRAIN,
    context_of,
    first_pools,
    train_controls,
)
from scaling_world import FLOPS, HALF_LIFE

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.combine import CombinePools
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.plans import scaling_seeds
from djsandbox_ray.hooks.repetition import RepeatOrExpand
from djsandbox_ray.hooks.scaling import ScaleCompute
from djsandbox_ray.records import Choice, Pools, RepetitionRow, ScalingRow, Trials
from djsandbox_ray.storage.rows import from_csv
from djsandbox_ray.storage.store import Storage

CHOICE = Choice("choice", ("a/high", "b/high"), "choice.json")
INPUTS = (TRAIN, EVALUATION)
MODEL = {"type": "scaling_world:Decaying"}


@dataclass
class World:
    context: Context
    said: StringIO
    pyramid: Pools
    first: Trials


def context_with(storage: Storage, **model: Any) -> tuple[Context, StringIO]:
    return context_of(storage, trials={"model": {**MODEL, **model}, "budget": 300, "seeds": 3})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One first study and pyramid for all tests that only look further."""
    context, said = context_with(Storage(str(tmp_path_factory.mktemp("scaling"))))
    pools = first_pools(context)
    first = train_controls(context, pools)
    pyramid = CombinePools(context).run(pools, CHOICE, STATISTICS, minimum=250)
    assert pyramid is not None
    return World(context, said, pyramid, first)


def test_repetition_against_diversity(made: World) -> None:
    storage = made.context.storage
    hook = RepeatOrExpand(made.context)
    factors = [1, 4, 16, 32]
    found = hook.run(*INPUTS, made.pyramid, None, made.first, factors=[32, *factors], unit=100)
    assert found is not None
    assert hook.keep(found)
    rows = from_csv(RepetitionRow, storage.read_bytes(found.path).decode(), "repetition")
    table = {(row.strategy, row.factor): row for row in rows}
    assert len(table) == len(rows) == 12
    assert all(row.samples == row.factor * 100 and row.seeds == 3 for row in rows)
    assert all(table["repeat", factor].rows == 100 for factor in factors)
    assert table["expand", 4].rows == 400
    assert table["expand", 32].rows == 2700, "all there are"
    for factor in factors:
        assert table["expand", factor].effect >= table["repeat", factor].effect - 0.01
        assert table["expand", factor].effect > -0.005
        assert table["random", factor].effect == 0
    said = storage.read_sealed(found.law)
    assert said["top"] == "a/high&b/high"
    assert said["sentences"][0].startswith("the pool studied is a/high&b/high: ")
    assert said["seeds"] == list(scaling_seeds(made.context.config))
    trained = storage.read_table("runs/planted/repetition_x4_trials.parquet", ["seed"])["seed"]
    assert sorted(set(trained.to_pylist())) == said["seeds"]
    assert said["paying"]["factor"] >= 4
    assert said["against_new_rows"][2]["verdict"] == "better"
    # The next layers are not quite as good, so that a repetition is worth a little more of them.
    assert said["law"]["half_life"]["value"] == pytest.approx(HALF_LIFE, rel=0.3)
    assert storage.read_bytes(found.figure).startswith(b"\x89PNG")
    assert "repetition: repetition pays up to" in made.said.getvalue()
    cost = hook.spent
    # Of the trials themselves: evaluations are not counted by this family.
    assert cost.samples == 3 * 3 * sum(factors) * 100
    planned = hook.ahead(TRAIN, made.pyramid, factors=[32, *factors], unit=100)
    assert (planned.trials, planned.samples) == (3 * 3 * len(factors), cost.samples)
    assert cost.flops is None
    again = RepeatOrExpand(made.context)
    assert again.run(*INPUTS, made.pyramid, None, made.first, factors=factors, unit=100) == found


def test_scaling(made: World) -> None:
    storage = made.context.storage
    hook = ScaleCompute(made.context)
    found = hook.run(
        *INPUTS,
        made.pyramid,
        None,
        budgets=[0.25, 1.0, 0.5],
        models=["small", "large"],
        arms=1,
    )
    assert found is not None
    rows = from_csv(ScalingRow, storage.read_bytes(found.path).decode(), "scaling")
    assert len(rows) == 2 * 2 * 3
    assert {row.budget for row in rows} == {75, 150, 300}
    assert all(row.flops == row.budget * FLOPS[row.model] and row.seeds == 3 for row in rows)
    planned = hook.ahead(made.pyramid, budgets=[0.25, 1.0, 0.5], models=["small", "large"], arms=1)
    assert (planned.trials, planned.samples) == (2 * 3 * 2 * 3, hook.spent.samples)
    assert planned.flops == planned.samples / 2 * sum(FLOPS.values())
    said = storage.read_sealed(found.law)
    assert said["full_samples"] == 3000
    assert said["compute"] == "FLOPs"
    assert set(said["models"]) == {"small", "large"}
    small = said["models"]["small"]
    assert small["extrapolation"] == pytest.approx(10)
    assert set(small["laws"]) == {"a/high&b/high", "controls"}
    difference = small["prediction"]["difference"]
    assert difference["value"] > 0
    assert difference["low"] is None, "three budgets"
    assert said["seeds"] == list(scaling_seeds(made.context.config))
    trained = storage.read_table("runs/planted/scaling_small_300_trials.parquet", ["seed"])["seed"]
    assert sorted(set(trained.to_pylist())) == said["seeds"]
    assert said["sentences"][0].startswith("the pool studied is a/high&b/high: ")
    assert any(
        line.startswith("caveat: every training is on the same") for line in said["sentences"]
    )
    told = "small: a/high&b/high: at the full run, 10 times the largest training, its error is"
    assert told in made.said.getvalue()
    assert storage.read_bytes(found.figure).startswith(b"\x89PNG")


def test_two_budgets_are_no_law(made: World) -> None:
    found = ScaleCompute(made.context).run(
        *INPUTS, made.pyramid, None, budgets=[0.5, 1.0], arms=1, target=1e6
    )
    assert found is not None
    said = made.context.storage.read_sealed(found.law)
    assert said["full_samples"] == 10**6
    (only,) = said["models"].values()
    assert only["prediction"] is None
    assert "too few points: 2 budgets" in only["laws"]["controls"]["reason"]
    assert "no law for controls: too few points" in made.said.getvalue()


def test_trials_that_all_diverge_leave_a_table_without_numbers(made: World) -> None:
    storage = made.context.storage
    context, _ = context_with(storage, hopeless=True)
    repetition = RepeatOrExpand(context)
    found = repetition.run(*INPUTS, made.pyramid, None, made.first, factors=[1, 2], unit=100)
    assert found is not None
    assert repetition.keep(found), "diverged trials would diverge again"
    rows = from_csv(RepetitionRow, storage.read_bytes(found.path).decode(), "repetition")
    assert {row.seeds for row in rows} == {0}
    said = storage.read_sealed(found.law)
    assert "too few points" in said["reason"]
    assert "undecided" in said["paying"]["statement"]


def test_nothing_combined_is_nothing_scaled(storage: Storage) -> None:
    context, said = context_of(storage)
    none = Trials("t", "t", "c", 0, 0)
    assert RepeatOrExpand(context).run(*INPUTS, None, None, none) is None
    assert ScaleCompute(context).run(*INPUTS, None, None) is None
    assert said.getvalue().count("no pools were combined") == 2


def pyramid_of(storage: Storage) -> tuple[Context, Pools]:
    context, _ = context_of(storage, trials={"model": MODEL, "budget": 300, "seeds": 2})
    pyramid = CombinePools(context).run(first_pools(context), CHOICE, STATISTICS, minimum=250)
    assert pyramid is not None
    return context, pyramid


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factors": []}, r"factors are \[\]"),
        ({"factors": [0, 2]}, r"factors are \[0, 2\]"),
        ({"unit": -1}, "unit is -1"),
        ({"seeds": -1}, "seeds is -1"),
        ({"unit": 10}, "10 rows, less than one batch of 20"),
        ({"unit": 100_000}, "100000"),
    ],
)
def test_repetition_refuses(storage: Storage, parameters: dict[str, Any], message: str) -> None:
    context, pyramid = pyramid_of(storage)
    first = Trials("t", "t", "c", 0, 0)
    with pytest.raises(BadInput, match=message):
        RepeatOrExpand(context).run(*INPUTS, pyramid, None, first, **parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"budgets": []}, "fractions above 0"),
        ({"budgets": [0.5, -1]}, "fractions above 0"),
        ({"budgets": [0.5, 0.5]}, "two are the same"),
        ({"budgets": [0.05, 0.5]}, "15 samples, less than one batch of 20"),
        ({"models": ["huge"]}, "'small' or 'large'"),
        ({"models": ["small", "small"]}, "one name"),
        ({"arms": 0}, "arms is 0"),
        ({"arms": 99}, "arms is 99"),
        ({"target": -5}, "target is -5"),
    ],
)
def test_scaling_refuses(storage: Storage, parameters: dict[str, Any], message: str) -> None:
    context, pyramid = pyramid_of(storage)
    with pytest.raises(BadInput, match=message):
        ScaleCompute(context).run(*INPUTS, pyramid, None, **parameters)
