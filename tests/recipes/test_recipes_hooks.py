from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
import refined_world as world
import yaml
from rich.console import Console

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.recipe import WriteRecipe
from djsandbox_ray.hooks.thresholds import Refine
from djsandbox_ray.recipes.ranges import kept
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Ledger,
    Range,
    Ranking,
    RankingRow,
    Thresholds,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.rows import to_csv
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tracker import NullTracker

LOW, LONG = "special_char_ratio/low", "text_len/high"
BOTH = f"{LOW}&{LONG}"


class Run:
    """A run whose studies are finished."""

    def __init__(
        self, storage: Storage, *policies: dict[str, Any], within: Sequence[Range] = ()
    ) -> None:
        shapes = {"type": "shapes", "samples": 10}
        config = RunConfig.model_validate(
            {
                "name": "r",
                "storage": storage.url,
                "dataset": shapes,
                "operators": ["text_length_filter", {"special_characters_filter": {}}],
                "trials": {"model": {"type": "clip"}, "budget": 10},
                "evaluation": {"dataset": shapes, "metrics": [{"type": "retrieval", "k": [1]}]},
                "policies": list(policies),
                "pools": {"within": [asdict(item) for item in within]},
            }
        )
        self.output = StringIO()
        tracker = NullTracker(Component(type="none"), storage)
        progress = Progress(Console(file=self.output, width=300))
        self.context = Context(config, storage, "runs/r", tracker, progress)
        self.storage = storage
        self.statistics = world.statistics(storage)
        self.pools = world.pools(storage)
        self.ranking = self.ranked("ranking", world.RANKING)

    def ranked(self, name: str, rows: list[Any]) -> Ranking:
        path = f"runs/r/{name}.csv"
        self.storage.write_bytes(path, to_csv(RankingRow, rows).encode())
        return Ranking(name, path)

    def confirmed(self, *rows: Any) -> Confirmation:
        path = "runs/r/confirmation.csv"
        self.storage.write_bytes(path, to_csv(ConfirmationRow, rows).encode())
        return Confirmation("confirmation", path)

    def refine(self, **more: Any) -> Thresholds | None:
        given = {"pools": self.pools, "ranking": self.ranking, **more}
        return Refine(self.context).run(world.DATASET, self.statistics, **given)

    def recipe(self, thresholds: Thresholds | None, **more: Any) -> Any:
        given = {"pools": self.pools, "ranking": self.ranking, **more}
        hook = WriteRecipe(self.context)
        return hook.run(world.DATASET, self.statistics, thresholds=thresholds, **given)

    def evidence(self, recipe: Any) -> Any:
        return self.storage.read_sealed(recipe.evidence)


def test_a_confirmed_pool_becomes_a_recipe(storage: Storage) -> None:
    run = Run(storage)
    confirmation = run.confirmed(world.again(LOW, 0.12, "better"))
    thresholds = run.refine(confirmation=confirmation)
    assert thresholds is not None
    assert (thresholds.pool, len(thresholds.ranges)) == (LOW, 1)
    written = storage.read_sealed(thresholds.path)
    assert written["ranges"][0]["origin"].startswith("buckets special_char_ratio/low (better in")
    storage.write_json("runs/r/ledger.json", {"stages": [], "total": {"cpu_seconds": 5.0}})
    recipe = run.recipe(
        thresholds, confirmation=confirmation, ledger=Ledger("l", "runs/r/ledger.json")
    )
    assert (recipe.path, recipe.effect) == ("runs/r/recipes/r.yaml", 0.12)
    document = yaml.safe_load(storage.read_bytes(recipe.path))
    assert list(document["process"][0]) == ["special_characters_filter"]
    mask = kept(world.columns(), thresholds.ranges)
    assert recipe.retention == mask.mean()
    evidence = run.evidence(recipe)
    assert evidence["retention"]["rows"] == mask.sum()
    assert evidence["effect"]["confirmed"] == {
        "change": 0.12,
        "interval": [pytest.approx(0.09), pytest.approx(0.15)],
        "verdict": "better",
        "seeds": 4,
    }
    assert (evidence["pool"]["id"], evidence["cost"]) == (LOW, {"cpu_seconds": 5.0})
    assert not any("not confirmed" in caveat for caveat in evidence["caveats"])
    assert any("keep values that this dataset did not have" in c for c in evidence["caveats"])
    comments = storage.read_bytes(recipe.path).decode()
    assert "Expected effect: +0.12 [+0.09, +0.15] (pooled, better)" in comments


