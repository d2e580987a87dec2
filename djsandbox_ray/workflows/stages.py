"""What the jobs of a workflow will train at most, as their hooks say themselves."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from djsandbox_ray.hooks.execute.trials import RunTrials
from djsandbox_ray.hooks.hook import HOOKS, Context, Hook, Planned
from djsandbox_ray.workflows.arguments import setting
from djsandbox_ray.workflows.jobs import Job, Workflow
from djsandbox_ray.workflows.parameters import parameters


@dataclass(frozen=True)
class Stage:
    """A job that trains."""

    job: str
    hook: type[Hook]
    done: bool
    planned: Planned

    def less(self, trials: int, budget: int) -> Stage:
        """Return it without so many trials of a budget, which are there already."""
        planned = self.planned
        left = replace(
            planned, trials=planned.trials - trials, samples=planned.samples - trials * budget
        )
        return replace(self, planned=left)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; samples are None where they cannot be counted yet, and why."""
        planned = self.planned
        return {
            "job": self.job,
            "trials": planned.trials,
            "samples": None if planned.unknown else planned.samples,
            "unknown": planned.unknown,
        }


def main_job(workflow: Workflow) -> Job | None:
    """Return the job that trains all pools, if the workflow has one."""
    return next((job for job in workflow.jobs if issubclass(HOOKS.get(job.hook), RunTrials)), None)


def stages(workflow: Workflow, context: Context, done: Mapping[str, Any]) -> list[Stage]:
    """Return all jobs that train, in their order.

    Args:
        workflow: checked.
        context: what hooks work with.
        done: the outputs of the jobs that are done, by job; the others are bounded.

    Raises:
        BadInput: a parameter that a hook cannot use.
    """
    outputs: dict[str, Any] = {}
    main, found = main_job(workflow), []
    for job in workflow.jobs:
        planned = _ahead(job, context, outputs)
        outputs[job.id] = done.get(job.id, planned)
        pools = job.references.get("pools")
        if planned.part_of_first and main is not None and main.references.get("pools") == pools:
            continue  # counted there
        if planned.trials or planned.unknown:
            found.append(Stage(job.id, HOOKS.get(job.hook), job.id in done, planned))
    return found


def _ahead(job: Job, context: Context, outputs: Mapping[str, Any]) -> Planned:
    kind = HOOKS.get(job.hook)
    references, taken = job.references, {}
    counted = inspect.signature(kind.ahead).parameters
    for name, parameter in parameters(kind).items():
        reference = references.get(name)
        if reference is None:
            taken[name] = setting(job, parameter)
        elif isinstance(outputs[reference.job], Planned) and reference.fields:
            if name in counted:
                return Planned(unknown=f"its {name} is not known before {reference.job!r} has run")
        else:
            taken[name] = reference.look_up(outputs)
    return kind(context).ahead(**taken)


def total(found: Sequence[Stage], flops_per_sample: float | None) -> Planned:
    """Return what stages train together.

    Args:
        found: the stages; of those that cannot be counted yet, the first says why.
        flops_per_sample: operations of the run's model; None: not counted.
    """
    planned = [stage.planned for stage in found]
    unknown = next((f"{s.job}: {s.planned.unknown}" for s in found if s.planned.unknown), "")
    flops = None
    if flops_per_sample is not None:
        own = [p.samples * flops_per_sample if p.flops is None else p.flops for p in planned]
        flops = sum(own, 0.0)
    samples = sum(p.samples for p in planned)
    return Planned(sum(p.trials for p in planned), samples, flops, unknown=unknown)
