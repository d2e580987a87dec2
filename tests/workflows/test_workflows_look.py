"""``djsandbox report``: what a run has found, told again."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from found_outputs import found_outputs
from rich.console import Console

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.language.parameters import as_data
from djsandbox_ray.workflows.look import main_ranking, show_report, summary_of

HOOKS = {
    "ranking": "judge",
    "combination_ranking": "judge",
    "interactions": "interactions",
    "recipe": "recipe",
    "acceptance": "accept",
    "insights": "insights",
}


@pytest.fixture
def run(opened: Callable[..., Context]) -> FinishedRun:
    context = opened(name="found")
    storage = context.storage
    outputs = found_outputs(storage, "runs/found")
    for job, hook in HOOKS.items():
        marker = {"output": as_data(outputs[job]), "cost": {"hook": hook}}
        storage.write_sealed(f"runs/found/jobs/{job}.json", marker)
    config = yaml.safe_dump(context.config.model_dump(mode="json"))
    storage.write_bytes("runs/found/config.yaml", config.encode())
    return FinishedRun(storage, "found")


def shown(run: FinishedRun, **options: Any) -> str:
    out = io.StringIO()
    arguments = {"summary": False, **options}
    show_report(run.name, run.storage.url, console=Console(file=out, width=160), **arguments)
    return out.getvalue()


def test_it_says_what_the_run_said_at_its_end(run: FinishedRun) -> None:
    text = shown(run)
    assert "Of 2 pools: 1 better, 0 worse, 1 undecided." in text
    assert "Combinations of pools, all at one size" in text
    assert "The recipe keeps 25.0 % of the rows" in text
    assert "/runs/found/insights.md" in text


def test_in_one_line(run: FinishedRun) -> None:
    text = shown(run, summary=True)
    assert text.count("\n") == 1
    assert text.startswith("found: perhaps keep a/high: +20.00 % [+14.00, +26.00], seen once.")
    assert text.strip() == summary_of(run)


def test_records_of_the_same_fields_are_told_apart(run: FinishedRun) -> None:
    """Insights, ledgers and others have nothing but an id and a path."""
    found = main_ranking(run)
    assert found is not None
    assert found.id == "ranking-1"


def test_what_has_found_nothing_says_so(run: FinishedRun) -> None:
    for job in HOOKS:
        run.storage.remove(f"runs/found/jobs/{job}.json")
    for summary in (False, True):
        with pytest.raises(SandboxError, match="the run 'found' has found nothing yet"):
            shown(run, summary=summary)


def test_there_must_be_such_a_run(run: FinishedRun) -> None:
    with pytest.raises(BadInput, match=r"no run 'other' in .* \(there are: found\)"):
        show_report("other", run.storage.url, False, Console(quiet=True))
