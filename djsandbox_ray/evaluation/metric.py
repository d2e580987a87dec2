"""What a metric is called, how its numbers are to be read, and which metrics make a score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One number that an evaluator gives for a model."""

    name: str
    """Its full name, such as ``retrieval/image_to_text_r5``."""
    better: Literal["greater", "less"] = "greater"
    """Which of two models with different numbers is the better one."""
    low: float | None = None
    """The least number there can be; None where there is none."""
    high: float | None = None
    """The greatest number there can be; None where there is none."""
    chance: float | None = None
    """What a model that knows nothing gets on average."""
    scored: bool = True
    """Whether it is part of the score by default; sub-scores and shares of unreadable answers are
    shown beside it."""
    suspect_above: float | None = None
    """The report warns of a pool whose mean is greater: the other metrics of its evaluator then say
    little, such as the F1 of a model that answers yes to everything."""

    @property
    def shown(self) -> str:
        """Its name for tables; of one that is better when less, with an arrow."""
        return f"{self.name} ↓" if self.better == "less" else self.name

    def error(self, value: float) -> float | None:
        """Return how far a value is from the best one, as a share of the range; 0 to 1.

        A range that is not known is taken to be 0 to 1. None where a value lies outside.
        """
        low, high = (0.0, 1.0) if None in (self.low, self.high) else (self.low, self.high)
        if low is None or high is None or not low <= value <= high or low == high:
            return None
        return (value - low if self.better == "less" else high - value) / (high - low)


@dataclass(frozen=True)
class ScoreMetrics:
    """Which metrics make the score of a trial, and what is known of all."""

    names: tuple[str, ...] | None = None
    """Those that were asked for; None for all but those that are known to be no part by default."""
    known: tuple[Metric, ...] = ()
    weights: tuple[tuple[str, float], ...] = ()
    """By name, of the aggregate ``weighted``."""
    informative: bool = False
    """Whether only those of them count by which self-tests are seen: verdicts go by these, as soon
    as there are self-tests to ask; what compares trials while they run, by all."""

    @classmethod
    def of(cls, metrics: ScoreMetrics | Sequence[str] | None) -> ScoreMetrics:
        """Return names, or None for all, as metrics of which nothing else is known."""
        if isinstance(metrics, ScoreMetrics):
            return metrics
        return cls(None if metrics is None else tuple(metrics))

    def chosen(self, available: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the score's metrics, where a model has these metrics."""
        if self.names is not None:
            return self.names
        shown = {metric.name for metric in self.known if not metric.scored}
        return tuple(name for name in available if name not in shown)

    def metric(self, name: str) -> Metric:
        """Return a metric by name; one of which nothing is known is better when greater."""
        return next((metric for metric in self.known if metric.name == name), Metric(name))

    def weight(self, name: str) -> float:
        """Return the weight of a metric; 1 where none are given."""
        return dict(self.weights).get(name, 1.0)

    def sign(self, name: str) -> int:
        """Return 1 for a metric that is better when greater, -1 for one that is when less."""
        return -1 if self.metric(name).better == "less" else 1

    def mean(self, metrics: Mapping[str, float]) -> float | None:
        """Return the mean of the score's metrics, those that are better when less with a minus.

        It compares trials while they run; verdicts go by changes against the controls.

        Args:
            metrics: of a model, by name.

        Returns:
            None where the model has none of them, or lacks one.
        """
        names = self.chosen(metrics)
        if not names or not all(name in metrics for name in names):
            return None
        return fmean(self.sign(name) * metrics[name] for name in names)
