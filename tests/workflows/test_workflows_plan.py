from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_hooks import job, out

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, PlanRefused
from djsandbox_ray.records import (
    Dataset,
    RungReport,
    Statistics,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.trial_records import TrialStore
from djsandbox_ray.workflows.foresight.api_requests import asking
from djsandbox_ray.workflows.foresight.plan import check_budget, make_plan, plan_table
from djsandbox_ray.workflows.language.workflow import configured_workflow
from djsandbox_ray.workflows.opened import open_context
from djsandbox_ray.workflows.run import run_sandbox
from djsandbox_ray.workflows.runner import run_workflow

BEFORE = [
    job("dataset", "planned_hooks:Data"),
    job("evaluation", "planned_hooks:Trusted"),
    job("statistics", "planned_hooks:NoStatistics"),
    job("pools", "planned_hooks:SomePools"),
]
TRIALS = [*BEFORE, job("trials", "train")]
SECOND_LOOK = [
    job("ranking", "judge"),
    job("again", "confirmation_pools"),
    job("look", "train", pools="again"),
]
MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def config(configure: MakeConfig) -> MakeConfig:
    def make(jobs: list[dict[str, Any]], family: str = "Counted", **changes: Any) -> RunConfig:
        trials = {"model": {"type": f"planned_hooks:{family}"}, "budget": 100, "seeds": 2}
        dataset = {"type": "shapes", "samples": 10}
        return configure(
            operators=["text_length_filter", "words_num_filter"],
            trials={**trials, **changes},
            evaluation={"dataset": dataset, "metrics": [{"type": "planned_hooks:Measure"}]},
            confirm={"top": 0},
            workflow={"jobs": jobs},
        )

    return make


def longer(hook: str, **given: Any) -> list[dict[str, Any]]:
    """Return a workflow that trains in every way; a job chooses what is combined."""
    scaling = {"ranking": None, "budgets": [0.5, 2.0], "arms": 4}
    return [
        *BEFORE,
        job("choice", hook, given),
        job("pyramid", "combine", {"minimum": 10}, choice="choice"),
        job("trials", "train"),
        job("ranking", "judge"),
        job("combined", "train", pools="pyramid"),
        job(
            "repeated",
            "repetition",
            {"ranking": None, "factors": [3, 1, 3]},
            pools="pyramid",
            first="trials",
        ),
        job("scaled", "scaling", scaling, pools="pyramid"),
        job("searched", "search", {"proposals": 3, "seeds": 2}, first="trials"),
    ]


def chosen(*names: str) -> list[dict[str, Any]]:
    return longer("planned_hooks:Chosen", names=list(names))


def shown(made: dict[str, Any]) -> list[str]:
    console = Console(file=StringIO(), width=200)
    console.print(plan_table(made))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


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
    made = make_plan(config(TRIALS))
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
    named = {"dataset": "data", "evaluation": "trusted", "statistics": "numbers", "pools": "cut"}
    jobs = [{**item, "id": named[item["id"]]} for item in BEFORE[:3]]
    jobs += [job("cut", "planned_hooks:SomePools", dataset="data")]
    do_before(config, jobs)
    before = everything(storage)
    taken = {name: source for name, source in named.items() if name != "statistics"}
    made = make_plan(config([*jobs, job("train", hook, **taken)]))
    assert everything(storage) == before  # nothing is written
    assert made["exact"] is True
    assert made["pools"] == 3 + 5 + 2  # the constant statistic has no pools
    assert made["trials"] == made["trials_to_run"] == len(made["trial_list"]) == 20
    assert {trial["pool"] for trial in made["trial_list"]} >= {"length/low", "control/0"}
    assert not any(trial["cached"] for trial in made["trial_list"])
    assert {job["job"]: job["done"] for job in made["jobs"]} == {
        **dict.fromkeys(named.values(), True),
        "train": False,
    }
    assert made["jobs"][-1] == {
        "job": "train",
        "done": False,
        "hook": hook,
        "takes": {name: out(source) for name, source in taken.items()},
        "from": list(taken.values()),
        "parameters": {},
        "changed": [],
    }
    assert made["stages"] == [
        {"job": "train", "trials": 20, "samples": 2000, "unknown": "", "parts": []}
    ]
    json.dumps(made, allow_nan=False)


def test_trials_that_any_run_has_completed_cost_nothing(
    config: MakeConfig, storage: Storage
) -> None:
    do_before(config)
    first, second, third, *_ = make_plan(config(TRIALS))["trial_list"]
    report = RungReport(100, 1.0, {"m": 1.0}, 1.0, 1.0, 1)
    assert make_plan(config(TRIALS))["measured"] is None
    for trial, state in ((first, "COMPLETED"), (second, "FAILED"), (third, "RUNNING")):
        spec = TrialSpec(trial["trial"], trial["pool"], trial["seed"], "hash", 100)
        record = TrialRecord(spec, TrialState(state), (report,), held_seconds=36.0)
        TrialStore(storage).save(record)
    made = make_plan(config(TRIALS))
    # 0.36 s a sample of the one that is done.
    assert made["measured"] == {"trials": 1, "cpus": pytest.approx(1900 * 0.36 / 3600)}
    said = "time    11 CPU-minutes of training and evaluation, as the trials that are done took (1)"
    assert said in shown(made)
    assert [trial["cached"] for trial in made["trial_list"][:3]] == [True, False, False]
    assert made["trials"] == 20
    assert made["trials_to_run"] == 19
    assert made["samples_to_train"] == 1900


@pytest.mark.parametrize(
    "changes", [{"budget": 200}, {"family": "Family"}, {"resources": {"gpus_per_worker": 0.5}}]
)
def test_other_trials_are_not_in_the_cache(
    config: MakeConfig, storage: Storage, changes: dict[str, Any]
) -> None:
    do_before(config)
    known = {trial["trial"] for trial in make_plan(config(TRIALS))["trial_list"]}
    other = {trial["trial"] for trial in make_plan(config(TRIALS, **changes))["trial_list"]}
    assert len(known) == len(other) == 20
    assert not known & other


def test_a_workflow_without_trials_trains_nothing(config: MakeConfig) -> None:
    made = make_plan(config(BEFORE))
    assert made["exact"] is True
    assert (made["pools"], made["trials"], made["samples_to_train"]) == (0, 0, 0)
    assert made["stages"] == []


def test_what_trains_nothing_needs_neither_trials_nor_evaluation(config: MakeConfig) -> None:
    bare = changed(config(BEFORE), trials=None, evaluation=None, workflow="recipe_only")
    made = make_plan(bare)
    assert (made["pools"], made["trials"], made["samples_to_train"]) == (0, 0, 0)
    assert "trials  none: no job trains a model" in shown(made)
    check_budget(bare, over_budget=False)


@pytest.mark.parametrize("workflow", ["single_op", "probe_analyze_refine", {"jobs": TRIALS}])
def test_another_workflow_names_the_sections_that_it_lacks(
    config: MakeConfig, workflow: str | dict[str, Any]
) -> None:
    bare = changed(config(BEFORE), trials=None, evaluation=None, workflow=workflow)
    called = workflow if isinstance(workflow, str) else "of the configuration"
    with pytest.raises(BadInput, match=f"workflow {called}:") as caught:
        make_plan(bare)
    _, *lines = str(caught.value).split("\n")
    assert [line.strip().split(":")[0] for line in lines] == ["trials", "evaluation"]
    assert all("`workflow: recipe_only` does without" in line for line in lines)


def test_a_family_that_cannot_count_says_so(config: MakeConfig) -> None:
    made = make_plan(config(TRIALS, family="Family"))
    assert made["flops_to_train"] is None
    assert "compute not counted" in shown(made)


def test_a_run_is_planned_before_its_data_are_here(config: MakeConfig, tmp_path: Path) -> None:
    lost = {"type": "jsonl", "path": str(tmp_path / "lost.jsonl")}
    resources = {"gpus_per_worker": 0.5, "flops_per_second": 0.5}
    given = config(TRIALS, resources=resources)
    made = make_plan(changed(given, dataset=lost))
    (line,) = made["lacking"]
    assert line == f"dataset: path '{lost['path']}' does not exist"
    there = make_plan(given)
    assert there["lacking"] == []
    same = ("stages", "trials_to_run", "flops_to_train", "hours_to_train", "jobs")
    assert [made[name] for name in same] == [there[name] for name in same]
    hours = 2600 * 2.5 / 0.5 / 3600
    assert made["hours_to_train"] == {"workers": hours, "gpus": hours / 2}
    assert "time    2 GPU-hours of training, by trials.resources.flops_per_second" in shown(made)
    told = shown(made)
    assert told[told.index("not on this machine, and needed where it runs:") + 1] == f"  {line}"
    with pytest.raises(BadInput, match="does not exist"):
        run_sandbox(changed(given, dataset=lost), Console(file=StringIO()))


def test_what_is_stored_of_every_sample_is_told(config: MakeConfig, tmp_path: Path) -> None:
    assert make_plan(config(TRIALS))["stored"] is None
    given = config(TRIALS, family="Storing")
    made = make_plan(given)
    assert made["stored"] == {"samples": 10, "each": {"latents": 163_840, "prompts": 900}}
    end = "for at most 10 samples, once for all trials"
    assert f"stores  latents 1.64 MB, prompts 9 kB {end}" in shown(made)
    lost = {"type": "jsonl", "path": str(tmp_path / "lost.jsonl")}
    made = make_plan(changed(given, dataset=lost))
    assert made["stored"]["samples"] is None
    every = "for every sample, once for all trials"
    assert f"stores  latents 164 kB, prompts 900 B {every}" in shown(made)
    # A part of the data is said by the configuration, wherever they are.
    made = make_plan(changed(given, dataset={**lost, "rows": [0, 600]}))
    assert made["stored"]["samples"] == 600


def test_what_is_wrong_anywhere_is_an_error_of_the_plan(config: MakeConfig, tmp_path: Path) -> None:
    """What is not here is said with it."""
    lost = {"type": "jsonl", "path": str(tmp_path / "lost.jsonl")}
    wrong = changed(config(TRIALS), dataset=lost, workflow={"jobs": [job("a", "nosuch")]})
    with pytest.raises(BadInput, match="nosuch"):
        make_plan(wrong)


def test_the_table_says_what_is_done(config: MakeConfig) -> None:
    do_before(config)
    lines = shown(make_plan(config(TRIALS)))
    assert "pools   10, controls and self-tests included" in lines
    assert any(
        line.endswith("pools       done   planned_hooks:SomePools  <- dataset") for line in lines
    )
    assert any("trials      to do  train  <- dataset, evaluation, pools" in line for line in lines)


def test_a_plan_counts_the_second_look_and_what_it_costs_in_full_trainings(
    config: MakeConfig, storage: Storage
) -> None:
    planned = changed(
        config([*TRIALS, *SECOND_LOOK]),
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
    made = make_plan(config(chosen("length/low")))
    assert counts(made) == {
        "trials": (26, 2600),
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
    jobs = chosen("length/low")
    do_before(config, jobs[:6])
    made = make_plan(config(jobs))
    # One combination, 5 controls; draws of half a bucket of 133 rows, and of the combination.
    assert counts(made) == {
        "trials": (20, 2000),
        "combined": (12, 1200),
        "repeated": (12, 3 * 2 * (1 + 3) * 66),
        "scaled": (20, 2500),
        "searched": (24, 2400),
    }


def test_where_nothing_was_chosen_nothing_is_combined(config: MakeConfig) -> None:
    jobs = chosen()
    do_before(config, jobs[:6])
    assert counts(make_plan(config(jobs))).keys() == {"trials", "searched"}


def test_a_choice_of_the_best_takes_no_more_than_it_is_told(config: MakeConfig) -> None:
    *before, choice, pyramid, train, ranks, combined = longer("top_k", confirmation=None, top=1)[:9]
    jobs = [*before, train, ranks, choice, pyramid, combined]
    assert counts(make_plan(config(jobs)))["combined"] == (2 * (1 + 5), 1200)


def test_the_cost_is_that_of_all_samples_however_long_the_trials_are(config: MakeConfig) -> None:
    jobs = chosen("length/low")
    dear = changed(config(jobs), cost={"full_trainings": 10, "full_samples": 1000})
    made = make_plan(dear)
    samples = sum(stage["samples"] for stage in made["stages"])
    assert made["cost"]["m"] == sum(stage["trials"] for stage in made["stages"]) == 98
    assert 1 + samples / 1000 <= made["cost"]["spent"] <= 1 + samples / 1000 + 0.1
    with pytest.raises(PlanRefused, match="m = 98 trials"):
        check_budget(dear, over_budget=False)
    check_budget(changed(dear, cost={"full_trainings": 11, "full_samples": 1000}), False)


def test_controls_that_are_trained_first_are_counted_once(config: MakeConfig) -> None:
    noise = job("noise", "noise")
    assert counts(make_plan(config([*BEFORE, noise]))) == {"noise": (10, 1000)}
    assert counts(make_plan(config([*TRIALS, noise]))) == {"trials": (26, 2600)}


def test_what_cannot_be_counted_yet_is_said_and_refused(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "0.ppm").write_bytes(b"P6 1 1 255\n\0\0\0")
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "a", "images": ["0.ppm"]}))
    jobs = chosen("length/low")
    data = {"type": "jsonl", "path": str(tmp_path / "data.jsonl")}
    cost = {"full_trainings": 1000, "full_samples": 1000}
    planned = changed(config(jobs), dataset=data, cost=cost)
    made = make_plan(planned)
    assert counts(made)["repeated"] == (12, None)
    assert made["cost"]["allowed"] is False
    json.dumps(made, allow_nan=False)
    told = "\n".join(shown(made))
    assert "to train on, less what early stopping saves, and what is not known yet" in told
    assert "  repeated  to do  12 trials  how many rows a trial draws is not known" in told
    with pytest.raises(PlanRefused, match="cannot be bounded: repeated: how many rows a trial"):
        check_budget(planned, over_budget=False)
    check_budget(planned, over_budget=True)
    check_budget(changed(planned, pools={"size": 100}), over_budget=False)


