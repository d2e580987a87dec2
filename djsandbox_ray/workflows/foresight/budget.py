"""What the jobs of a workflow will train at most, as their hooks say, and what that costs.

The cost is that of all rounds, counted in full trainings of the model that all this is for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from djsandbox_ray.errors import PlanRefused
from djsandbox_ray.hooks.hook import HOOKS, Context, Planned
from djsandbox_ray.hooks.plans import TRIALS
from djsandbox_ray.hooks.study import configured_family
from djsandbox_ray.ledger.planner import CostPlan, check, plan_cost
from djsandbox_ray.workflows.language.jobs import Job, Workflow
from djsandbox_ray.workflows.language.parameters import parameters, setting


@dataclass(frozen=True)
class PlannedStage:
    """A job that trains."""

    job: Job
    done: bool
    planned: Planned

    @property
    def study(self) -> str:
        """The name of the study that it trains; empty where it trains several."""
        return self.planned.study.name if self.planned.study else ""

    def less(self, trials: int, each: int) -> PlannedStage:
        """Return it without so many trials of so many samples, which are there already."""
        planned = self.planned
        left = replace(
            planned, trials=planned.trials - trials, samples=planned.samples - trials * each
        )
        return replace(self, planned=left)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; samples are None where they cannot be counted yet, and why."""
        planned = self.planned
        return {
            "job": self.job.id,
            "trials": planned.trials,
            "samples": None if planned.unknown else planned.samples,
            "unknown": planned.unknown,
            "parts": [asdict(part) for part in planned.parts],
        }


def stages(workflow: Workflow, context: Context, done: Mapping[str, Any]) -> list[PlannedStage]:
    """Return all jobs that train, in their order.

    Args:
        workflow: checked.
        context: what hooks work with.
        done: the outputs of the jobs that are done, by job; the others are bounded.

    Raises:
        BadInput: a parameter that a hook cannot use.
    """
    outputs: dict[str, Any] = {}
    found = []
    for job in workflow.jobs:
        planned = _ahead(job, context, outputs)
        outputs[job.id] = done.get(job.id, planned)
        if planned.trials or planned.unknown:
            found.append(PlannedStage(job, job.id in done, planned))
    # What is a part of the first study, of the same pools, is counted there.
    first = [stage.job.references.get("pools") for stage in found if stage.study == TRIALS]
    return [
        stage
        for stage in found
        if not (stage.planned.part_of_first and stage.job.references.get("pools") in first)
    ]


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


def total(found: Sequence[PlannedStage], flops_per_sample: float | None) -> Planned:
    """Return what stages train together.

    Args:
        found: the stages; of those that cannot be counted yet, the first says why.
        flops_per_sample: operations of the run's model, the mean over the stages of a trial; None:
            not counted.
    """
    planned = [stage.planned for stage in found]
    unknown = next((f"{s.job.id}: {s.planned.unknown}" for s in found if s.planned.unknown), "")
    flops = None
    if flops_per_sample is not None:
        own = [p.samples * flops_per_sample if p.flops is None else p.flops for p in planned]
        flops = sum(own, 0.0)
    samples = sum(p.samples for p in planned)
    return Planned(sum(p.trials for p in planned), samples, flops, unknown=unknown)


@dataclass(frozen=True)
class WholeCost:
    """What a run costs with all of its rounds, in full trainings."""

    plan: CostPlan
    unknown: str
    """Why it may cost more; empty where it cannot."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "m": self.plan.trials,
            "r": self.plan.ratio,
            "spent": self.plan.spent,
            "full_trainings": self.plan.full_trainings,
            "allowed": self.plan.allowed and not self.unknown,
            "explanation": self.plan.explanation(),
        }

    def check(self, over_budget: bool) -> None:
        """Let it pass if it is allowed, or if the user wants it all the same.

        Raises:
            PlanRefused: 1 + m r > M, or nobody can tell.
        """
        check(self.plan, over_budget)
        if self.unknown and not over_budget:
            raise PlanRefused(
                f"the cost cannot be bounded: {self.unknown}\n--over-budget runs it all the same"
            )


def whole_cost(workflow: Workflow, context: Context, done: Mapping[str, Any]) -> WholeCost | None:
    """Return what all trials of a run cost, done or not, if the configuration says what one may.

    Args:
        workflow: of the round that comes next.
        context: of this round; the section ``cost`` is the full training.
        done: the outputs of its jobs that are done: the trials of these rounds are known, of
            further rounds there is nothing yet.
    """
    config = context.config
    if config.cost is None:
        return None
    more = (workflow.repeat.most if workflow.repeat else 1) - 1
    rounds = [*stages(workflow, context, done), *more * stages(workflow, context, {})]
    budget = config.trials.budget
    flops = configured_family(config).mean_flops(budget)
    planned = total(rounds, flops)
    samples = planned.flops / flops if planned.flops and flops else planned.samples
    # Trials differ in length where repetition and scaling are part of the workflow: their mean.
    each = math.ceil(samples / planned.trials) if planned.trials else budget
    plan = plan_cost(config.cost, trials=planned.trials, trial_samples=each, flops_per_sample=flops)
    return WholeCost(plan, planned.unknown)
