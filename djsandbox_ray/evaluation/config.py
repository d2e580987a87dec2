"""The section ``evaluation`` of a configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from djsandbox_ray.dataset.source import SOURCES, Source
from djsandbox_ray.errors import nearest
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.settings.sections import Component, Section, component


class EvaluationConfig(Section):
    """The trusted split, what is measured on it, and how that becomes one score."""

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)] | None = None
    """The trusted split; a source of its own, never part of the training data. Only needed where an
    evaluator is measured on it: benchmarks bring samples of their own."""
    leaks: Literal["remove", "keep"] = "remove"
    """What happens to training samples that occur in the split or in a benchmark too: whole, or one
    of their images or videos under another text."""
    metrics: list[Annotated[SerializeAsAny[Component], component(EVALUATORS)]] = Field(min_length=1)
    """The evaluators."""
    score: list[str] | None = Field(default=None, min_length=1)
    """The metrics that make the score of a trial; by default all."""
    aggregate: Literal["pooled", "mean_relative", "standardized"] = "pooled"
    """How changes of several metrics become one: the change of their sum (Eq. 1 of the paper), the
    mean of their relative changes, or the mean of their changes in units of control noise."""
    alpha: float = Field(default=0.05, ge=1e-6, le=0.5)
    """Family-wise error: how often null data may give any verdict other than undecided."""

    @field_validator("metrics")
    @classmethod
    def _once(cls, metrics: list[Any]) -> list[Any]:
        known_metrics(metrics)
        return metrics

    def sources(self) -> list[Source]:
        """Return where samples come from: the trusted split, if any, and benchmarks in order."""
        trusted = [] if self.dataset is None else [SOURCES.get(self.dataset.type)(self.dataset)]
        own = (EVALUATORS.get(config.type)(config).source() for config in self.metrics)
        return [*trusted, *(source for source in own if source is not None)]

    @field_validator("score")
    @classmethod
    def _known(cls, score: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if score is None or "metrics" not in info.data:
            return score
        if len(set(score)) < len(score):
            raise ValueError("a metric stands twice")
        known = known_metrics(info.data["metrics"])
        for name in score:
            if known is not None and name not in known:
                hint, listed = nearest(name, known), ", ".join(known)
                raise ValueError(f"no evaluator gives {name!r}{hint} (known: {listed})")
        return score


def known_metrics(configs: list[Component]) -> list[str] | None:
    """Return the names of all metrics, or None if an evaluator cannot say them beforehand.

    Raises:
        ValueError: two evaluators give a metric of the same name.
    """
    known: list[str] = []
    complete = True
    for config in configs:
        metrics = EVALUATORS.get(config.type)(config).metrics()
        complete = complete and metrics is not None
        for metric in metrics or ():
            if metric.name in known:
                raise ValueError(f"two evaluators give a metric named {metric.name!r}")
            known.append(metric.name)
    return known if complete else None