def test_thresholds_of_a_later_round_hold_what_was_kept_before(storage: Storage) -> None:
    whole = Run(storage).refine()
    assert whole is not None
    (found,) = whole.ranges
    run = Run(storage, within=[Range("text_len", 1, None), replace(found, high=found.high + 1)])
    later = run.refine()
    assert later is not None
    assert later.ranges == (Range("text_len", 1, None), found), "the narrower of two"
    evidence = run.evidence(run.recipe(later))
    assert evidence["retention"]["rows"] == kept(world.columns(), later.ranges).sum()
    assert any("what the recipe adds to keeping those" in line for line in evidence["caveats"])


def test_the_effect_and_its_interval_are_of_one_study(storage: Storage) -> None:
    run = Run(storage)
    # All trials of the second look failed: what is known is the first study's.
    failed = replace(
        world.again(LOW, 0.12, "failed"), confirmed=math.nan, low=math.nan, high=math.nan
    )
    thresholds = run.refine()
    assert thresholds is not None
    recipe = run.recipe(thresholds, confirmation=run.confirmed(failed))
    first = run.evidence(recipe)["effect"]["first"]
    low, high = first["interval"]
    said = f"Expected effect: {first['change']:+.4g} [{low:+.4g}, {high:+.4g}] (pooled, better)"
    assert said in storage.read_bytes(recipe.path).decode()
    assert (recipe.effect, recipe.confirmed) == (first["change"], False)


def test_the_same_again_gives_the_same_ids(storage: Storage) -> None:
    run = Run(storage)
    first, second = run.refine(), run.refine()
    assert first == second
    assert run.recipe(first).id == run.recipe(second).id


def test_a_combination_stands_on_all_parts(storage: Storage) -> None:
    run = Run(storage)
    combinations = world.combined(storage, run.pools, LOW, LONG)
    rows = [world.row(BOTH, 0.4, "better"), world.row(LOW, 0.2, "better")]
    given = {
        "combinations": combinations,
        "combination_ranking": run.ranked("combination_ranking", rows),
    }
    thresholds = run.refine(**given)
    assert thresholds is not None
    assert thresholds.pool == BOTH
    assert [r.statistic for r in thresholds.ranges] == ["special_char_ratio", "text_len"]
    recipe = run.recipe(thresholds, **given)
    evidence = run.evidence(recipe)
    assert recipe.effect == 0.4
    assert [part["id"] for part in evidence["pool"]["parts"]] == [LOW, LONG]
    found = " ".join(evidence["caveats"])
    assert "the choice among 3 combinations" in found
    assert "the pool that was trained had" in found
    assert "are kept or dropped together" in found


def test_nothing_better_nothing_refined(storage: Storage) -> None:
    run = Run(storage)
    assert run.refine(confirmation=run.confirmed(world.again(LOW, 0.1, "undecided"))) is None
    assert "no pool is better than the controls" in run.output.getvalue()
    assert run.recipe(None) is None


def test_a_recipe_without_any_trial(storage: Storage) -> None:
    run = Run(storage)
    method = {"type": "percentile", "statistics": {"text_len": {"low": 5, "high": 95}}}
    thresholds = run.refine(pools=None, ranking=None, method=method)
    assert thresholds is not None
    assert thresholds.pool == ""
    recipe = run.recipe(thresholds, pools=None, ranking=None, name="by-percentile")
    assert math.isnan(recipe.effect)
    assert recipe.path == "runs/r/recipes/by-percentile.yaml"
    assert recipe.retention == pytest.approx(0.9, abs=0.04)
    evidence = run.evidence(recipe)
    assert evidence["pool"] is None
    assert evidence["effect"]["first"] is None
    assert "No model was trained" in evidence["caveats"][0]
    assert "not known" in storage.read_bytes(recipe.path).decode()


