"""Which metrics a statistic moves: the changes of its pools, as a column to correlate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from djsandbox_ray.analysis.aggregate import Aggregate
from djsandbox_ray.analysis.correlation import Floats
from djsandbox_ray.analysis.scores import Study
from djsandbox_ray.analysis.yardstick import Yardstick
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Pool, PoolKind, TrialRecord


@dataclass(frozen=True, eq=False)
class Profiles:
    """What the pools of every statistic do to every metric."""

    statistics: tuple[str, ...]
    metrics: tuple[str, ...]
    table: Floats
    """(buckets x metrics, statistics): mean over seeds of the change against the controls, in
    their standard deviations; NaN where no trial was completed (given up early, or failed)."""
    turned: tuple[str, ...]
    """Statistics whose buckets are read from high to low."""
    left_out: dict[str, str]
    """Metrics that say nothing, and why."""


def metric_profiles(
    pools: Sequence[Pool],
    trials: Iterable[TrialRecord],
    *,
    seeds: Sequence[int],
    metrics: Sequence[str] | None = None,
) -> Profiles:
    """Return the profile of every statistic that has pools.

    Metrics are put on one scale by the noise of the controls, so that none outweighs the others.
    A statistic has no direction of its own: it and its negative make the same pools under swapped
    names. Its buckets are therefore read from the end whose mean change is less to the end whose
    mean change is greater; profiles are alike if the statistics' good ends move the same metrics.

    Args:
        pools: of the single-operator stage; the buckets of a statistic from low to high.
        trials: exactly one finished trial for every pool and seed.
        seeds: of the study.
        metrics: which ones; None for all.

    Raises:
        BadInput: an unknown metric; no statistic has pools, or two have other numbers of them; see
            :class:`djsandbox_ray.analysis.scores.Study`.
        SandboxError: too few complete controls.
    """
    study = Study.of(pools, trials, seeds)
    by_statistic: dict[str, list[str]] = {}
    for pool in pools:
        if pool.kind is PoolKind.BUCKET and pool.statistic is not None:
            by_statistic.setdefault(pool.statistic, []).append(pool.id)
    if len({len(ids) for ids in by_statistic.values()}) != 1:
        counts = {name: len(ids) for name, ids in by_statistic.items()}
        raise BadInput(f"pools per statistic: {counts}; every one needs the same number")
    yardsticks, left_out = _yardsticks(study, metrics)
    columns, turned = [], []
    for name, ids in by_statistic.items():
        changes = np.array([[_change(study, pool, y) for y in yardsticks.values()] for pool in ids])
        if _falls(changes):
            turned.append(name)
            changes = changes[::-1]
        columns.append(changes.ravel())
    return Profiles(
        statistics=tuple(by_statistic),
        metrics=tuple(yardsticks),
        table=np.stack(columns, axis=1),
        turned=tuple(turned),
        left_out=left_out,
    )


def _yardsticks(
    study: Study, metrics: Sequence[str] | None
) -> tuple[dict[str, Yardstick], dict[str, str]]:
    """Return one yardstick per metric, and why a metric has none."""
    controls = study.control_metrics()
    known = list(next(iter(controls.values())))
    wanted = known if metrics is None else metrics
    found, left_out = {}, {}
    for name in wanted:
        if name not in known:
            raise BadInput(f"no trial has the metric {name!r} (there are: {', '.join(known)})")
        try:
            found[name] = Yardstick.from_controls(controls, [name], Aggregate.STANDARDIZED)
        except BadInput:
            left_out[name] = "the same in all control trials: there is no noise to measure it by"
    return found, left_out


def _change(study: Study, pool: str, yardstick: Yardstick) -> float:
    """Return the mean over seeds of a pool's change within seeds; NaN if no trial completed."""
    changes = study.scores(pool, yardstick) - study.control_scores(yardstick).mean(axis=0)
    known = changes[~np.isnan(changes)]
    return float(known.mean()) if len(known) else np.nan


def _falls(changes: Floats) -> bool:
    """Say whether the mean change falls from the first bucket to the last, (buckets, metrics)."""
    known = ~np.isnan(changes).all(axis=1)
    if known.sum() < 2:
        return False
    means = np.nanmean(changes[known], axis=1)
    places = np.flatnonzero(known)
    return float((places - places.mean()) @ means) < 0
