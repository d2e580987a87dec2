"""What the trials of a run are measured against: the control trials' mean and noise per metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from djsandbox_ray.analysis.aggregate import Aggregate, relative_change
from djsandbox_ray.analysis.grid import Key
from djsandbox_ray.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Yardstick:
    """Turns the metrics of a trial into its score: the aggregated change against the controls."""

    metrics: tuple[str, ...]
    """What is aggregated, in order."""
    baseline: tuple[float, ...]
    """Mean of each metric over the control trials."""
    noise: tuple[float, ...]
    """Standard deviation of each metric among the control trials of one seed, pooled over seeds:
    what a seed does to all arms alike is not noise, as trials are compared within seeds."""
    aggregate: Aggregate

    @classmethod
    def from_controls(
        cls,
        controls: Mapping[Key, Mapping[str, float]],
        metrics: Sequence[str] | None,
        aggregate: Aggregate | str,
    ) -> Yardstick:
        """Measure the completed control trials.

        Args:
            controls: final metrics by arm and seed; the same metrics everywhere, and at least two
                arms with a common seed.
            metrics: what is aggregated; all metrics when None.
            aggregate: see :class:`Aggregate`.

        Raises:
            BadInput: unknown aggregate or metric; no metrics; a baseline or noise that the
                aggregate cannot divide by.
        """
        names = _chosen(next(iter(controls.values())), metrics)
        if aggregate not in list(Aggregate):
            raise BadInput(f"unknown aggregate {aggregate!r} (allowed: {', '.join(Aggregate)})")
        table = np.array([[trial[name] for name in names] for trial in controls.values()])
        yardstick = cls(
            metrics=names,
            baseline=tuple(table.mean(axis=0).tolist()),
            noise=tuple(_within_seeds(table, [seed for _, seed in controls]).tolist()),
            aggregate=Aggregate(aggregate),
        )
        yardstick._check()
        return yardstick

    def change(self, metrics: Mapping[str, float]) -> float:
        """Return the aggregated change of a trial with these metrics."""
        scores = [metrics[name] for name in self.metrics]
        noise = self.noise if self.aggregate is Aggregate.STANDARDIZED else None
        return relative_change(scores, self.baseline, self.aggregate, noise=noise)

    def without(self, metric: str) -> Yardstick:
        """Return the same yardstick with one metric less.

        Raises:
            ValueError: not one of the metrics.
            BadInput: no metric is left, or the aggregate cannot divide by what is left.
        """
        place = self.metrics.index(metric)
        if len(self.metrics) == 1:
            raise BadInput(f"{metric!r} is the only metric of the score")

        def rest(values: tuple[T, ...]) -> tuple[T, ...]:
            return values[:place] + values[place + 1 :]

        yardstick = replace(
            self,
            metrics=rest(self.metrics),
            baseline=rest(self.baseline),
            noise=rest(self.noise),
        )
        yardstick._check()
        return yardstick

    def _check(self) -> None:
        """Refuse, by the name of the metric, what the aggregate cannot divide by."""
        if self.aggregate is Aggregate.POOLED:
            divisors = {"sum of all metrics": sum(self.baseline)}
        elif self.aggregate is Aggregate.MEAN_RELATIVE:
            divisors = dict(zip(self.metrics, self.baseline, strict=True))
        else:
            divisors = dict(zip(self.metrics, self.noise, strict=True))
        what = "noise" if self.aggregate is Aggregate.STANDARDIZED else "mean"
        for name, value in divisors.items():
            if not value > 0:
                raise BadInput(
                    f"the aggregate {self.aggregate.value!r} divides by the control trials' "
                    f"{what} of {name!r}, which is {value}; choose another aggregate, or metrics "
                    "without it"
                )


def _chosen(available: Mapping[str, float], metrics: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(available if metrics is None else metrics)
    known = ", ".join(available) or "none"
    for name in names:
        if name not in available:
            raise BadInput(f"no trial has the metric {name!r} (there are: {known})")
    if not names or len(set(names)) != len(names):
        raise BadInput(
            f"metrics are {list(names)}; at least one is needed, each once (there are: {known})"
        )
    return names


def _within_seeds(table: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Standard deviation within seeds of a table of shape (trials, metrics)."""
    squares = np.zeros(table.shape[1])
    freedom = 0
    for seed in dict.fromkeys(seeds):
        rows = table[np.array(seeds) == seed]
        squares += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)
        freedom += len(rows) - 1
    noise = np.sqrt(squares / freedom)
    # What rounding alone makes of equal values is no noise.
    rounding = len(table) * np.finfo(np.float64).eps * np.abs(table).max(axis=0)
    return np.where(noise <= rounding, 0.0, noise)