def test_a_number_that_a_job_has_yet_to_find_is_not_known(config: MakeConfig) -> None:
    jobs = chosen("length/low")
    jobs[7:7] = [job("measure", "planned_hooks:Measured")]
    (repeated,) = [job for job in jobs if job["id"] == "repeated"]
    repeated["with"] |= {"unit": out("measure", "rows")}
    (stage,) = [s for s in make_plan(config(jobs))["stages"] if s["job"] == "repeated"]
    assert stage["unknown"] == "its unit is not known before 'measure' has run"
    assert stage["samples"] is None
    do_before(config, jobs[:8][-1:])
    assert counts(make_plan(config(jobs)))["repeated"] == (12, 3 * 2 * (1 + 3) * 7)


def test_parameters_that_no_training_could_use_are_found_by_the_plan(config: MakeConfig) -> None:
    jobs = chosen("length/low")
    (scaled,) = [job for job in jobs if job["id"] == "scaled"]
    scaled["with"] |= {"budgets": [0.0]}
    with pytest.raises(BadInput, match="scaling: budgets are"):
        make_plan(config(jobs))


def test_pools_of_builders_are_counted_where_their_number_is_known(config: MakeConfig) -> None:
    extra = [{"type": "range", "name": "short", "statistic": "text_len", "high": 5}]
    made = make_plan(changed(config(TRIALS), pools={"extra": extra}))
    assert made["pools"] == 2 * 3 + 1 + 5 + 2
    assert made["stages"][0]["unknown"] == ""


