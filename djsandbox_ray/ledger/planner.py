"""Whether a run pays: all its trials and one full training against M full trainings.

The rule 1 + m r <= M is that of Data-Juicer Sandbox (arXiv 2407.11784): m trials, each at the cost
of r full trainings, and the one full training with what they have found, must not cost more than
the M full trainings in which a user would otherwise have tried as many recipes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from djsandbox_ray.errors import BadInput, PlanRefused
from djsandbox_ray.settings.sections import Section


class CostConfig(Section):
    """What a full training costs, and how many of them the whole run may cost."""

    full_trainings: float = Field(gt=1)
    """M: the full trainings that would be spent without the sandbox, trying one recipe each. The
    final training is one of them, so that M - 1 are left for trials."""
    full_samples: int = Field(gt=0, strict=True)
    """Samples seen in one full training, over all its epochs."""
    full_flops_per_sample: float | None = Field(default=None, gt=0)
    """Floating-point operations of the full model per training sample, forward and backward; by
    default those of the small model."""


@dataclass(frozen=True)
class CostPlan:
    """What a run would cost, in full trainings.

    Raises:
        ValueError: a number outside its range.
    """

    full_trainings: float
    """M."""
    trials: int
    """m."""
    trial: float
    """Cost of one trial, in ``unit``."""
    full: float
    """Cost of one full training, in ``unit``."""
    unit: str
    """What both costs are counted in: ``FLOPs`` or ``samples``."""

    def __post_init__(self) -> None:
        if self.trials < 0 or self.trial <= 0 or self.full <= 0:
            raise ValueError(f"{self}: a trial and a full training cost something; m is 0 or more")

    @property
    def ratio(self) -> float:
        """r: the cost of one trial over that of one full training."""
        return self.trial / self.full

    @property
    def spent(self) -> float:
        """1 + m r: the cost of the trials and of one full training, in full trainings."""
        return 1 + self.trials * self.trial / self.full

    @property
    def allowed(self) -> bool:
        """Whether 1 + m r <= M."""
        return self.spent <= self.full_trainings

    @property
    def affordable(self) -> int:
        """The most trials of this cost that are allowed."""
        return math.floor((self.full_trainings - 1) * self.full / self.trial)

    def explanation(self) -> str:
        """Return the calculation in lines that a user can check."""
        sign, verdict = ("<=", "allowed") if self.allowed else (">", "over budget")
        lines = [
            f"m = {self.trials:,} trials",
            f"r = {self.ratio:.3g} ({self.trial:.4g} of {self.full:.4g} {self.unit})",
            f"1 + m r = {self.spent:.4g} {sign} M = {self.full_trainings:g} full trainings: "
            f"{verdict}",
        ]
        if not self.allowed:
            lines.append(
                f"at most {self.affordable:,} such trials are allowed; fewer operators, seeds or "
                "controls, a smaller budget or a smaller model bring the cost down"
            )
        return "\n".join(lines)


def plan_cost(
    config: CostConfig,
    *,
    trials: int,
    trial_samples: int,
    flops_per_sample: float | None,
    evaluation_flops: float = 0.0,
) -> CostPlan:
    """Return what a run would cost, in full trainings.

    Counted in floating-point operations where the small model's are known; otherwise in samples,
    evaluations left out.

    Args:
        config: the full training, and M.
        trials: m.
        trial_samples: samples that one trial is trained on.
        flops_per_sample: operations of the small model per training sample; None: not counted.
        evaluation_flops: operations of all evaluations of one trial.

    Raises:
        BadInput: the operations of the full model are given, but those of the small one were not
            counted, so that the two cannot be compared.
    """
    if flops_per_sample is None:
        if config.full_flops_per_sample is not None:
            raise BadInput(
                "cost.full_flops_per_sample cannot be used: the floating-point operations of the "
                "trials' model were not counted; without it, trials are compared by their samples"
            )
        return CostPlan(
            config.full_trainings, trials, trial_samples, config.full_samples, "samples"
        )
    full = config.full_samples * (config.full_flops_per_sample or flops_per_sample)
    trial = trial_samples * flops_per_sample + evaluation_flops
    return CostPlan(config.full_trainings, trials, trial, full, "FLOPs")


def check(plan: CostPlan, over_budget: bool) -> None:
    """Let a plan pass that is allowed, or that the user wants all the same.

    Raises:
        PlanRefused: 1 + m r > M; with the calculation.
    """
    if not plan.allowed and not over_budget:
        raise PlanRefused(f"{plan.explanation()}\n--over-budget runs it all the same")
