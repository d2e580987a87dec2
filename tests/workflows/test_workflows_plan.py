from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import PlanRefused
from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.reporting import Progress
from djsandbox_ray.storage import Storage
from djsandbox_ray.trials.store import TrialStore
from djsandbox_ray.workflows.plan import check_budget, make_plan, plan_table
from djsandbox_ray.workflows.run import open_context
from djsandbox_ray.workflows.runner import run_workflow
from djsandbox_ray.workflows.workflow import configured_workflow

BEFORE = [
    {"id": "data", "hook": "planned_hooks:Data"},
    {"id": "trusted", "hook": "planned_hooks:Trusted"},
    {"id": "numbers", "hook": "planned_hooks:NoStatistics"},
    {"id": "cut", "hook": "planned_hooks:SomePools", "with": {"dataset": "${data.output}"}},
]
INPUTS = {
    "dataset": "${data.output}",
    "evaluation": "${trusted.output}",
    "statistics": "${numbers.output}",
    "pools": "${cut.output}",
}

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def config(tmp_path: Path, storage: Storage) -> MakeConfig:
    def make(jobs: list[dict[str, Any]], family: str = "Counted", **changes: Any) -> RunConfig:
        path = tmp_path / f"workflow-{len(jobs)}.yaml"
        path.write_text(yaml.safe_dump({"jobs": jobs}))
        shapes = {"type": "shapes", "samples": 10}
        trials = {"model": {"type": f"planned_hooks:{family}"}, "budget": 100, "seeds": 2}
        return RunConfig.model_validate(
            {
                "name": "test",
                "storage": storage.url,
                "dataset": shapes,
                "operators": ["text_length_filter", "words_num_filter"],
                "trials": {**trials, **changes},
                "evaluation": {
                    "dataset": shapes,
                    "metrics": [{"type": "planned_hooks:Measure"}],
                },
                "confirm": {"top": 0},
                "tracking": {"type": "none"},
                "workflow": str(path),
            }
        )

    return make


def trials(hook: str = "trials") -> list[dict[str, Any]]:
    return [*BEFORE, {"id": "train", "hook": hook, "with": INPUTS}]


def do_before(config: MakeConfig) -> None:
    """Run all jobs up to the trials."""
    made = config(BEFORE)
    context = open_context(made, Progress(Console(file=StringIO())))
    run_workflow(configured_workflow(made), context, lambda output: None)


def everything(storage: Storage) -> dict[Path, bytes | None]:
    paths = Path(storage.url).rglob("*")
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def test_before_anything_is_done_the_plan_is_an_upper_bound(
    config: MakeConfig, storage: Storage
) -> None:
    made = make_plan(config(trials()))
    assert made["exact"] is False
    assert made["pools"] == 2 * 3 + 5 + 2
    assert made["trials"] == made["trials_to_run"] == 2 * 13
    assert made["samples_to_train"] == 2600
    assert made["flops_to_train"] == 2600 * 2.5
    assert [job["done"] for job in made["jobs"]] == [False] * 5
    assert not Path(storage.url).exists()


@pytest.mark.parametrize("hook", ["trials", "planned_hooks:MyTrials"])
def test_once_there_are_pools_the_plan_is_exact_whatever_the_jobs_are_called(
    config: MakeConfig, storage: Storage, hook: str
) -> None:
    do_before(config)
    before = everything(storage)
    made = make_plan(config(trials(hook)))
    assert everything(storage) == before  # nothing is written
    assert made["exact"] is True
    assert made["pools"] == 3 + 5 + 2  # the constant statistic has no pools
    assert made["trials"] == made["trials_to_run"] == len(made["trial_list"]) == 20
    assert {trial["pool"] for trial in made["trial_list"]} >= {"length/low", "control/0"}
    assert not any(trial["cached"] for trial in made["trial_list"])
    assert {job["job"]: job["done"] for job in made["jobs"]} == {
        **{job["id"]: True for job in BEFORE},
        "train": False,
    }
    assert made["jobs"][-1] == {
        "job": "train",
        "done": False,
        "hook": hook,
        "takes": INPUTS,
        "from": ["data", "trusted", "cut", "numbers"],
        "parameters": {},
        "changed": [],
    }
    json.dumps(made, allow_nan=False)


def test_trials_that_any_run_has_completed_cost_nothing(
    config: MakeConfig, storage: Storage
) -> None:
    do_before(config)
    first, second, third, *_ = make_plan(config(trials()))["trial_list"]
    report = RungReport(100, 1.0, {"m": 1.0}, 1.0, 1.0, 1)
    for trial, state in ((first, "COMPLETED"), (second, "FAILED"), (third, "RUNNING")):
        spec = TrialSpec(trial["trial"], trial["pool"], trial["seed"], "hash", 100)
        TrialStore(storage).save(TrialRecord(spec, TrialState(state), (report,)))
    made = make_plan(config(trials()))
    assert [trial["cached"] for trial in made["trial_list"][:3]] == [True, False, False]
    assert made["trials"] == 20
    assert made["trials_to_run"] == 19
    assert made["samples_to_train"] == 1900


@pytest.mark.parametrize("changes", [{"budget": 200}, {"family": "Family"}])
def test_other_trials_are_not_in_the_cache(
    config: MakeConfig, storage: Storage, changes: dict[str, Any]
) -> None:
    do_before(config)
    known = {trial["trial"] for trial in make_plan(config(trials()))["trial_list"]}
    other = {trial["trial"] for trial in make_plan(config(trials(), **changes))["trial_list"]}
    assert len(known) == len(other) == 20
    assert not known & other


def test_a_workflow_without_trials_trains_nothing(config: MakeConfig) -> None:
    made = make_plan(config(BEFORE))
    assert made["exact"] is True
    assert (made["pools"], made["trials"], made["samples_to_train"]) == (0, 0, 0)


def test_a_family_that_cannot_count_says_so(config: MakeConfig) -> None:
    made = make_plan(config(trials(), family="Family"))
    assert made["flops_to_train"] is None
    console = Console(file=StringIO(), width=100)
    console.print(plan_table(made))
    assert "compute not counted" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_says_what_is_done(config: MakeConfig) -> None:
    do_before(config)
    console = Console(file=StringIO(), width=100)
    console.print(plan_table(make_plan(config(trials()))))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "pools   10, controls and self-tests included" in lines
    assert any("cut      done" in line for line in lines)
    assert any("train    to do" in line for line in lines)


def test_a_plan_counts_the_second_look_and_what_it_costs_in_full_trainings(
    config: MakeConfig, storage: Storage
) -> None:
    made_of = config(trials()).model_dump(mode="json", by_alias=True)
    made_of |= {"confirm": {"top": 2, "controls": 5, "seeds": 3}}
    made_of |= {"cost": {"full_trainings": 5, "full_samples": 1000}}
    planned = RunConfig.model_validate(made_of)
    made = make_plan(planned)
    assert made["confirmation_trials"] == (2 + 5) * 3
    assert made["cost"]["m"] == 26 + 21
    assert made["cost"]["r"] == pytest.approx(0.1)
    assert made["cost"]["spent"] == pytest.approx(1 + 47 * 0.1)
    assert made["cost"]["allowed"] is False
    with pytest.raises(PlanRefused, match="m = 47 trials"):
        check_budget(planned, over_budget=False)
    check_budget(planned, over_budget=True)
