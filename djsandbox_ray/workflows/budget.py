"""What a run costs with all that its workflow may train, in full trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.errors import PlanRefused
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.model import configured_family
from djsandbox_ray.ledger import CostPlan, check, plan_cost
from djsandbox_ray.workflows.jobs import Workflow
from djsandbox_ray.workflows.stages import stages, total


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
    flops = configured_family(config).flops_per_sample()
    planned = total(rounds, flops)
    samples = planned.flops / flops if planned.flops and flops else planned.samples
    # Trials differ in length where repetition and scaling are part of the workflow: their mean.
    each = math.ceil(samples / planned.trials) if planned.trials else config.trials.budget
    plan = plan_cost(config.cost, trials=planned.trials, trial_samples=each, flops_per_sample=flops)
    return WholeCost(plan, planned.unknown)
