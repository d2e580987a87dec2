"""What the tracker is told of a run that went all the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from found_outputs import JOINED, YAML, found_outputs, ranked

from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.records import PoolKind, Ranking, RankingRow, Report
from djsandbox_ray.storage.rows import to_csv
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.journal import Journal, RunEntry
from djsandbox_ray.tracking.tracker import RunInfo
from djsandbox_ray.workflows.publish import is_main, publish


@dataclass
class Watched:
    """A run, and what its journal holds: that is what every tracker is sent."""

    context: Context

    def tell(self, *outputs: Any) -> None:
        for output in outputs:
            publish(self.context, output)

    @property
    def _journal(self) -> Journal:
        (journal,) = Journal.all(self.context.storage, self.context.folder)
        return journal

    @property
    def run(self) -> RunEntry:
        return self._journal.run

    @property
    def metrics(self) -> dict[str, float]:
        return {name: value for name, (value, _) in self.run.metrics.items()}

    @property
    def files(self) -> dict[str, bytes]:
        return dict(self._journal.artifacts())


@pytest.fixture
def watched(opened: Callable[..., Context]) -> Watched:
    context = opened(name="found")
    context.tracker.start(RunInfo("found", "key"))
    return Watched(context)


def test_all_files_have_the_names_that_they_have_in_the_run(watched: Watched) -> None:
    watched.tell(*found_outputs(watched.context.storage, "runs/found").values())
    assert sorted(watched.files) == sorted(
        [
            "ranking.csv",
            "combination_ranking.csv",
            "interactions.csv",
            "surrogate.csv",
            "cluster_statistics.json",
            "figures/cluster_statistics.png",
            "cluster_metrics.json",
            "figures/cluster_metrics.png",
            "repetition.csv",
            "repetition.json",
            "figures/repetition.png",
            "scaling.csv",
            "scaling.json",
            "figures/scaling.png",
            "diversity.csv",
            "recipes/found.yaml",
            "recipes/found.evidence.json",
            "acceptance.json",
            "insights.md",
        ]
    )
    assert watched.files["recipes/found.yaml"].decode() == YAML
    assert b"a/high," in watched.files["ranking.csv"]
    assert JOINED.encode() in watched.files["combination_ranking.csv"]


def test_the_two_rankings_are_not_mixed_up(watched: Watched) -> None:
    outputs = found_outputs(watched.context.storage, "runs/found")
    watched.tell(outputs["combination_ranking"])
    assert watched.metrics == {"best_combination_effect": 0.5}
    watched.tell(outputs["ranking"], outputs["combination_ranking"])
    assert watched.metrics["pools_better"] == 1
    assert watched.metrics["pools_undecided"] == 1
    assert is_main(outputs["ranking"])
    assert not is_main(outputs["combination_ranking"])


def test_the_best_combination_is_none_of_its_parts(watched: Watched) -> None:
    storage = watched.context.storage
    rows = [ranked(1, "a/high", 0.9, "better"), ranked(2, JOINED, 0.25, "better")]
    storage.write_bytes("runs/found/second_ranking.csv", to_csv(RankingRow, rows).encode())
    watched.tell(Ranking("ranking-3", "runs/found/second_ranking.csv"))
    assert watched.metrics == {"best_second_effect": 0.25}


def test_numbers_that_nobody_knows_are_not_sent(watched: Watched) -> None:
    storage = watched.context.storage
    recipe = found_outputs(storage, "runs/found")["recipe"]
    watched.tell(recipe)
    assert watched.metrics == {"recipe_retention": 0.25, "recipe_effect": 0.5}
    failed = replace(ranked(1, JOINED, math.nan, "failed"), low=math.nan, high=math.nan)
    storage.write_bytes("runs/found/lost_ranking.csv", to_csv(RankingRow, [failed]).encode())
    watched.tell(Ranking("ranking-4", "runs/found/lost_ranking.csv"))
    assert "best_lost_effect" not in watched.metrics


def test_an_unmeasured_recipe_has_no_effect(watched: Watched) -> None:
    recipe = found_outputs(watched.context.storage, "runs/found")["recipe"]
    watched.tell(replace(recipe, effect=math.nan))
    assert watched.metrics == {"recipe_retention": 0.25}


def test_a_recipe_that_was_not_exported_sends_its_evidence_alone(watched: Watched) -> None:
    recipe = found_outputs(watched.context.storage, "runs/found")["recipe"]
    watched.tell(replace(recipe, path="", broken_policies=("nsfw",)), None)
    assert list(watched.files) == ["recipes/found.evidence.json"]


def test_a_file_of_another_folder_has_its_bare_name(watched: Watched) -> None:
    storage: Storage = watched.context.storage
    elsewhere = found_outputs(storage, "elsewhere/found")
    watched.tell(elsewhere["insights"])
    assert list(watched.files) == ["insights.md"]


def test_said_again_it_changes_nothing(watched: Watched) -> None:
    outputs = found_outputs(watched.context.storage, "runs/found")
    watched.tell(*outputs.values())
    before = watched.run
    watched.tell(*outputs.values())
    assert watched.run == before


def test_self_tests_are_no_pools_that_are_worse(watched: Watched) -> None:
    storage = watched.context.storage
    rows = [
        ranked(1, "a/high", 0.2, "better"),
        replace(
            ranked(2, "self_test/shuffled_captions", -0.9, "worse"),
            kind=PoolKind.SELF_TEST,
            expected="worse",
        ),
    ]
    storage.write_bytes("runs/found/ranking.csv", to_csv(RankingRow, rows).encode())
    watched.tell(Ranking("ranking-5", "runs/found/ranking.csv"))
    assert (watched.metrics["pools_better"], watched.metrics["pools_worse"]) == (1, 0)


def test_a_report_describes_the_run(watched: Watched) -> None:
    storage = watched.context.storage
    found_outputs(storage, "runs/found")
    for name in ("report.html", "figures/ranking.png"):
        storage.write_bytes(f"runs/found/{name}", b"x")
    files = ("runs/found/report.html", "runs/found/figures/ranking.png")
    answer = (("keep", "Keep samples."), ("next", "combine: djsandbox run a.yaml --set x=1: 2"))
    watched.tell(Report("report-1", *files, ("Confirmed.",), answer))
    told = watched.run.description.splitlines()
    assert told[:3] == [
        "- **keep**: Keep samples.",
        "- **next**: combine: `djsandbox run a.yaml --set x=1: 2`",
        "",
    ]
    assert "- Confirmed." in told
    assert f"`{storage.uri('runs/found/report.html')}`" in told[-1]
