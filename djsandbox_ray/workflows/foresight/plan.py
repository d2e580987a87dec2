"""What a run would do and cost, found without starting a cluster or training anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import HOOKS, Context
from djsandbox_ray.hooks.plans import CONFIRMATION, LEARNING_RATE, TRIALS, draw_of
from djsandbox_ray.hooks.study import Study, configured_family, trial_samples
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.records import Dataset, Evaluation, Pools, TrialState
from djsandbox_ray.reporting.costs import operations
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.workflows.beforehand import (
    evidence_notes,
    foretold,
    lacking_here,
    most_rows,
)
from djsandbox_ray.workflows.foresight.api_requests import asking, asking_lines
from djsandbox_ray.workflows.foresight.budget import PlannedStage, stages, total, whole_cost
from djsandbox_ray.workflows.foresight.wiring import wiring
from djsandbox_ray.workflows.language.jobs import Job, Workflow
from djsandbox_ray.workflows.language.parameters import as_data, parameters, setting
from djsandbox_ray.workflows.language.repeat import Round, conclude
from djsandbox_ray.workflows.language.workflow import configured_workflow
from djsandbox_ray.workflows.opened import open_round
from djsandbox_ray.workflows.runner import finished_jobs


def make_plan(config: RunConfig) -> dict[str, Any]:
    """Return the plan as plain data.

    While the pools are not built, every statistic is taken to be testable, and every choice to take
    as much as it may: upper bounds. Once they are, the trials of the main study are listed one by
    one and those in the cache are known. Early stopping only ever makes it less.

    Where data, models or packages are not on this machine, it says which, and plans all the same,
    as if nothing were done.

    Raises:
        BadInput: a parameter that a job cannot use.
    """
    lacking = lacking_here(config)
    this, workflow, context, done = _current(config, here=not lacking)
    found = stages(workflow, context, done)
    main = next((stage for stage in found if stage.study == TRIALS), None)
    study = _study(main.job, context, done) if main else None
    listed = _listed(study) if study else []
    cached = sum(trial["cached"] for trial in listed)
    training = this.config.training
    each, seeds = 0, 1
    flops: float | None = 0.0
    if training:
        each, seeds = trial_samples(this.config), len(training.seed_numbers)
        try:
            flops = configured_family(this.config).mean_flops(training.budget)
        except BadInput as error:
            flops = None
            lacking.append(f"trials.model: {error}")
    left = [s.less(cached, each) if s is main else s for s in found if not s.done]
    ahead = total(left, flops)
    trials = main.planned.trials if main else 0
    cost = None if flops is None else whole_cost(workflow, context, done)
    return {
        "name": this.run,
        "storage": context.storage.shown,
        "round": this.number,
        "rounds": workflow.repeat.most if workflow.repeat else 1,
        "until": workflow.repeat.until if workflow.repeat else [],
        "jobs": [_job(job, job.id in done) for job in workflow.jobs],
        "exact": bool(listed) or main is None,
        "pools": trials // seeds,
        "trials": trials,
        "trials_to_run": 0 if main is None or main.done else trials - cached,
        "confirmation_trials": _trials(found, CONFIRMATION),
        "learning_rate_trials": _trials(found, LEARNING_RATE),
        "stages": [stage.to_json() for stage in found],
        "samples_to_train": ahead.samples,
        "flops_to_train": ahead.flops,
        "hours_to_train": _training_hours(this.config, ahead.flops),
        "stored": _stored(this.config, trials or total(found, flops).trials, bool(lacking)),
        "measured": _measured(this.config, study, ahead.samples),
        "cost": cost.to_json() if cost else None,
        "trial_list": listed,
        "asking": [one.to_json() for one in asking(this.config, workflow, done)],
        "foretold": [*evidence_notes(this.config), *foretold(this.config)],
        "lacking": lacking,
    }


def check_budget(config: RunConfig, over_budget: bool) -> None:
    """Refuse a run that costs more than the configuration allows.

    Raises:
        PlanRefused: 1 + m r > M, or it cannot be bounded, and nobody said that it may.
    """
    if config.cost is None:
        return
    _, workflow, context, done = _current(config, here=not lacking_here(config))
    cost = whole_cost(workflow, context, done)
    if cost is not None:
        cost.check(over_budget)


def _training_hours(config: RunConfig, flops: float | None) -> dict[str, float] | None:
    """Return how long trainings hold the workers of trials, by how much one does in a second.

    Args:
        config: of the run.
        flops: of the trainings; None: not counted.

    Returns:
        Hours of ``workers``, and of ``gpus`` or ``cpus``; None where that cannot be said.
    """
    resources = config.training.resources if config.training else None
    if not flops or resources is None or resources.flops_per_second is None:
        return None
    hours = flops / resources.flops_per_second / 3600
    held = resources.gpus_per_worker or resources.cpus_per_worker
    return {"workers": hours, "gpus" if resources.gpus_per_worker else "cpus": hours * held}


def _stored(config: RunConfig, trials: int, elsewhere: bool) -> dict[str, Any] | None:
    """Return what is stored of every sample that trials read, once for all of them.

    Args:
        config: of the run.
        trials: of the first study; where there is none, all.
        elsewhere: the data may not be on this machine.

    Returns:
        ``samples`` at most, None where nobody knows yet; ``each``: bytes of one, by what it is.
        None where nothing is stored, or nobody can tell.
    """
    if not config.training or not trials:
        return None
    try:
        family = configured_family(config)
        if not family.stored_bytes(1):
            return None  # not even of one
    except BadInput:
        return None  # what lacks is said already
    part = getattr(config.dataset, "rows", None)
    rows = (part[1] - part[0] if part else None) if elsewhere else most_rows(config.dataset)
    draw = draw_of(config, rows)
    known = [] if rows is None else [rows]
    if draw is not None:
        seeds = len(config.training.seed_numbers)
        bucket = round(draw / config.pools.draw_share)
        known.append(trials // seeds * min(seeds * draw, bucket))
    samples = min(known, default=None)
    each = family.stored_bytes(samples)
    return {"samples": samples, "each": each} if each else None


def _measured(config: RunConfig, study: Study | None, samples: int) -> dict[str, float] | None:
    """Return how long trainings and evaluations hold GPUs or CPUs, by those that are done.

    Args:
        config: of the run.
        study: the main one, once its pools are built.
        samples: that are left to train on.

    Returns:
        Hours of ``gpus`` or ``cpus``, and how many ``trials`` say so; None where none is done.
    """
    known = study.settled.values() if study else ()
    ended = [one for one in known if one.state is TrialState.COMPLETED and one.held_seconds]
    if not ended or config.training is None:
        return None
    seconds = sum(one.held_seconds for one in ended) / sum(one.spec.total for one in ended)
    resources = config.training.resources
    held = resources.workers * (resources.gpus_per_worker or resources.cpus_per_worker)
    name = "gpus" if resources.gpus_per_worker else "cpus"
    return {"trials": len(ended), name: samples * seconds * held / 3600}


def _current(config: RunConfig, here: bool) -> tuple[Round, Workflow, Context, dict[str, Any]]:
    """Return the round that the same command would go on with, and what of it is done.

    Args:
        config: that was checked.
        here: whether all that a run needs is on this machine: else nobody knows what is done.
    """
    this = Round.first(config)
    while True:
        workflow = configured_workflow(this.config)
        context = open_round(this, Progress(Console(quiet=True)))
        done = finished_jobs(workflow, context) if here else {}
        if len(done) < len(workflow.jobs):
            return this, workflow, context, done
        following = conclude(workflow.repeat, this, done).following
        if following is None:
            return this, workflow, context, done
        this = following


def _job(job: Job, done: bool) -> dict[str, Any]:
    """Return a job as plain data."""
    references, known = job.references, parameters(HOOKS.get(job.hook))
    settings = [p for p in known.values() if p.is_plain and p.name not in references]
    takes = {  # also what is left out on purpose
        name: str(references[name]) if name in references else None
        for name, parameter in known.items()
        if name in references or (name in job.given and not parameter.is_plain)
    }
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
        "takes": takes,
        "from": list(dict.fromkeys(reference.job for reference in references.values())),
        "parameters": as_data(values),
        "changed": [
            name for name in values if name not in defaults or values[name] != defaults[name]
        ],
    }


def _study(job: Job, context: Context, done: dict[str, Any]) -> Study | None:
    """Return the main study, once its pools are built."""
    inputs = {name: done.get(reference.job) for name, reference in job.references.items()}
    dataset, evaluation, pools = map(inputs.get, ("dataset", "evaluation", "pools"))
    if not (
        isinstance(dataset, Dataset)
        and isinstance(evaluation, Evaluation)
        and isinstance(pools, Pools)
    ):
        return None
    found = Train(context).study(dataset, evaluation, pools)
    found.check()
    return found


def _listed(found: Study) -> list[dict[str, Any]]:
    """Return the trials of a study one by one."""
    known = {*found.settled, *found.rescorable}
    given_up = found.given_up
    return [
        {
            "trial": spec.id,
            "pool": spec.pool,
            "seed": spec.seed,
            "cached": spec.id in known or spec.pool in given_up,
        }
        for spec in found.specs
    ]


def _trials(found: Sequence[PlannedStage], study: str) -> int:
    return sum(stage.planned.trials for stage in found if stage.study == study)


def plan_table(made: dict[str, Any]) -> Text:
    """Return a plan for the terminal."""
    bound = "" if made["exact"] else " at most (not all statistics need be testable)"
    flops = made["flops_to_train"]
    hits = made["trials"] - made["trials_to_run"]
    unknown = any(stage["samples"] is None for stage in made["stages"])
    more = ", and what is not known yet" if unknown else ""
    told = [f"note    {line}" for line in made["foretold"]]
    if made["lacking"]:
        told += ["", "not on this machine, and needed where it runs:"]
        told += [f"  {line}" for line in made["lacking"]]
    head = [f"{made['name']} in {made['storage']}"]
    if made["rounds"] > 1:
        until = ", ".join(made["until"])
        head.append(f"round   {made['round'] + 1} of at most {made['rounds']}, until {until}")
    asks = asking_lines(made["asking"])
    if not made["stages"]:
        head += asks
        head.append("trials  none: no job trains a model")
        return Text("\n".join([*head, *told, "", *wiring(made["jobs"])]))
    if made["pools"]:
        head += [
            f"pools   {made['pools']}{bound}, controls and self-tests included",
            f"trials  {made['trials']}: {hits} found in the cache or given up, "
            f"{made['trials_to_run']} to run",
        ]
    else:  # no study of pools: they are those of the jobs below
        left = [stage for stage in made["stages"] if stage["job"] not in _done(made)]
        head.append(f"trials  {sum(stage['trials'] for stage in left):,} at most")
    lines = [
        *head,
        f"samples {made['samples_to_train']:,} to train on, less what early stopping saves{more}",
        f"compute {'not counted' if flops is None else f'{flops:.3g} floating-point operations'}",
        *_hours_lines(made["hours_to_train"]),
        *_stored_lines(made["stored"]),
        *_measured_lines(made["measured"]),
        *asks,
    ]
    lines += ["", "jobs that train, with what each takes at most:", *_stage_lines(made)]
    if made["cost"] is not None:
        lines += ["", *made["cost"]["explanation"].split("\n")]
    return Text("\n".join([*lines, *told, "", *wiring(made["jobs"])]))


def _hours_lines(hours: dict[str, float] | None) -> list[str]:
    if hours is None:
        return []
    return [f"time    {_held(hours)} of training, by trials.resources.flops_per_second"]


def _held(hours: dict[str, float]) -> str:
    """Return how long ``gpus`` or ``cpus`` are held, in minutes where that is less than an hour."""
    kind = "GPU" if "gpus" in hours else "CPU"
    held = hours.get("gpus", hours.get("cpus", 0.0))
    return f"{held:,.0f} {kind}-hours" if held >= 1 else f"{60 * held:.2g} {kind}-minutes"


def _stored_lines(stored: dict[str, Any] | None) -> list[str]:
    if stored is None:
        return []
    samples, each = stored["samples"], stored["each"]
    sizes = [f"{name} {_in_bytes(size * (samples or 1))}" for name, size in each.items()]
    of = "for every sample" if samples is None else f"for at most {samples:,} samples"
    return [f"stores  {', '.join(sizes)} {of}, once for all trials"]


def _in_bytes(count: float) -> str:
    """Return bytes in a unit that leaves at most three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _measured_lines(measured: dict[str, float] | None) -> list[str]:
    if measured is None:
        return []
    return [
        f"time    {_held(measured)} of training and evaluation, as the trials that are done took "
        f"({measured['trials']:.0f})"
    ]


def _stage_lines(made: dict[str, Any]) -> list[str]:
    done = _done(made)
    named = max(len(stage["job"]) for stage in made["stages"])
    counts = [f"{stage['trials']:,}" for stage in made["stages"]]
    wide = max(map(len, counts))
    lines = []
    for stage, count in zip(made["stages"], counts, strict=True):
        samples = stage["unknown"] or f"{stage['samples']:,} samples"
        state = "done" if stage["job"] in done else "to do"
        lines.append(f"  {stage['job']:<{named}}  {state:<5}  {count:>{wide}} trials  {samples}")
        lines += _part_lines(stage["parts"])
    return lines


def _part_lines(parts: Sequence[dict[str, Any]]) -> list[str]:
    named = max((len(part["name"]) for part in parts), default=0)
    return [
        f"    {number}. {part['name']:<{named}}  {part['trials']:,} trials  "
        f"{part['samples']:,} samples  {operations(part['flops'])}"
        for number, part in enumerate(parts, start=1)
    ]


def _done(made: dict[str, Any]) -> set[str]:
    return {job["job"] for job in made["jobs"] if job["done"]}
