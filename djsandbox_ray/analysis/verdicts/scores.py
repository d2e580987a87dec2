"""Trials as scores: one number per pool and seed, on one yardstick.

The metrics of a trial become one number, its change against the control (:class:`Aggregate`,
:func:`relative_change`). What the changes are measured from, and with ``standardized`` in, is the
control trials' mean and noise per metric: the :class:`Yardstick` of a run. :class:`StudyScores`
are the trials of a study, checked and arranged, from which it takes the scores. A change is one for
the better when it is positive, whichever way a metric counts. All three aggregates are linear in
the scores, so that the mean of per-seed changes equals the change of the mean scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.grid import Grid, Key, completed_metrics, trial_grid
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Aggregate, Pool, PoolKind, TrialRecord

Floats = NDArray[np.float64]
T = TypeVar("T")


def relative_change(
    scores: Sequence[float],
    baseline: Sequence[float],
    aggregate: Aggregate | str,
    *,
    noise: Sequence[float] | None = None,
    less: Sequence[bool] | None = None,
) -> float:
    """Aggregate the change of several metrics against their baseline.

    Args:
        scores: s, one value per metric.
        baseline: s', the control's values of the same metrics, in the same order.
        aggregate: ``pooled``, ``mean_relative`` or ``standardized``; see :class:`Aggregate`.
        noise: standard deviation of each metric among control trials; needed by (and only by)
            ``standardized``. Centring on chance is not needed: it cancels in s - s'.
        less: of each metric, whether it is better when less: then its change is s' - s. None: all
            are better when greater.

    Returns:
        A fraction (0.05 is +5 %); for ``standardized`` a number of control standard deviations.

    Raises:
        ValueError: unknown aggregate; no metrics; lengths that differ; NaN or infinite values;
            a baseline that is divided by and is not positive (a negative one would turn better
            into worse); a noise that is missing or not positive; ``pooled`` of a metric that is
            better when less.
    """
    kind = _aggregate(aggregate)
    s, control = _vector("scores", scores), _vector("baseline", baseline)
    _same_length("scores", s, control)
    signs = np.ones(len(s)) if less is None else np.where(np.asarray(less, dtype=bool), -1.0, 1.0)
    _same_length("less", signs, control)
    if kind is Aggregate.POOLED:
        # Differences first: s and s' are often equal to many digits.
        if (signs < 0).any():
            raise ValueError("pooled sums metrics: all must be better when greater")
        total = math.fsum(control)
        _positive("the sum of the baseline, which pooled divides by,", total)
        return math.fsum(s - control) / total
    if kind is Aggregate.MEAN_RELATIVE:
        scale = control
    elif noise is None:
        raise ValueError(
            "the aggregate 'standardized' needs noise: "
            "the standard deviation of each metric among control trials"
        )
    else:
        scale = _vector("noise", noise)
        _same_length("noise", scale, control)
    name = "baseline" if kind is Aggregate.MEAN_RELATIVE else "noise"
    for index, value in enumerate(scale):
        _positive(f"{name}[{index}], which {kind.value} divides by,", float(value))
    return math.fsum(signs * (s - control) / scale) / len(s)


def _aggregate(name: Aggregate | str) -> Aggregate:
    try:
        return Aggregate(name)
    except ValueError:
        known = ", ".join(Aggregate)
        raise ValueError(f"unknown aggregate {name!r} (allowed: {known})") from None


def _vector(name: str, values: Sequence[float]) -> Floats:
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a sequence of numbers: {error}") from error
    if vector.ndim != 1 or not len(vector):
        raise ValueError(
            f"{name} has shape {vector.shape}; one value per metric is needed, and at least one"
        )
    bad = np.flatnonzero(~np.isfinite(vector))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {vector[bad[0]]}; finite numbers are needed")
    return vector


def _same_length(name: str, values: Floats, baseline: Floats) -> None:
    if len(values) != len(baseline):
        raise ValueError(
            f"{name} has {len(values)} values and baseline {len(baseline)}; "
            "they must be the same metrics in the same order"
        )


def _positive(what: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{what} is {value}; it must be positive")


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
    less: tuple[bool, ...] | None = None
    """Of each metric, whether it is better when less; None for none of them."""

    @classmethod
    def from_controls(
        cls,
        controls: Mapping[Key, Mapping[str, float]],
        metrics: ScoreMetrics | Sequence[str] | None,
        aggregate: Aggregate | str,
    ) -> Yardstick:
        """Measure the completed control trials.

        Args:
            controls: final metrics by arm and seed; the same metrics everywhere, and at least two
                arms with a common seed.
            metrics: what is aggregated, and which way each counts; all metrics when None.
            aggregate: see :class:`Aggregate`.

        Raises:
            BadInput: unknown aggregate or metric; no metrics; a baseline or noise that the
                aggregate cannot divide by.
        """
        score = ScoreMetrics.of(metrics)
        names = _chosen(next(iter(controls.values())), score)
        if aggregate not in list(Aggregate):
            raise BadInput(f"unknown aggregate {aggregate!r} (allowed: {', '.join(Aggregate)})")
        table = np.array([[trial[name] for name in names] for trial in controls.values()])
        yardstick = cls(
            metrics=names,
            baseline=tuple(table.mean(axis=0).tolist()),
            noise=tuple(_within_seeds(table, [seed for _, seed in controls]).tolist()),
            aggregate=Aggregate(aggregate),
            less=tuple(score.sign(name) < 0 for name in names),
        )
        yardstick._check()
        return yardstick

    def change(self, metrics: Mapping[str, float]) -> float:
        """Return the aggregated change of a trial with these metrics."""
        scores = [metrics[name] for name in self.metrics]
        noise = self.noise if self.aggregate is Aggregate.STANDARDIZED else None
        return relative_change(scores, self.baseline, self.aggregate, noise=noise, less=self.less)

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
            less=None if self.less is None else rest(self.less),
        )
        yardstick._check()
        return yardstick

    def _check(self) -> None:
        """Refuse, by the name of the metric, what the aggregate cannot divide by, or sum."""
        less = [
            name for name, is_less in zip(self.metrics, self.less or (), strict=False) if is_less
        ]
        if less and self.aggregate is Aggregate.POOLED:
            raise BadInput(
                f"the aggregate 'pooled' sums the metrics, but {less[0]!r} is better when less; "
                "choose another aggregate, or metrics without it"
            )
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


def _chosen(available: Mapping[str, float], metrics: ScoreMetrics) -> tuple[str, ...]:
    names = metrics.chosen(available)
    known = ", ".join(available) or "none"
    for name in names:
        if name not in available:
            raise BadInput(f"no trial has the metric {name!r} (there are: {known})")
    if not names or len(set(names)) != len(names):
        raise BadInput(
            f"metrics are {list(names)}; at least one is needed, each once (there are: {known})"
        )
    return names


def _within_seeds(table: Floats, seeds: Sequence[int]) -> Floats:
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


@dataclass(frozen=True)
class StudyScores:
    """What the trials of a study measured."""

    grid: Grid
    """All trials, by pool and seed."""
    seeds: Sequence[int]
    measured: Mapping[Key, Mapping[str, float]]
    """Final metrics of the completed trials."""
    controls: Sequence[str]
    """The control pools."""
    arms: Sequence[str]
    """The control pools that completed all their trials."""

    @classmethod
    def of(
        cls, pools: Sequence[Pool], trials: Iterable[TrialRecord], seeds: Sequence[int]
    ) -> StudyScores:
        """Check the trials and arrange them.

        Raises:
            BadInput: see :func:`.grid.trial_grid` and
                :func:`.grid.completed_metrics`; fewer than 3 control pools.
            SandboxError: so many control trials failed that fewer than 3 arms are complete.
        """
        grid = trial_grid(pools, trials, seeds)
        measured = completed_metrics(grid)
        controls = [pool.id for pool in pools if pool.kind is PoolKind.CONTROL]
        if len(controls) < MIN_CONTROL_ARMS:
            raise BadInput(f"{len(controls)} control pools; at least {MIN_CONTROL_ARMS} are needed")
        arms = [name for name in controls if all((name, seed) in measured for seed in seeds)]
        if len(arms) < MIN_CONTROL_ARMS:
            raise SandboxError(
                f"only {len(arms)} of {len(controls)} control arms completed all their trials; "
                f"at least {MIN_CONTROL_ARMS} are needed to measure the noise between arms"
            )
        return cls(grid, seeds, measured, controls, arms)

    def finals(self, pool: str) -> list[Mapping[str, float]]:
        """Return the final metrics of a pool's completed trials."""
        return [self.measured[pool, seed] for seed in self.seeds if (pool, seed) in self.measured]

    def control_metrics(self) -> dict[Key, Mapping[str, float]]:
        """Return the final metrics of the completed control trials."""
        return {key: values for key, values in self.measured.items() if key[0] in self.controls}

    def scores(self, pool: str, yardstick: Yardstick) -> Floats:
        """Return the scores of a pool, shape (seeds,); NaN where no trial was completed."""
        found = (self.measured.get((pool, seed)) for seed in self.seeds)
        return np.array([math.nan if m is None else yardstick.change(m) for m in found])

    def control_scores(self, yardstick: Yardstick) -> Floats:
        """Return the scores of the complete arms, shape (arms, seeds)."""
        return np.stack([self.scores(name, yardstick) for name in self.arms])