def test_a_search_brings_its_own_confirmation(storage: Storage) -> None:
    run = Run(storage)
    look = {**asdict(world.again("search/7", 0.3, "better")), "first_low": None}
    storage.write_json("runs/r/search_thresholds.json", {"confirmed": look})
    ranges = (Range("text_len", 20.0, None),)
    found = Thresholds("t", ranges, "search", "search/7", "runs/r/search_thresholds.json")
    recipe = run.recipe(found)
    assert recipe.effect == 0.3
    evidence = run.evidence(recipe)
    assert (evidence["pool"]["id"], evidence["pool"]["hash"]) == ("search/7", None)
    assert not any(
        "No model" in caveat or "not confirmed" in caveat for caveat in evidence["caveats"]
    )
    storage.write_json("runs/r/search_thresholds.json", {"confirmed": None})
    recipe = run.recipe(found)
    assert math.isnan(recipe.effect)
    assert "too good on average" in run.evidence(recipe)["caveats"][0]


def test_a_threshold_that_is_rounded_is_said(storage: Storage) -> None:
    run = Run(storage)
    found = Thresholds("t", (Range("text_len", 20.5, None),), "by hand", "", "t.json")
    evidence = run.evidence(run.recipe(found))
    assert evidence["retention"]["ranges"][0]["low"] == 21.0
    assert any("cannot express text_len in [20.5, inf]" in c for c in evidence["caveats"])


def test_an_unconfirmed_effect_is_called_so(storage: Storage) -> None:
    run = Run(storage)
    evidence = run.evidence(run.recipe(run.refine()))
    assert "not confirmed with fresh seeds" in evidence["caveats"][0]
    assert evidence["effect"]["first"]["shrunken"] == pytest.approx(0.16)


def test_a_pool_that_breaks_a_policy_is_passed_over(storage: Storage) -> None:
    # The pool with few special characters is forbidden; the next best is taken.
    run = Run(storage, {"statistic": "special_char_ratio", "mean_at_least": 0.2})
    thresholds = run.refine()
    assert thresholds is not None
    refused = storage.read_sealed(thresholds.path)["refused"]
    assert list(refused) == [LOW]
    assert "it must be at least 0.2" in refused[LOW][0]
    assert thresholds.pool == "special_char_ratio/middle"
    assert "breaks a policy" in run.output.getvalue()


def test_a_recipe_that_breaks_a_policy_is_not_exported(storage: Storage) -> None:
    thresholds = Thresholds("t", (Range("text_len", 20.0, None),), "by hand", "", "t.json")
    allowed = Run(storage).recipe(thresholds)
    assert storage.exists(allowed.path)
    run = Run(storage, {"statistic": "special_char_ratio", "above": 0.4, "share": 0.05})
    recipe = run.recipe(thresholds)
    assert recipe.path == ""
    assert "are above 0.4" in recipe.broken_policies[0]
    assert not storage.exists(allowed.path)
    assert run.evidence(recipe)["recipe"] is None
    assert "not exported" in run.output.getvalue()


def test_bad_input(storage: Storage) -> None:
    run = Run(storage)
    with pytest.raises(BadInput, match=r"method\.type: unknown refiner 'percentil'; did you"):
        run.refine(method={"type": "percentil"})
    with pytest.raises(BadInput, match=r"refine: method\.k: "):
        run.refine(method={"type": "k_sigma", "k": -1})
    empty = Thresholds("t", (Range("text_len", 1000.0, None),), "by hand", "", "t.json")
    with pytest.raises(BadInput, match=r"no row has text_len in \[1000, inf\]"):
        run.recipe(empty)
    with pytest.raises(BadInput, match=r"name .\.\./r."):
        run.recipe(empty, name="../r")
    unknown = Run(storage, {"statistic": "nsfw", "above": 0.5})
    with pytest.raises(BadInput, match=r"policies\[0\].statistic: unknown statistic 'nsfw'"):
        unknown.refine()


def test_what_decides_the_output_is_in_the_identity(storage: Storage) -> None:
    policy = {"statistic": "text_len", "mean_at_least": 1.0}
    for hook in (Refine, WriteRecipe):
        plain, strict = (hook(Run(storage, *p).context).identity() for p in ((), (policy,)))
        assert plain != strict
    assert not np.isnan(world.columns()["text_len"]).any()
