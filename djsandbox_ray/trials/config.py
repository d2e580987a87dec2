"""The section ``trials`` of a configuration, and whether what it names goes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    GetPydanticSchema,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import core_schema

from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.nodes.kinds import NodeKind, bundle
from djsandbox_ray.records import Spoil
from djsandbox_ray.settings.sections import MOST_PROCESSES, Component, Section, component
from djsandbox_ray.trials.family import FAMILIES, ModelFamily
from djsandbox_ray.trials.stages import judged_from, total
from djsandbox_ray.trials.stopping.stopping import STOPPING, StoppingConfig

MOST_SEEDS = 1000
"""Of a study: its trials are listed one by one."""
GREATEST_SEED = 99_999
"""Behind the seeds of a configuration lie those of second looks."""


class WorkerResources(NodeKind):
    """What one process that trains occupies, and on which nodes."""

    cpus_per_worker: float = Field(default=1, gt=0, le=MOST_PROCESSES, strict=True)
    """CPUs; a fraction lets several trials share one core. Also sets torch's threads."""
    gpus_per_worker: float = Field(default=0, ge=0, le=1, strict=True)
    """At most one GPU; a fraction (0.25) lets several trials share one."""


class Resources(WorkerResources):
    """What one trial occupies while it runs; Ray Tune runs as many at once as fit."""

    workers: int = Field(default=1, ge=1, le=MOST_PROCESSES, strict=True)
    """Processes that train one model together."""
    gpus_per_worker: float = Field(default=0, ge=0, le=MOST_PROCESSES, strict=True)
    """At most one GPU, or a fraction (0.25) of one; more, in whole numbers, only for a model that
    starts its processes itself (``command``)."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """How several workers share a model: copies, sharded by FSDP2, or by DeepSpeed's ZeRO."""
    flops_per_second: float | None = Field(default=None, gt=0)
    """Floating-point operations that one worker does in a second of training, such as 1.2e14 for
    an A100 at 40 % of its peak: `djsandbox plan` turns operations into hours by it."""
    deepspeed: dict[str, Any] = Field(default={})
    """Settings of DeepSpeed's JSON, such as ``zero_optimization: {stage: 2}``; only with the
    strategy ``deepspeed``."""

    @model_validator(mode="after")
    def _consistent(self) -> Resources:
        if self.deepspeed and self.strategy != "deepspeed":
            raise ValueError("settings of 'deepspeed' need strategy: deepspeed")
        if self.workers == 1 and self.strategy != "ddp":
            raise ValueError(f"strategy: {self.strategy} shares a model among several workers")
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError("gpus_per_worker: a fraction, or whole GPUs")
        if self.workers > 1 and 0 < self.gpus_per_worker < 1:
            raise ValueError(
                "workers of one trial cannot share a GPU (nccl refuses it): gpus_per_worker must "
                "be 0 or 1 with more than one worker"
            )
        return self


def worker_bundle(resources: WorkerResources) -> dict[str, float]:
    """Return all that one process that trains needs of its node."""
    return bundle(resources.cpus_per_worker, resources.gpus_per_worker, resources)


_Count = Annotated[int, Field(ge=1, le=MOST_SEEDS, strict=True)]


def _seeds(value: Any, count: ValidatorFunctionWrapHandler) -> int | tuple[int, ...]:
    """Read how many seeds there are, or which."""
    if not isinstance(value, list | tuple):
        return int(count(value))
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    if not whole or not all(0 <= one <= GREATEST_SEED for one in value):
        raise ValueError(f"seeds in a list are whole numbers from 0 to {GREATEST_SEED}")
    if not 1 <= len(value) <= MOST_SEEDS or len(set(value)) < len(value):
        raise ValueError(f"a list of seeds has 1 to {MOST_SEEDS} of them, each once")
    return tuple(value)


Seeds = Annotated[
    int | tuple[int, ...],
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(
            _seeds,
            handler(_Count),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda seeds: seeds if isinstance(seeds, int) else list(seeds)
            ),
        )
    ),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_SEEDS},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0, "maximum": GREATEST_SEED},
                    "minItems": 1,
                    "maxItems": MOST_SEEDS,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
"""How many seeds, or which."""


