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
from djsandbox_ray.errors import BadInput, PlanRefused
from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.trial_records import TrialStore
from djsandbox_ray.workflows.foresight.plan import check_budget, make_plan, plan_table
from djsandbox_ray.workflows.language.workflow import configured_workflow
from djsandbox_ray.workflows.run import open_context
from djsandbox_ray.workflows.runner import run_workflow

BEFORE = [
    {"id": "data", "hook": "planned_hooks:Data"},
    {"id": "trusted", "hook": "planned_hooks:Trusted"},
    {"id": "numbers", "hook": "planned_hooks:NoStatistics"},
    {"id": "cut", "hook": "planned_hooks:SomePools", "with": {"dataset": "${data.output}"}},
]
INPUTS = {
    "dataset": "${data.output}",
    "evaluation": "${trusted.output}",
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


def trials(hook: str = "train") -> list[dict[str, Any]]:
    return [*BEFORE, {"id": "train", "hook": hook, "with": INPUTS}]


SECOND_LOOK = [
    {
        "id": "ranks",
        "hook": "judge",
        "with": {"pools": "${cut.output}", "trials": "${train.output}"},
    },
    {
        "id": "again",
        "hook": "confirmation_pools",
        "with": {"pools": "${cut.output}", "ranking": "${ranks.output}"},
    },
    {
        "id": "look",
        "hook": "train",
        "with": {**INPUTS, "pools": "${again.output}"},
    },
]
PYRAMID = {**INPUTS, "pools": "${pyramid.output}"}
SECOND = {**PYRAMID, "ranking": None, "first": "${train.output}"}


def longer(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a workflow that trains in every way; a job chooses what is combined."""
    both = {"pools": "${cut.output}", "choice": "${choice.output}"}
    both["statistics"] = "${numbers.output}"
    scaling = {**PYRAMID, "ranking": None, "budgets": [0.5, 2.0], "arms": 4}
    search = {
        **INPUTS,
        "statistics": both["statistics"],
        "choice": "${choice.output}",
        "ranking": "${ranks.output}",
    }
    search |= {"first": "${train.output}", "proposals": 3, "seeds": 2}
    lookup = {"pools": "${cut.output}", "trials": "${train.output}"}
    return [
        *BEFORE,
        {"id": "choice", **choice},
        {"id": "pyramid", "hook": "combine", "with": {**both, "minimum": 10}},
        {"id": "train", "hook": "train", "with": INPUTS},
        {"id": "ranks", "hook": "judge", "with": lookup},
        {"id": "combined", "hook": "train", "with": PYRAMID},
        {"id": "repeated", "hook": "repetition", "with": {**SECOND, "factors": [3, 1, 3]}},
        {"id": "scaled", "hook": "scaling", "with": scaling},
        {"id": "searched", "hook": "search", "with": search},
    ]


def chosen(*names: str) -> dict[str, Any]:
    given = {"pools": "${cut.output}", "names": list(names)}
    return {"hook": "planned_hooks:Chosen", "with": given}


def changed(config: RunConfig, **sections: Any) -> RunConfig:
    return RunConfig.model_validate({**config.model_dump(mode="json", by_alias=True), **sections})


def counts(made: dict[str, Any]) -> dict[str, tuple[int, int | None]]:
    return {stage["job"]: (stage["trials"], stage["samples"]) for stage in made["stages"]}


def do_before(config: MakeConfig, jobs: list[dict[str, Any]] = BEFORE) -> None:
    """Run all jobs up to the trials."""
    made = config(jobs)
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


@pytest.mark.parametrize("hook", ["train", "planned_hooks:MyTrials"])
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
        "from": ["data", "trusted", "cut"],
        "parameters": {},
        "changed": [],
    }
    assert made["stages"] == [{"job": "train", "trials": 20, "samples": 2000, "unknown": ""}]
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
    assert made["stages"] == []


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
    planned = changed(
        config([*trials(), *SECOND_LOOK]),
        confirm={"top": 2, "controls": 5, "seeds": 3},
        cost={"full_trainings": 5, "full_samples": 1000},
    )
    made = make_plan(planned)
    assert made["confirmation_trials"] == (2 + 5) * 3
    assert made["cost"]["m"] == 26 + 21
    assert made["cost"]["r"] == pytest.approx(0.1)
    assert made["cost"]["spent"] == pytest.approx(1 + 47 * 0.1)
    assert made["cost"]["allowed"] is False
    with pytest.raises(PlanRefused, match="m = 47 trials"):
        check_budget(planned, over_budget=False)
    check_budget(planned, over_budget=True)


def test_before_anything_is_done_every_statistic_may_be_combined(config: MakeConfig) -> None:
    made = make_plan(config(longer(chosen("length/low"))))
    assert counts(made) == {
        "train": (26, 2600),
        # Two statistics: 3 combinations and 5 controls, with two seeds each.
        "combined": (16, 1600),
        # Three strategies, two factors, two seeds; of 10 rows a third is in a pool, 2 in a draw.
        "repeated": (12, 3 * 2 * (1 + 3) * 2),
        "scaled": (20, 5 * 2 * (50 + 200)),
        # Three proposals of two seeds; the best and at most 8 controls with two seeds.
        "searched": (6 + 18, 2400),
    }
    assert made["samples_to_train"] == 2600 + 1600 + 48 + 2500 + 2400
    assert made["flops_to_train"] == 2.5 * made["samples_to_train"]
    assert (made["trials"], made["confirmation_trials"]) == (26, 0)


def test_what_is_there_already_makes_the_bounds_smaller(config: MakeConfig) -> None:
    jobs = longer(chosen("length/low"))
    do_before(config, jobs[:6])
    made = make_plan(config(jobs))
    # One combination, 5 controls; draws of half a bucket of 133 rows, and of the combination.
    assert counts(made) == {
        "train": (20, 2000),
        "combined": (12, 1200),
        "repeated": (12, 3 * 2 * (1 + 3) * 66),
        "scaled": (20, 2500),
        "searched": (24, 2400),
    }


def test_where_nothing_was_chosen_nothing_is_combined(config: MakeConfig) -> None:
    jobs = longer(chosen())
    do_before(config, jobs[:6])
    assert counts(make_plan(config(jobs))).keys() == {"train", "searched"}


def test_a_choice_of_the_best_takes_no_more_than_it_is_told(config: MakeConfig) -> None:
    best = {"pools": "${cut.output}", "ranking": "${ranks.output}", "confirmation": None, "top": 1}
    *before, choice, pyramid, train, ranks = longer({"hook": "top_k", "with": best})[:8]
    jobs = [*before, train, ranks, choice, pyramid, *longer({})[8:9]]
    assert counts(make_plan(config(jobs)))["combined"] == (2 * (1 + 5), 1200)


def test_the_cost_is_that_of_all_samples_however_long_the_trials_are(config: MakeConfig) -> None:
    jobs = longer(chosen("length/low"))
    dear = changed(config(jobs), cost={"full_trainings": 10, "full_samples": 1000})
    made = make_plan(dear)
    samples = sum(stage["samples"] for stage in made["stages"])
    assert made["cost"]["m"] == sum(stage["trials"] for stage in made["stages"]) == 98
    assert 1 + samples / 1000 <= made["cost"]["spent"] <= 1 + samples / 1000 + 0.1
    with pytest.raises(PlanRefused, match="m = 98 trials"):
        check_budget(dear, over_budget=False)
    check_budget(changed(dear, cost={"full_trainings": 11, "full_samples": 1000}), False)


def test_controls_that_are_trained_first_are_counted_once(config: MakeConfig) -> None:
    noise = {"id": "noise", "hook": "noise", "with": INPUTS}
    assert counts(make_plan(config([*BEFORE, noise]))) == {"noise": (10, 1000)}
    assert counts(make_plan(config([*trials(), noise]))) == {"train": (26, 2600)}


def test_what_cannot_be_counted_yet_is_said_and_refused(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("{}")
    jobs = longer(chosen("length/low"))
    data = {"type": "jsonl", "path": str(tmp_path / "data.jsonl")}
    cost = {"full_trainings": 1000, "full_samples": 1000}
    planned = changed(config(jobs), dataset=data, cost=cost)
    made = make_plan(planned)
    assert counts(made)["repeated"] == (12, None)
    assert made["cost"]["allowed"] is False
    json.dumps(made, allow_nan=False)
    console = Console(file=StringIO(), width=200)
    console.print(plan_table(made))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "to train on, less what early stopping saves, and what is not known yet" in shown
    assert "  repeated  to do  12 trials  how many rows a trial draws is not known" in shown
    with pytest.raises(PlanRefused, match="cannot be bounded: repeated: how many rows a trial"):
        check_budget(planned, over_budget=False)
    check_budget(planned, over_budget=True)
    check_budget(changed(planned, pools={"size": 100}), over_budget=False)


def test_a_number_that_a_job_has_yet_to_find_is_not_known(config: MakeConfig) -> None:
    jobs = longer(chosen("length/low"))
    jobs[7:7] = [{"id": "measure", "hook": "planned_hooks:Measured"}]
    (repeated,) = [job for job in jobs if job["id"] == "repeated"]
    repeated["with"] |= {"unit": "${measure.output.rows}"}
    (stage,) = [s for s in make_plan(config(jobs))["stages"] if s["job"] == "repeated"]
    assert stage["unknown"] == "its unit is not known before 'measure' has run"
    assert stage["samples"] is None
    do_before(config, jobs[:8][-1:])
    assert counts(make_plan(config(jobs)))["repeated"] == (12, 3 * 2 * (1 + 3) * 7)


def test_parameters_that_no_training_could_use_are_found_by_the_plan(config: MakeConfig) -> None:
    jobs = longer(chosen("length/low"))
    (scaled,) = [job for job in jobs if job["id"] == "scaled"]
    scaled["with"] |= {"budgets": [0.0]}
    with pytest.raises(BadInput, match="scaling: budgets are"):
        make_plan(config(jobs))


def test_pools_of_builders_are_counted_where_their_number_is_known(config: MakeConfig) -> None:
    extra = [{"type": "range", "name": "short", "statistic": "text_len", "high": 5}]
    made = make_plan(changed(config(trials()), pools={"extra": extra}))
    assert made["pools"] == 2 * 3 + 1 + 5 + 2
    assert made["stages"][0]["unknown"] == ""


def test_rounds_may_cost_as_much_as_the_first_each(config: MakeConfig) -> None:
    made_of = config(trials()).model_dump(mode="json", by_alias=True)
    repeat = {
        "until": ["cut.size > 1e9"],
        "most": 3,
        "update": {"pools.seed": "${cut.output.seed}"},
    }
    workflow = {"jobs": trials(), "repeat": repeat}
    cost = {"full_trainings": 100, "full_samples": 1000}
    planned = RunConfig.model_validate({**made_of, "workflow": workflow, "cost": cost})
    assert make_plan(planned)["cost"]["m"] == 3 * 26
    do_before(lambda jobs: changed(planned, workflow={"jobs": jobs}))
    made = make_plan(planned)
    assert made["trials"] == 20
    assert made["cost"]["m"] == 20 + 2 * 26, "of further rounds nothing is known"


def test_the_table_has_a_line_for_every_job_that_trains(config: MakeConfig) -> None:
    do_before(config)
    console = Console(file=StringIO(), width=100)
    console.print(plan_table(make_plan(config(longer(chosen("length/low"))))))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    start = lines.index("jobs that train, with what each takes at most:")
    assert lines[start + 1] == "  train     to do  20 trials  2,000 samples"
    assert lines[start + 4] == "  scaled    to do  20 trials  2,500 samples"
