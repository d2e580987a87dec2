"""What a run would do and cost, found without starting a cluster or training anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from djsandbox_ray.config import RunConfig
from djsandbox_ray.hooks.execute.trials import RunTrials, study
from djsandbox_ray.hooks.hook import HOOKS, Context
from djsandbox_ray.hooks.model import configured_family
from djsandbox_ray.hooks.study import Inputs
from djsandbox_ray.ledger import CostPlan, check, plan_cost
from djsandbox_ray.records import Dataset, Pools, Statistics
from djsandbox_ray.reporting import Progress
from djsandbox_ray.stats.operators import parse_process
from djsandbox_ray.workflows.arguments import setting
from djsandbox_ray.workflows.graph import draw
from djsandbox_ray.workflows.jobs import Job, Workflow
from djsandbox_ray.workflows.parameters import parameters, plain
from djsandbox_ray.workflows.rounds import Round, conclude
from djsandbox_ray.workflows.run import check_sources, open_round
from djsandbox_ray.workflows.runner import finished_jobs
from djsandbox_ray.workflows.workflow import configured_workflow


@dataclass(frozen=True)
class _Trials:
    """The trials of the main study."""

    arms: int
    listed: list[dict[str, Any]]
    """One by one, where the pools are built already."""


def make_plan(config: RunConfig) -> dict[str, Any]:
    """Return the plan as plain data.

    While the pools are not built, every statistic is taken to be testable: an upper bound. Once
    they are, the trials are listed one by one and those in the cache are known. Early stopping
    only ever makes it less.
    """
    configured_workflow(config)
    check_sources(config)
    this, workflow, context, done = _current(config)
    config, rounds = this.config, workflow.repeat.most if workflow.repeat else 1
    trials = _trials(workflow, context, done)
    arms = trials.arms if trials else 0
    listed = trials.listed if trials else []
    total = arms * config.trials.seeds
    todo = total - sum(trial["cached"] for trial in listed)
    confirmation = _confirmation(config) if trials else 0
    second_rate = total if config.learning_rate_check else 0
    flops = configured_family(config).flops_per_sample()
    ahead = {"confirmation_trials": confirmation, "learning_rate_trials": second_rate}
    finished = {job.hook for job in workflow.jobs if job.id in done}
    more = sum(count for hook, count in ahead.items() if hook not in finished)
    samples = (todo + more) * config.trials.budget
    cost = cost_plan(config, rounds * (total + confirmation + second_rate), flops)
    return {
        "name": this.run,
        "storage": context.storage.shown,
        "round": this.number,
        "rounds": rounds,
        "until": workflow.repeat.until if workflow.repeat else [],
        "jobs": [_job(job, job.id in done) for job in workflow.jobs],
        "exact": bool(listed) or trials is None,
        "pools": arms,
        "trials": total,
        "trials_to_run": todo,
        "confirmation_trials": confirmation,
        "learning_rate_trials": second_rate,
        "samples_to_train": samples,
        "flops_to_train": None if flops is None else samples * flops,
        "cost": cost
        and {
            "m": cost.trials,
            "r": cost.ratio,
            "spent": cost.spent,
            "full_trainings": cost.full_trainings,
            "allowed": cost.allowed,
            "explanation": cost.explanation(),
        },
        "trial_list": listed,
    }


def cost_plan(config: RunConfig, trials: int, flops: float | None) -> CostPlan | None:
    """Return what trials would cost in full trainings, if the configuration says what one costs.

    Args:
        config: its section ``cost`` is the full training.
        trials: how many.
        flops: operations of training on one sample.
    """
    if config.cost is None:
        return None
    return plan_cost(
        config.cost,
        trials=trials,
        trial_samples=config.trials.budget,
        flops_per_sample=flops,
    )


def check_budget(config: RunConfig, over_budget: bool) -> None:
    """Refuse a run that costs more than the configuration allows.

    Raises:
        PlanRefused: 1 + m r > M, and nobody said that it may.
    """
    if config.cost is None:
        return
    made = make_plan(config)
    flops = configured_family(config).flops_per_sample()
    kinds = ("trials", "confirmation_trials", "learning_rate_trials")
    cost = cost_plan(config, made["rounds"] * sum(made[kind] for kind in kinds), flops)
    if cost is not None:
        check(cost, over_budget)


def _current(config: RunConfig) -> tuple[Round, Workflow, Context, dict[str, Any]]:
    """Return the round that the same command would go on with, and what of it is done."""
    this = Round.first(config)
    while True:
        workflow = configured_workflow(this.config)
        context = open_round(this, Progress(Console(quiet=True)))
        done = finished_jobs(workflow, context)
        if len(done) < len(workflow.jobs):
            return this, workflow, context, done
        following = conclude(workflow.repeat, this, done).following
        if following is None:
            return this, workflow, context, done
        this = following


def _job(job: Job, done: bool) -> dict[str, Any]:
    """Return a job as plain data."""
    references = job.references
    settings = [
        parameter
        for parameter in parameters(HOOKS.get(job.hook)).values()
        if parameter.is_plain and parameter.name not in references
    ]
    values = {parameter.name: setting(job, parameter) for parameter in settings}
    defaults = {
        parameter.name: parameter.read(parameter.default, parameter.name)
        for parameter in settings
        if not parameter.required
    }
    return {
        "job": job.id,
        "done": done,
        "hook": job.hook,
        "takes": {name: str(reference) for name, reference in references.items()},
        "from": list(dict.fromkeys(reference.job for reference in references.values())),
        "parameters": plain(values),
        "changed": [
            name for name in values if name not in defaults or values[name] != defaults[name]
        ],
    }


def _trials(workflow: Workflow, context: Context, done: dict[str, Any]) -> _Trials | None:
    """Return the trials of the main study, if the workflow has one."""
    config = context.config
    job = next((job for job in workflow.jobs if issubclass(HOOKS.get(job.hook), RunTrials)), None)
    if job is None:
        return None
    inputs = {name: done.get(reference.job) for name, reference in job.references.items()}
    dataset, evaluation, statistics, pools = map(
        inputs.get, ("dataset", "evaluation", "statistics", "pools")
    )
    if (
        isinstance(dataset, Dataset)
        and isinstance(evaluation, Dataset)
        and isinstance(statistics, Statistics)
        and isinstance(pools, Pools)
    ):
        found = study(RunTrials(context), Inputs(dataset, evaluation, statistics, pools))
        given_up = found.given_up
        return _Trials(
            len(pools.pools),
            [
                {
                    "trial": spec.id,
                    "pool": spec.pool,
                    "seed": spec.seed,
                    "cached": spec.id in found.settled or spec.pool in given_up,
                }
                for spec in found.specs
            ],
        )
    keys = sum(len(spec.keys) for spec in parse_process(config.operators))
    buckets = keys * config.pools.buckets
    controls = config.pools.control_count(buckets)
    return _Trials(buckets + controls + 2 * config.pools.self_tests, [])


def _confirmation(config: RunConfig) -> int:
    """Return the most trials that the second look can take."""
    settings = config.confirm
    seeds = settings.seeds or config.trials.seeds
    return (settings.top + settings.controls) * seeds if settings.top else 0


def plan_table(made: dict[str, Any]) -> Text:
    """Return a plan for the terminal."""
    bound = "" if made["exact"] else " at most (not all statistics need be testable)"
    flops = made["flops_to_train"]
    hits = made["trials"] - made["trials_to_run"]
    lines = [
        f"{made['name']} in {made['storage']}",
        f"pools   {made['pools']}{bound}, controls and self-tests included",
        f"trials  {made['trials']}: {hits} found in the cache or given up, "
        f"{made['trials_to_run']} to run, "
        f"at most {made['confirmation_trials']} to confirm and "
        f"{made['learning_rate_trials']} at a second learning rate",
        f"samples {made['samples_to_train']:,} to train on, less what early stopping saves",
        f"compute {'not counted' if flops is None else f'{flops:.3g} floating-point operations'}",
    ]
    if made["rounds"] > 1:
        until = ", ".join(made["until"])
        lines.insert(1, f"round   {made['round'] + 1} of at most {made['rounds']}, until {until}")
    if made["cost"] is not None:
        lines += ["", *made["cost"]["explanation"].split("\n")]
    return Text("\n".join([*lines, "", *draw(made["jobs"])]))
