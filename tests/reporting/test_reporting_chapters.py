"""What followed the ranking, from the storage to the page."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from found_outputs import PNG, YAML, found_outputs

from djsandbox_ray.errors import BadInput
from djsandbox_ray.reporting.blocks import Chapter, Listing, Picture
from djsandbox_ray.reporting.chapters import Chapters, Later, label_shares, read_labels
from djsandbox_ray.reporting.page import report_html
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.storage.store import Storage

TITLES = [
    "Recipe",
    "Insights",
    "Combinations",
    "Statistics that are alike",
    "Repetition against diversity",
    "Error against compute",
    "Diversity of the pools",
]


@pytest.fixture
def later(storage: Storage) -> Later:
    outputs = found_outputs(storage, "runs/found")
    outputs.pop("ranking")
    return Later(**outputs)


def made(storage: Storage, later: Later) -> list[Chapter]:
    return Chapters(storage, Unit.PERCENT).of(later)


def test_everything_that_was_found_has_its_place(storage: Storage, later: Later) -> None:
    chapters = made(storage, later)
    assert [chapter.title for chapter in chapters] == TITLES
    assert "accepted: Data-Juicer keeps the same 1,000 of 4,000 rows" in chapters[0].headline
    assert "a/high & b/low help each other" in chapters[2].headline
    assert "One combination was left out." in chapters[2].lines
    pictures = [b.data for chapter in chapters for b in chapter.blocks if isinstance(b, Picture)]
    shown = [png.removeprefix(PNG).decode() for png in pictures if png.startswith(PNG)]
    assert shown == ["cluster_statistics", "cluster_metrics", "repetition", "scaling"]
    page = report_html("found", [], chapters=chapters)
    for text in (
        "min_len: 3  # &lt;not&gt; &amp; markup",
        "<li>Its effect was not confirmed.</li>",
        "<li>a/high helps.</li>",
        "<li>repetition pays at x2</li>",
        "<li>tiny: one budget is too few</li>",
        "a/high&amp;b/low",
        "7.5 [7.25, 7.75]",
        "1 GFLOP",
        "not trained",
    ):
        assert text in page, text
    assert YAML not in page


LATER = [field.name for field in fields(Later) if field.name != "evolution"]
"""Chains of stages are no part of such a run."""


@pytest.mark.parametrize("name", LATER)
def test_whatever_is_missing_takes_nothing_else_with_it(
    storage: Storage, later: Later, name: str
) -> None:
    alone = {"statistic_clusters", "metric_clusters", "combination_ranking", "interactions"}
    own = {
        "recipe": "Recipe",
        "insights": "Insights",
        "repetition": "Repetition against diversity",
        "scaling": "Error against compute",
        "diversity": "Diversity of the pools",
    }
    missing = replace(later, **{name: None})
    found = [chapter.title for chapter in made(storage, missing)]
    assert found == [title for title in TITLES if title != own.get(name)]
    assert name in own or name in alone or name == "acceptance"
    assert missing.ids != later.ids


def test_a_run_that_ends_with_the_ranking_has_no_chapters(storage: Storage) -> None:
    assert made(storage, Later()) == []
    assert Later().ids == []


def test_a_recipe_that_was_not_exported(storage: Storage, later: Later) -> None:
    assert later.recipe is not None
    forbidden = replace(later.recipe, path="", broken_policies=("nsfw is 0.5",))
    chapter = made(storage, Later(recipe=forbidden))[0]
    assert "not exported" in chapter.headline
    assert not any(isinstance(block, Listing) for block in chapter.blocks)


def test_a_choice_without_clusters_shows_what_it_has(storage: Storage, later: Later) -> None:
    assert later.metric_clusters is not None
    storage.write_json("runs/found/choice.json", {"chosen": ["a/high"]})
    bare = replace(later.metric_clusters, path="runs/found/choice.json", figure=None)
    assert made(storage, Later(metric_clusters=bare)) == []


def test_a_table_of_something_else_is_an_error(storage: Storage, later: Later) -> None:
    assert later.diversity is not None
    storage.write_bytes(later.diversity.path, b"pool,value\na/high,1\n")
    with pytest.raises(BadInput, match=r"diversity\.csv"):
        made(storage, later)


def test_shares_are_those_of_the_members_over_all_chunks() -> None:
    labels = ["a", "a", "b", "a", "c", "b"]
    masks = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=bool)
    chunks = [labels[:4], labels[4:]]
    names, shares = label_shares(chunks, [masks[:, :4], masks[:, 4:]])
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [0, 0.5, 0.5], [0, 0, 0]])


def test_labels_that_a_sample_lacks_are_counted_as_such() -> None:
    meta = [[json.dumps({"k": True}), json.dumps({})], [json.dumps({"k": "x"})]]
    assert list(read_labels(meta, "k")) == [["True", "(none)"], ["x"]]
