"""What a run would do and cost, found without starting a cluster or training anything."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from djsandbox_ray.config import RunConfig
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.hooks.trials import RunTrials, plan
from djsandbox_ray.records import Dataset, Pools
from djsandbox_ray.reporting import Progress
from djsandbox_ray.stats.operators import parse_process
from djsandbox_ray.trials.family import FAMILIES
from djsandbox_ray.workflows.run import check_sources, open_context
from djsandbox_ray.workflows.runner import finished_jobs
from djsandbox_ray.workflows.workflow import load_workflow


def make_plan(config: RunConfig) -> dict[str, Any]:
    """Return the plan as plain data.

    While the pools are not built, every statistic is taken to be testable: an upper bound. Once
    they are, the trials are listed one by one and those in the cache are known.
    """
    workflow = load_workflow(config.workflow)
    check_sources(config)
    context = open_context(config, Progress(Console(quiet=True)))
    done = finished_jobs(workflow, context)
    job = next((job for job in workflow.jobs if issubclass(HOOKS.get(job.hook), RunTrials)), None)
    inputs = {} if job is None else {name: done.get(source) for name, source in job.inputs.items()}
    dataset, evaluation, pools = map(inputs.get, ("dataset", "evaluation", "pools"))
    trials: list[dict[str, Any]] = []
    arms = 0
    if (
        isinstance(dataset, Dataset)
        and isinstance(evaluation, Dataset)
        and isinstance(pools, Pools)
    ):
        found = plan(context, dataset, evaluation, pools)
        trials = [
            {"trial": s.id, "pool": s.pool, "seed": s.seed, "cached": s.id in found.done}
            for s in found.specs
        ]
        arms = len(pools.pools)
    elif job is not None:
        statistics = sum(len(spec.keys) for spec in parse_process(config.operators))
        buckets = statistics * config.pools.buckets
        arms = buckets + config.pools.control_count(buckets) + 2 * config.pools.self_tests
    total = arms * config.trials.seeds
    todo = total - sum(trial["cached"] for trial in trials)
    flops = FAMILIES.get(config.trials.model.type)(config.trials.model).flops_per_sample()
    samples = todo * config.trials.budget
    return {
        "name": config.name,
        "storage": context.storage.url,
        "jobs": [{"job": job.id, "done": job.id in done} for job in workflow.jobs],
        "exact": bool(trials) or job is None,
        "pools": arms,
        "trials": total,
        "trials_to_run": todo,
        "samples_to_train": samples,
        "flops_to_train": None if flops is None else samples * flops,
        "trial_list": trials,
    }


def plan_table(made: dict[str, Any]) -> Group:
    """Return a plan for the terminal."""
    jobs = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    jobs.add_column("job")
    jobs.add_column("state")
    for job in made["jobs"]:
        jobs.add_row(job["job"], "done" if job["done"] else "to do")
    bound = "" if made["exact"] else " at most (not all statistics need be testable)"
    flops = made["flops_to_train"]
    lines = [
        f"{made['name']} in {made['storage']}",
        f"pools   {made['pools']}{bound}, controls and self-tests included",
        f"trials  {made['trials']}, of which {made['trials_to_run']} to run",
        f"samples {made['samples_to_train']:,} to train on",
        f"compute {'not counted' if flops is None else f'{flops:.3g} floating-point operations'}",
    ]
    return Group(Text("\n".join(lines)), jobs)
