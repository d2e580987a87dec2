"""The section ``evaluation`` of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from djsandbox_ray.dataset.source import SOURCES, Source
from djsandbox_ray.errors import nearest
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.metric import Metric, ScoreMetrics
from djsandbox_ray.records import Aggregate
from djsandbox_ray.settings.sections import Component, Section, component

INFORMATIVE = "informative"
"""In place of metrics: those that see the self-tests."""


class Weighted(Section):
    """A total of metrics."""

    weighted: dict[str, float] = Field(min_length=1)
    """The weight of every metric of the score, all positive."""

    @field_validator("weighted")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if not weight > 0:
                raise ValueError(f"the weight of {name!r} is {weight}; it must be positive")
        return weights


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
    score: Annotated[list[str], Field(min_length=1)] | Literal["informative"] | None = None
    """The metrics that make the score of a trial; by default all but those that are only shown,
    such as the share of answers in which nothing could be read. ``informative``: those of them by
    which self-tests are seen to be worse than the controls; pools have no say in it."""
    aggregate: Literal["pooled", "mean_relative", "standardized"] | Weighted = Field(
        default="pooled", validate_default=True
    )
    """How changes of several metrics become one: the change of their sum (Eq. 1 of the paper), the
    mean of their relative changes, the mean of their changes in units of noise, or the change of a
    total: ``{weighted: {quality: 4, semantic: 1}}``, which also says what the score is made of. Of
    a metric that is better when less, a fall is a change for the better; sums and totals cannot
    have one."""
    alpha: float = Field(default=0.05, ge=1e-6, le=0.5)
    """Family-wise error: how often null data may give any verdict other than undecided."""

    @field_validator("metrics")
    @classmethod
    def _once(cls, metrics: list[Any]) -> list[Any]:
        known_metrics(metrics)
        return metrics

    @field_validator("aggregate")
    @classmethod
    def _formed(cls, aggregate: str | Weighted, info: ValidationInfo) -> str | Weighted:
        if "metrics" not in info.data or "score" not in info.data:
            return aggregate
        if isinstance(aggregate, Weighted):
            return cls._total(aggregate, info)
        score = named(info.data["score"])
        metrics = ScoreMetrics(score, promised(info.data["metrics"]))
        names = metrics.chosen(known_metrics(info.data["metrics"]) or score or ())
        less = [name for name in names if metrics.sign(name) < 0]
        if aggregate == "pooled" and less:
            raise ValueError(
                f"'pooled' sums the metrics, but {', '.join(less)} is better when less; allowed: "
                "mean_relative, standardized, or a score without it"
            )
        if not names and known_metrics(info.data["metrics"]) is not None:
            raise ValueError("no metric is part of the score by default: name some as 'score'")
        return aggregate

    @classmethod
    def _total(cls, aggregate: Weighted, info: ValidationInfo) -> Weighted:
        weighed, score = list(aggregate.weighted), info.data["score"]
        own = named(score) or ()
        if score is not None and set(own) != set(weighed):
            raise ValueError(
                f"the score is of {', '.join(own) or score}, the weights of {', '.join(weighed)}: "
                "leave out 'score', or name the same metrics"
            )
        cls._known(weighed, info)
        metrics = ScoreMetrics(tuple(weighed), promised(info.data["metrics"]))
        if less := [name for name in weighed if metrics.sign(name) < 0]:
            raise ValueError(
                f"a total cannot have {', '.join(less)}, which is better when less; allowed: "
                "mean_relative, standardized"
            )
        return aggregate

    @property
    def kind(self) -> Aggregate:
        """The aggregate without its weights."""
        if isinstance(self.aggregate, Weighted):
            return Aggregate.WEIGHTED
        return Aggregate(self.aggregate)

    def score_metrics(self) -> ScoreMetrics:
        """Return which metrics make the score, and what evaluators say of all of theirs."""
        known = promised(self.metrics)
        if isinstance(self.aggregate, Weighted):
            weights = self.aggregate.weighted
            return ScoreMetrics(tuple(weights), known, tuple(weights.items()))
        return ScoreMetrics(named(self.score), known, informative=self.score == INFORMATIVE)

    def scales(self) -> str | None:
        """Return what is to be known of a sum of metrics on different scales; None if nothing.

        Only metrics whose range is known beforehand can be told apart: points beside fractions.
        """
        if self.kind is not Aggregate.POOLED:
            return None
        score = self.score_metrics()
        names = score.chosen(known_metrics(self.metrics) or score.names or ())
        highest = {name: score.metric(name).high for name in names}
        tops = [high for high in highest.values() if high is not None]
        if not tops or max(tops) < 10 * min(tops):
            return None
        small = [name for name, high in highest.items() if high is not None and high <= min(tops)]
        large = [name for name, high in highest.items() if high == max(tops)]
        return (
            f"the score 'pooled' sums metrics on different scales: {', '.join(large)} of up to "
            f"{max(tops):g} beside {', '.join(small)} of up to {min(tops):g}: what the "
            "larger ones do decides; mean_relative, standardized or weights treat them alike"
        )

    def benchmarks(self) -> dict[int, Source]:
        """Return where the samples of benchmarks come from, by their places in ``metrics``."""
        own = (EVALUATORS.get(config.type)(config).source() for config in self.metrics)
        return {index: source for index, source in enumerate(own) if source is not None}

    def sources(self) -> list[Source]:
        """Return where samples come from: the trusted split, if any, and benchmarks in order."""
        trusted = [] if self.dataset is None else [SOURCES.get(self.dataset.type)(self.dataset)]
        return [*trusted, *self.benchmarks().values()]

    @field_validator("score")
    @classmethod
    def _known(cls, score: list[str] | str | None, info: ValidationInfo) -> list[str] | str | None:
        if score is None or isinstance(score, str) or "metrics" not in info.data:
            return score
        if len(set(score)) < len(score):
            raise ValueError("a metric stands twice")
        known = known_metrics(info.data["metrics"])
        for name in score:
            if known is not None and name not in known:
                hint, listed = nearest(name, known), ", ".join(known)
                raise ValueError(f"no evaluator gives {name!r}{hint} (known: {listed})")
        return score


def named(score: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the metrics that a score names; None where it is of all, or of those that see."""
    return None if score is None or score == INFORMATIVE else tuple(score)


def promised(configs: list[Component]) -> tuple[Metric, ...]:
    """Return the metrics that evaluators can name before anything is measured."""
    found = (EVALUATORS.get(config.type)(config).metrics() for config in configs)
    return tuple(metric for metrics in found for metric in metrics or ())


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
