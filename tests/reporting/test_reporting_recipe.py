from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from html_page import HOSTILE, Page

from djsandbox_ray.records import Acceptance, Recipe
from djsandbox_ray.reporting.blocks import Listing, Sentences
from djsandbox_ray.reporting.page import report_html
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.recipe import recipe_chapter, recipe_line

RECIPE = Recipe(
    "recipe-1", "recipes/demo.yaml", "recipes/demo.evidence.json", 0.25, 0.5, confirmed=True
)
ACCEPTED = Acceptance("acceptance-1", "acceptance.json", 4000, 1000, 0)


@pytest.fixture
def evidence() -> dict[str, Any]:
    return {
        "dataset": {"id": "dataset-1", "rows": 4000},
        "thresholds": {"source": "model_feedback on a/high"},
        "pool": {"id": "a/high"},
        "effect": {
            "first": {"change": 0.6, "interval": [0.4, 0.8], "verdict": "better", "seeds": 3},
            "confirmed": {"change": 0.5, "interval": [None, None], "verdict": "better", "seeds": 1},
            "combination": None,
        },
        "retention": {
            "rows": 1000,
            "ranges": [{"statistic": "a", "low": 0.125, "high": None, "rows": 1000}],
        },
        "caveats": ["It is open to one side."],
    }


def test_a_line_says_what_became_of_it():
    line = recipe_line(RECIPE, ACCEPTED, Unit.PERCENT)
    assert line == (
        "The recipe keeps 25.0 % of the rows; the effect of the pool behind it, confirmed: "
        "+50.00 %; "
        "accepted: Data-Juicer keeps the same 1,000 of 4,000 rows that it was tried on."
    )
    once = replace(RECIPE, confirmed=False)
    assert "behind it, not confirmed by a second look: +50" in recipe_line(once, None, Unit.PERCENT)
    assert "not yet accepted" in recipe_line(RECIPE, None, Unit.PERCENT)
    differing = recipe_line(RECIPE, replace(ACCEPTED, differing=7), Unit.PERCENT)
    assert "NOT accepted: Data-Juicer decides otherwise on 7 rows" in differing
    several = recipe_line(RECIPE, replace(ACCEPTED, several=5), Unit.PERCENT)
    assert "the same ones but for 5 of which their values say so" in several
    unmeasured = recipe_line(replace(RECIPE, effect=math.nan), ACCEPTED, Unit.SD)
    assert "its effect was not measured" in unmeasured
    assert "nan" not in unmeasured
    forbidden = replace(RECIPE, path="", broken_policies=("mean of nsfw is 0.5, not below 0.1",))
    assert "not exported, because it breaks a policy" in recipe_line(forbidden, None, Unit.SD)


def test_the_chapter_holds_the_file_and_its_evidence(evidence):
    chapter = recipe_chapter(RECIPE, "process:\n  - a:\n", evidence, ACCEPTED, Unit.PERCENT)
    assert chapter.headline == chapter.lines[0] == recipe_line(RECIPE, ACCEPTED, Unit.PERCENT)
    ranges, effects, file, caveats = chapter.blocks
    assert ranges.rows == [["a", "0.125", "-", "1,000"]]
    assert effects.title == "Measured on a/high"
    assert effects.rows == [
        ["single operators", "+60.00", "+40.00 .. +80.00", "better", "3"],
        ["confirmation, with fresh seeds", "+50.00", "-", "better", "1"],
    ]
    assert isinstance(file, Listing)
    assert file.text == "process:\n  - a:\n"
    assert caveats == Sentences("Caveats", ["It is open to one side."])


def test_a_recipe_that_nothing_was_trained_for(evidence):
    nothing = dict.fromkeys(("first", "confirmed", "combination"))
    bare = evidence | {"pool": None, "effect": nothing, "caveats": []}
    chapter = recipe_chapter(
        replace(RECIPE, effect=math.nan), "process: []", bare, None, Unit.PERCENT
    )
    assert [type(block).__name__ for block in chapter.blocks] == ["ReportTable", "Listing"]


def test_a_recipe_that_breaks_a_policy_has_no_file_but_the_reason(evidence):
    forbidden = replace(RECIPE, path="", broken_policies=("mean of nsfw is 0.5",))
    chapter = recipe_chapter(forbidden, "", evidence, None, Unit.PERCENT)
    assert not any(isinstance(block, Listing) for block in chapter.blocks)
    assert "It breaks a policy: mean of nsfw is 0.5." in chapter.lines


def test_no_text_of_it_is_taken_for_html(evidence):
    evidence["caveats"] = [HOSTILE]
    evidence["pool"]["id"] = evidence["dataset"]["id"] = HOSTILE
    evidence["retention"]["ranges"][0]["statistic"] = HOSTILE
    recipe = replace(RECIPE, path=HOSTILE)
    chapter = recipe_chapter(recipe, HOSTILE, evidence, None, Unit.SD)
    page = Page(report_html("demo", [], chapters=[chapter]))
    assert page.tags.count("script") == 1, "the page's own"
    assert sum(HOSTILE in text for text in page.texts) == 6