def test_rounds_may_cost_as_much_as_the_first_each(config: MakeConfig) -> None:
    made_of = config(TRIALS).model_dump(mode="json", by_alias=True)
    repeat = {
        "until": ["pools.size > 1e9"],
        "most": 3,
        "update": {"pools.seed": out("pools", "seed")},
    }
    workflow = {"jobs": TRIALS, "repeat": repeat}
    cost = {"full_trainings": 100, "full_samples": 1000}
    planned = RunConfig.model_validate({**made_of, "workflow": workflow, "cost": cost})
    assert make_plan(planned)["cost"]["m"] == 3 * 26
    do_before(lambda jobs: changed(planned, workflow={"jobs": jobs}))
    made = make_plan(planned)
    assert made["trials"] == 20
    assert made["cost"]["m"] == 20 + 2 * 26, "of further rounds nothing is known"


def test_the_table_has_a_line_for_every_job_that_trains(config: MakeConfig) -> None:
    do_before(config)
    lines = shown(make_plan(config(chosen("length/low"))))
    start = lines.index("jobs that train, with what each takes at most:")
    assert lines[start + 1] == "  trials    to do  20 trials  2,000 samples"
    assert lines[start + 4] == "  scaled    to do  20 trials  2,500 samples"


def test_what_is_left_out_on_purpose_is_said(config: MakeConfig) -> None:
    optional = [job("left", "Seed"), job("right", "Seed"), job("sum", "Optional", {"right": None})]
    made = make_plan(config(optional))
    assert made["jobs"][-1]["takes"] == {"left": out("left"), "right": None}
    assert shown(made)[-1].endswith("small_hooks:Optional  <- left, right: null")