class TrialsConfig(Section):
    """One training of every pool with every seed."""

    model: Annotated[SerializeAsAny[Component], component(FAMILIES)]
    """The model family and its hyper-parameters, the same for every trial."""
    budget: int = Field(gt=0, le=10**12, strict=True)
    """Samples seen in training, by every trial; the longest trainings there are see 10^11."""
    seeds: Seeds = 3
    """Trials per pool, all of which the plan lists: how many, for seeds from 0 on, or the seeds
    themselves (``[42, 45]``). Seed s gives every pool the same initial weights and order of
    positions."""
    early_stopping: Annotated[SerializeAsAny[StoppingConfig], component(STOPPING)] = Field(
        default_factory=lambda: STOPPING.get("race").Config(type="race")
    )
    """When a pool that cannot be among the best is given up: race, asha or none."""
    retries: int = Field(default=2, ge=0, le=100, strict=True)
    """How often a trial whose process died or that raised an error is tried again, from its last
    rung; see ``retry_diverged``."""
    retry_diverged: bool = False
    """Whether one that diverged is tried again, too: on GPUs the same numbers need not come."""
    keep_stopped: bool = False
    """Whether the state of trials that were given up early stays in the storage: a later run that
    does not give them up goes on from it, and begins them anew otherwise."""
    stall_seconds: float | None = Field(default=1800, ge=0)
    """After how many seconds a worker that says nothing is replaced, and its trial tried again from
    its last rung, as one of its ``retries``; null or 0 for never. Time in which a trial is loaded
    or evaluated, or a program runs, does not count."""
    resources: Resources = Resources()
    """What each trial occupies."""

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds of every pool."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


def seeds_text(trials: TrialsConfig) -> str:
    """Return how many seeds there are, or which, for a line of a report."""
    return (
        ", ".join(map(str, trials.seeds)) if isinstance(trials.seeds, tuple) else f"{trials.seeds}"
    )


def misfits(
    trials: TrialsConfig,
    metrics: Sequence[Component],
    score: Sequence[str] | None = None,
    self_tests: bool = False,
) -> list[str]:
    """Return what contradicts, each with its place in the configuration.

    Args:
        trials: the section of that name.
        metrics: the evaluators.
        score: the metrics that make the score; None for all.
        self_tests: whether there will be pools whose samples are spoilt.
    """
    family, name, resources = FAMILIES.get(trials.model.type), trials.model.type, trials.resources
    found = []
    if family.LAUNCHES and resources.workers > 1:
        found.append(
            f"trials.resources.workers: the model {name!r} starts its processes itself: give one "
            "worker all CPUs and GPUs (workers: 1)"
        )
    if not family.LAUNCHES and resources.gpus_per_worker > 1:
        found.append(
            f"trials.resources.gpus_per_worker: at most 1 for the model {name!r}; more GPUs take "
            "more workers"
        )
    for index, metric in enumerate(metrics):
        reads = EVALUATORS.get(metric.type).READS
        if reads not in family.OFFERS:
            fitting = [one for one in EVALUATORS if EVALUATORS.get(one).READS in family.OFFERS]
            found.append(
                f"evaluation.metrics[{index}].type: {metric.type!r} reads {reads}, but the model "
                f"{name!r} offers {' and '.join(family.OFFERS)} (fitting: {', '.join(fitting)})"
            )
    # A model of one stage need not be made for that.
    has_stages = family.stages is not ModelFamily.stages
    if trials.early_stopping.rungs and has_stages and not _judged_before_the_end(trials):
        found.append(
            f"trials.early_stopping.rungs: the model {name!r} can be judged at the end of its "
            "training only: rungs: []"
        )
    if metrics and self_tests:
        found += [_blind(spoil, metrics, score, family) for spoil in family.SPOILS]
    return [problem for problem in found if problem]


def _judged_before_the_end(trials: TrialsConfig) -> bool:
    stages = FAMILIES.get(trials.model.type)(trials.model).stages(trials.budget)
    return judged_from(stages) < total(stages)


def _blind(
    spoil: Spoil,
    metrics: Sequence[Component],
    score: Sequence[str] | None,
    family: type[ModelFamily],
) -> str:
    """Say that no metric of the score shows what a self-test does to samples; empty if one does."""
    kinds = [EVALUATORS.get(one.type)(one) for one in metrics]
    if any(kind.metrics() is None and spoil in kind.SEES for kind in kinds):
        return ""
    shown = [one.name for kind in kinds for one in kind.metrics() or () if spoil in kind.sees(one)]
    if any(score is None or name in score for name in shown):
        return ""
    fitting = [
        name
        for name in EVALUATORS
        for kind in [EVALUATORS.get(name)]
        if spoil in kind.SEES and kind.READS in family.OFFERS
    ]
    advice = (
        f"add one of {', '.join(shown)}"
        if shown
        else f"add an evaluator that does ({', '.join(fitting)})"
    )
    return (
        f"evaluation.{'score' if shown else 'metrics'}: no metric of the score shows whether "
        f"{spoil} were spoilt, as a self-test does it: {advice}, or pools.self_tests: false"
    )
