"""Families of several stages that train nothing, and an evaluator that ignores prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Evaluator
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import RungReport, Spoil
from djsandbox_ray.trials.family import ModelFamily, TrialTask
from djsandbox_ray.trials.stages import Stage

FIXED = 60
"""Samples of the second stage."""


class Early(ModelFamily):
    """It cannot be judged before its second stage."""

    def stages(self, budget: int) -> tuple[Stage, ...]:
        return (Stage("head", budget, judged=False), Stage("all", FIXED, flops_per_sample=50.0))

    def flops_per_sample(self) -> float:
        return 10.0

    def evaluation_flops(self, suite: Any) -> float:
        return 0.0

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        for rung in task.rungs:
            metrics = {"worth": 1 + float(task.rows.mean()) / 1e4 + 1e-6 * task.seed}
            yield RungReport(rung, 1.0, metrics, 0.1, 0.0, 1, terms={"budget": float(task.budget)})


class Late(Early):
    """It can be judged at its very end only."""

    def stages(self, budget: int) -> tuple[Stage, ...]:
        return (Stage("train", budget), Stage("distil", FIXED, judged=False))


class Filmed(Early):
    """Videos: their frames are spoilt, too."""

    SPOILS: ClassVar[tuple[Spoil, ...]] = ("captions", "frames")


class Unprompted(Evaluator):
    """Sees no captions."""

    SEES: ClassVar[frozenset[Spoil]] = frozenset({"frames"})

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("unprompted/sharp"),)

    def evaluate(self, encoder: Any, data: EvaluationSet) -> dict[str, float]:
        return {"unprompted/sharp": 1.0}