# What a language model is asked


ASKS = "llm_quality_score_filter"
ENDPOINT = {"url": "http://127.0.0.1:1/v1", "key_variable": None}


@pytest.fixture
def asks(configure: MakeConfig, tmp_path: Path) -> MakeConfig:
    """Return a configuration whose first operator has no model, and the second asks for one."""

    def make(budget: int | None = None, **changes: Any) -> RunConfig:
        operator = {ASKS: {"api_or_hf_model": "small", "try_num": 4}}
        document = {
            "operators": ["text_length_filter", operator],
            "statistics": {"endpoint": {**ENDPOINT, "budget_tokens": budget}},
            "workflow": "recipe_only",
            "trials": None,
            "evaluation": None,
        }
        return configure(**{**document, **changes})

    return make


def test_requests_and_tokens_are_bounded_before_they_are_paid_for(asks: MakeConfig) -> None:
    made = make_plan(asks(budget=5000))
    place = f"operators[1].{ASKS}"
    assert made["asking"] == [{"operator": place, "samples": 10, "requests": 40, "tokens": 5000}]
    line = f"asks    {place}: at most 40 requests about 10 samples, 5,000 tokens and what is under"
    assert any(shown.startswith(line) for shown in plan_table(made).plain.splitlines())
    made = make_plan(asks())
    assert made["asking"][0]["tokens"] is None
    assert "10 samples, without a limit of tokens (statistics.endpoint" in plan_table(made).plain


def test_where_nobody_knows_the_rows_no_number_of_requests_is_said(
    asks: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 3)
    dataset = {"type": "jsonl", "path": str(tmp_path / "a.jsonl"), "content": "texts"}
    made = make_plan(asks(dataset=dataset))
    assert (made["asking"][0]["samples"], made["asking"][0]["requests"]) == (None, None)
    assert "as many samples as there are, which is not known yet" in plan_table(made).plain
    part = make_plan(asks(dataset={**dataset, "rows": [0, 2]}))
    assert part["asking"][0]["requests"] == 8


def test_what_is_there_or_asks_nobody_is_not_said(asks: MakeConfig, config: MakeConfig) -> None:
    assert make_plan(asks(operators=["text_length_filter"]))["asking"] == []
    assert make_plan(config(TRIALS))["asking"] == []  # its statistics are computed by no operator
    made = asks()
    workflow = configured_workflow(made)
    rows = Dataset("dataset-1", "samples.lance", 7, 0)
    (one,) = asking(made, workflow, {"dataset": rows})
    assert (one.samples, one.requests) == (7, 28)
    assert asking(made, workflow, {"dataset": rows, "statistics": Statistics("s", ())}) == ()
