"""Trials as scores: one number per pool and seed, on one yardstick.

The metrics of a trial become one number, its change against the control (:class:`Aggregate`,
:func:`relative_change`). What the changes are measured from is the control trials' mean per metric,
and with ``standardized`` what they are measured in is its noise: the :class:`Yardstick` of a run.
:class:`StudyScores` are the trials of a study, checked and arranged, from which it takes the
scores. A change is one for the better when it is positive, whichever way a metric counts. All
aggregates are linear in the scores, so that the mean of per-seed changes equals the change of the
mean scores.

The noise that weighs metrics must not come from the controls alone, which then measure the noise of
the score: metrics in which they happen to differ little would count too much, and the controls
would seem steadier than pools are (8 to 12 controls and whole buckets: 7 to 11 % false verdicts at
nominal 5 %). It comes from all arms alike: the median absolute deviation of trials from what their
arm and their seed say, which no effect of a pool is in, nor a few trials that went wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.grid import Grid, Key, completed_metrics, trial_grid
from djsandbox_ray.analysis.verdicts.sensitivity import informative, sensitivities
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Aggregate, Pool, PoolKind, TrialRecord

Floats = NDArray[np.float64]
T = TypeVar("T")

_SUMS = (Aggregate.POOLED, Aggregate.WEIGHTED)
_NEAR_ZERO = 3.0
"""Standard deviations of control trials that their mean must be from zero to be divided by."""
_STEADIEST = 0.25
"""Least noise of a metric, in parts of its size, over the median of all metrics: one that is nearly
the same in all trials, such as a saturated one, must not decide alone."""
NORMAL_MAD = 0.6744897501960817
"""Median absolute deviation of a standard normal variable."""


def relative_change(
    scores: Sequence[float],
    baseline: Sequence[float],
    aggregate: Aggregate | str,
    *,
    noise: Sequence[float] | None = None,
    less: Sequence[bool] | None = None,
    weights: Sequence[float] | None = None,
) -> float:
    """Aggregate the change of several metrics against their baseline.

    Args:
        scores: s, one value per metric.
        baseline: s', the control's values of the same metrics, in the same order.
        aggregate: see :class:`Aggregate`.
        noise: of each metric; needed by (and only by) ``standardized``. Centring on chance is not
            needed: it cancels in s - s'.
        less: of each metric, whether it is better when less: then its change is s' - s. None: all
            are better when greater.
        weights: of each metric; needed by (and only by) ``weighted``.

    Returns:
        A fraction (0.05 is +5 %); for ``standardized`` a number of control standard deviations.

    Raises:
        ValueError: unknown aggregate; no metrics; lengths that differ; NaN or infinite values;
            a baseline that is divided by and is not positive (a negative one would turn better
            into worse); a noise or weight that is missing or not positive; ``pooled`` or
            ``weighted`` of a metric that is better when less.
    """
    kind = _aggregate(aggregate)
    s, control = _vector("scores", scores), _vector("baseline", baseline)
    _same_length("scores", s, control)
    signs = np.ones(len(s)) if less is None else np.where(np.asarray(less, dtype=bool), -1.0, 1.0)
    _same_length("less", signs, control)
    if kind in _SUMS:
        factors = np.ones(len(s))
        if kind is Aggregate.WEIGHTED:
            factors = _factors("weights", weights, control, "how much each metric counts")
        # Differences first: s and s' are often equal to many digits.
        if (signs < 0).any():
            raise ValueError(f"{kind.value} sums metrics: all must be better when greater")
        total = math.fsum(factors * control)
        _positive(f"the sum of the baseline, which {kind.value} divides by,", total)
        return math.fsum(factors * (s - control)) / total
    if kind is Aggregate.MEAN_RELATIVE:
        scale = control
        for index, value in enumerate(scale):
            _positive(f"baseline[{index}], which mean_relative divides by,", float(value))
    else:
        scale = _factors("noise", noise, control, "what trials of each metric vary by")
    return math.fsum(signs * (s - control) / scale) / len(s)


def _factors(name: str, values: Sequence[float] | None, baseline: Floats, what: str) -> Floats:
    """Check what an aggregate needs beside the scores."""
    if values is None:
        raise ValueError(f"the aggregate needs {name}: {what}")
    found = _vector(name, values)
    _same_length(name, found, baseline)
    for index, value in enumerate(found):
        _positive(f"{name}[{index}]", float(value))
    return found


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
    """What trials of each metric vary by, by which ``standardized`` weighs it: robust, from all
    arms, without what an arm or a seed does to all its trials. All have a common factor, so that
    control trials vary by one on average over the metrics."""
    aggregate: Aggregate
    less: tuple[bool, ...] | None = None
    """Of each metric, whether it is better when less; None for none of them."""
    weights: tuple[float, ...] | None = None
    """Of each metric, in a ``weighted`` total."""

    @classmethod
    def from_controls(
        cls,
        controls: Mapping[Key, Mapping[str, float]],
        metrics: ScoreMetrics | Sequence[str] | None,
        aggregate: Aggregate | str,
        others: Mapping[Key, Mapping[str, float]] | None = None,
        spoilt: Mapping[Key, Mapping[str, float]] | None = None,
    ) -> Yardstick:
        """Measure the completed control trials, and the noise of all.

        Args:
            controls: final metrics by arm and seed; the same metrics everywhere, and at least two
                arms with a common seed.
            metrics: what is aggregated, and which way each counts; all metrics when None.
            aggregate: see :class:`Aggregate`.
            others: final metrics of the trials of other arms, whose noise counts too; before they
                are trained there are none.
            spoilt: final metrics of self-tests whose samples are spoilt, which say which metrics
                count where those are asked for that see them; without any, all do.

        Raises:
            BadInput: unknown aggregate or metric; no metrics; a baseline that the aggregate cannot
                divide by, or that noise may bring near zero; no noise in any metric.
        """
        score = ScoreMetrics.of(metrics)
        names = _chosen(next(iter(controls.values())), score)
        if score.informative and spoilt:
            names = informative(sensitivities(controls, spoilt, score), names)
        if aggregate not in list(Aggregate):
            raise BadInput(f"unknown aggregate {aggregate!r} (allowed: {', '.join(Aggregate)})")
        table = np.array([[trial[name] for name in names] for trial in controls.values()])
        spread = _within_seeds(table, [seed for _, seed in controls])
        noise = _noise({**controls, **(others or {})}, names)
        common = noise > 0
        if common.any():
            noise = noise * ((spread[common] / noise[common]).mean() or 1.0)
        yardstick = cls(
            metrics=names,
            baseline=tuple(table.mean(axis=0).tolist()),
            noise=tuple(noise.tolist()),
            aggregate=Aggregate(aggregate),
            less=tuple(score.sign(name) < 0 for name in names),
            weights=tuple(score.weight(name) for name in names),
        )
        yardstick._check()
        yardstick._check_distance(spread)
        return yardstick

    def change(self, metrics: Mapping[str, float]) -> float:
        """Return the aggregated change of a trial with these metrics."""
        scores = [metrics[name] for name in self.metrics]
        noise = self.noise if self.aggregate is Aggregate.STANDARDIZED else None
        return relative_change(
            scores,
            self.baseline,
            self.aggregate,
            noise=noise,
            less=self.less,
            weights=self.weights,
        )

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
            weights=None if self.weights is None else rest(self.weights),
        )
        yardstick._check()
        return yardstick

    def _check(self) -> None:
        """Refuse, by the name of the metric, what the aggregate cannot divide by, or sum."""
        less = [
            name for name, is_less in zip(self.metrics, self.less or (), strict=False) if is_less
        ]
        if less and self.aggregate in _SUMS:
            raise BadInput(
                f"the aggregate {self.aggregate.value!r} sums the metrics, but {less[0]!r} is "
                "better when less; choose another aggregate, or metrics without it"
            )
        if self.aggregate in _SUMS:
            weights = self.weights if self.aggregate is Aggregate.WEIGHTED else None
            factors = weights or (1.0,) * len(self.baseline)
            total = sum(w * value for w, value in zip(factors, self.baseline, strict=True))
            divisors = {"sum of all metrics": total}
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

    def _check_distance(self, spread: Floats) -> None:
        """Refuse to divide by a mean that noise may bring near zero, by the name of the metric."""
        if self.aggregate is not Aggregate.MEAN_RELATIVE:
            return
        for name, mean, own in zip(self.metrics, self.baseline, spread.tolist(), strict=True):
            if mean < _NEAR_ZERO * own:
                raise BadInput(
                    f"the aggregate 'mean_relative' divides by the control trials' mean of "
                    f"{name!r}, which is {mean:.3g} and only {mean / own:.1f} of their standard "
                    f"deviations from zero ({_NEAR_ZERO:g} are needed); choose another aggregate, "
                    "or metrics without it"
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


def _noise(trials: Mapping[Key, Mapping[str, float]], names: Sequence[str]) -> Floats:
    """What trials of each metric vary by, (metrics,); 0 for all where nothing varies."""
    arms = list(dict.fromkeys(arm for arm, _ in trials))
    seeds = list(dict.fromkeys(seed for _, seed in trials))
    table = np.full((len(arms), len(seeds), len(names)), np.nan)
    for (arm, seed), metrics in trials.items():
        table[arms.index(arm), seeds.index(seed)] = [metrics[name] for name in names]
    size = np.nanmedian(np.abs(table), axis=(0, 1))
    size = np.where(size > 0, size, np.nanmax(np.abs(table), axis=(0, 1)))
    several = np.isfinite(table[..., 0]).sum(axis=1) > 1
    left = table
    if several.any():  # else there is one trial per arm, and what an arm does is in it
        left = table[several] - np.nanmean(table[several], axis=1, keepdims=True)
    left = left - np.nanmedian(left, axis=0)
    noise = np.nanmedian(np.abs(left), axis=(0, 1)) / NORMAL_MAD
    rounding = np.isfinite(table).sum() * np.finfo(np.float64).eps * size
    noise = np.where(noise <= rounding, 0.0, noise)
    # A metric that is zero everywhere has no size, and no change either.
    size = np.where(size > 0, size, 1.0)
    noisy = noise > 0
    least = _STEADIEST * np.median(noise[noisy] / size[noisy]) if noisy.any() else 0.0
    return np.maximum(noise, least * size)


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
    spoilt: Sequence[str] = ()
    """The self-tests whose samples are spoilt."""

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
        spoilt = [pool.id for pool in pools if pool.spoil is not None]
        return cls(grid, seeds, measured, controls, arms, spoilt)

    def finals(self, pool: str) -> list[Mapping[str, float]]:
        """Return the final metrics of a pool's completed trials."""
        return [self.measured[pool, seed] for seed in self.seeds if (pool, seed) in self.measured]

    def control_metrics(self) -> dict[Key, Mapping[str, float]]:
        """Return the final metrics of the completed control trials."""
        return {key: values for key, values in self.measured.items() if key[0] in self.controls}

    def spoilt_metrics(self) -> dict[Key, Mapping[str, float]]:
        """Return the final metrics of the completed trials of self-tests that are spoilt."""
        return {key: values for key, values in self.measured.items() if key[0] in self.spoilt}

    def yardstick(
        self, metrics: ScoreMetrics | Sequence[str] | None, aggregate: Aggregate | str
    ) -> Yardstick:
        """Return the unit that the controls of this study make.

        Raises:
            BadInput: see :meth:`Yardstick.from_controls`.
        """
        return Yardstick.from_controls(
            self.control_metrics(), metrics, aggregate, self.measured, self.spoilt_metrics()
        )

    def scores(self, pool: str, yardstick: Yardstick) -> Floats:
        """Return the scores of a pool, shape (seeds,); NaN where no trial was completed."""
        found = (self.measured.get((pool, seed)) for seed in self.seeds)
        return np.array([math.nan if m is None else yardstick.change(m) for m in found])

    def control_scores(self, yardstick: Yardstick) -> Floats:
        """Return the scores of the complete arms, shape (arms, seeds)."""
        return np.stack([self.scores(name, yardstick) for name in self.arms])
