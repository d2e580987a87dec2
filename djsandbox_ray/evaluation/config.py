"""The section ``evaluation`` of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.evaluation import suite  # noqa: F401 - the evaluators register themselves
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.sections import Component, Section, component


class EvaluationConfig(Section):
    """The trusted split, what is measured on it, and how that becomes one score."""

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)]
    """The trusted split; a source of its own, never part of the training data."""
    leaks: Literal["remove", "keep"] = "remove"
    """What happens to training samples that occur in the split too (same image, same text)."""
    metrics: list[Annotated[SerializeAsAny[Component], component(EVALUATORS)]] = Field(min_length=1)
    """The evaluators."""
    score: list[str] | None = Field(default=None, min_length=1)
    """The metrics that make the score of a trial; by default all."""
    aggregate: Literal["pooled", "mean_relative", "standardized"] = "pooled"
    """How changes of several metrics become one: the change of their sum (Eq. 1 of the paper), the
    mean of their relative changes, or the mean of their changes in units of control noise."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Family-wise error: how often null data may give any verdict other than undecided."""
