"""What a run prints at its end."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from found_outputs import found_outputs
from rich.console import Console

from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.records import Report
from djsandbox_ray.workflows.ending import print_results

Print = Callable[..., str]


@pytest.fixture
def context(opened: Callable[..., Context]) -> Context:
    return opened(name="found")


@pytest.fixture
def outputs(context: Context) -> dict[str, Any]:
    return found_outputs(context.storage, "runs/found")


@pytest.fixture
def printed(context: Context) -> Print:
    def show(outputs: dict[str, Any], unsent: int = 0) -> str:
        out = io.StringIO()
        print_results(Console(file=out, width=160), context.config, context, outputs, unsent)
        return out.getvalue()

    return show


def test_the_main_table_is_that_of_single_operators(printed: Print, outputs) -> None:
    text = printed(outputs)
    first, _, second = text.partition("Combinations of pools, all at one size")
    assert "b/low" in first
    assert "a/high&b/low" not in first
    assert "a/high&b/low" in second
    # Only the first ranking has self-tests and a tally.
    assert text.count("Of 2 pools: 1 better, 0 worse, 1 undecided.") == 1
    assert text.count("This ranking has no self-tests.") == 1
    reverse = dict(reversed(outputs.items()))
    assert printed(reverse).partition("Combinations of pools")[0] == first


def test_what_followed_is_said_with_its_numbers_and_places(printed: Print, outputs) -> None:
    text = printed(outputs)
    assert "The strongest interaction of two pools: a/high & b/low help each other." in text
    assert "The recipe keeps 25.0 % of the rows" in text
    assert "accepted: Data-Juicer keeps the same 1,000 of 4,000 rows" in text
    assert "/runs/found/recipes/found.yaml" in text
    assert "/runs/found/insights.md" in text


def test_a_recipe_that_was_not_tried_or_not_exported(printed: Print, outputs) -> None:
    alone = {"recipe": outputs["recipe"]}
    assert "not yet accepted" in printed(alone)
    forbidden = replace(outputs["recipe"], path="", broken_policies=("nsfw",))
    text = printed({"recipe": forbidden})
    assert "not exported, because it breaks a policy" in text
    assert "recipes/found.evidence.json" in text
    assert "found.yaml" not in text


def test_an_acceptance_is_that_of_the_recipe_that_it_names(
    printed: Print, outputs, context: Context
) -> None:
    context.storage.write_json(outputs["acceptance"].path, {"recipe": "another.yaml"})
    assert "not yet accepted" in printed(outputs)


def test_a_run_with_nothing_but_a_ranking_says_nothing_else(printed: Print, outputs) -> None:
    text = printed({"ranking": outputs["ranking"], "confirmation": None})
    assert "a/high" in text
    for word in ("Combinations", "recipe", "insights", "interaction"):
        assert word not in text


def test_what_could_not_be_sent_and_how_to_send_it(printed: Print) -> None:
    text = printed({}, 3)
    assert "3 records could not be sent" in text
    assert "djsandbox sync found --storage" in text
    assert "could not be sent" not in printed({})


def test_the_answer_comes_last(printed: Print, outputs) -> None:
    answer = (("keep", "Keep it all."), ("next", "the recipe: djsandbox recipe found"))
    report = Report("report-1", "runs/found/report.html", "runs/found/r.png", (), answer)
    text = printed({**outputs, "report": report}, 3)
    assert text.endswith("keep   Keep it all.\nnext   the recipe: djsandbox recipe found\n")
    assert text.index("could not be sent") < text.index("Keep it all")
    long = (("keep", "word " * 50), ("next", "why: " + "command " * 50))
    lines = printed({"report": replace(report, answer=long)}).splitlines()
    assert [line[:11] for line in lines[-3:]] == ["keep   word", "       word", "next   why:"]
    assert len(lines[-1]) > 160
    before = printed({"report": replace(report, answer=())})  # as earlier versions wrote them
    assert before.rstrip().endswith("r.png")
