"""Statistics that are alike, in clusters, and the best pool of each cluster.

Statistics are alike by their values on the samples, or by what their pools do to the metrics:
:func:`metric_profiles` makes a column of every statistic's changes, to be correlated as values
are. :func:`ward` clusters what correlates, :func:`best_of_each` picks a pool of every cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from djsandbox_ray.analysis.together.correlation import Correlation, Floats
from djsandbox_ray.analysis.verdicts.scores import StudyScores, Yardstick
from djsandbox_ray.analysis.verdicts.second_look import Candidate
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Aggregate, Pool, PoolKind, TrialRecord


@dataclass(frozen=True, eq=False)
class Clustering:
    """A tree of names and its cut into clusters."""

    names: tuple[str, ...]
    """In alphabetical order: leaf i of the tree is ``names[i]``."""
    linkage: Floats
    """(names - 1, 4): the tree as :func:`scipy.cluster.hierarchy.linkage` writes it."""
    order: tuple[str, ...]
    """The names as the leaves of the drawn tree, from the left: neighbours are alike."""
    clusters: tuple[tuple[str, ...], ...]
    """The members of every cluster, all in ``order``."""


def distances(matrix: Floats, *, absolute: bool) -> Floats:
    """Return d = sqrt(2 (1 - r)), the Euclidean distance of standardised columns of norm 1.

    With ``absolute``, |r| stands for r: a column and its negative are the same thing then. That
    is the distance after one of the two is turned round; among three or more columns it need not
    be Euclidean. A pair without a correlation (NaN) counts as unrelated, r = 0.

    Args:
        matrix: (n, n) correlations.
        absolute: whether the sign of r is left out.
    """
    r = np.nan_to_num(np.abs(matrix) if absolute else matrix, nan=0.0)
    found: Floats = np.sqrt(2 * (1 - np.clip(r, -1, 1)))
    np.fill_diagonal(found, 0)
    return found


def ward(correlation: Correlation, clusters: int, *, absolute: bool) -> Clustering:
    """Cluster columns by Ward's method: the two clusters are joined whose union varies least.

    The result does not depend on the order of the columns.

    Args:
        correlation: of columns with spread.
        clusters: how many; with fewer columns, every column is one.
        absolute: see :func:`distances`.

    Raises:
        BadInput: fewer than one cluster; no column, or one without spread.
    """
    if clusters < 1:
        raise BadInput(f"clusters is {clusters}; a number of clusters is needed, 1 or more")
    if not correlation.names:
        raise BadInput("there is nothing to cluster: no column has spread")
    if correlation.constant:
        raise BadInput(f"columns without spread cannot be clustered: {list(correlation.constant)}")
    names = tuple(sorted(correlation.names))
    if len(names) == 1:
        return Clustering(names, np.zeros((0, 4)), names, (names,))
    apart = scipy.spatial.distance.squareform(
        distances(correlation.of(names).matrix, absolute=absolute), checks=False
    )
    tree = scipy.cluster.hierarchy.optimal_leaf_ordering(
        scipy.cluster.hierarchy.linkage(apart, method="ward"), apart
    )
    leaves = scipy.cluster.hierarchy.leaves_list(tree)
    labels = scipy.cluster.hierarchy.cut_tree(tree, n_clusters=min(clusters, len(names)))[:, 0]
    members: dict[int, list[str]] = {}
    for leaf in leaves:
        members.setdefault(int(labels[leaf]), []).append(names[leaf])
    return Clustering(
        names=names,
        linkage=tree,
        order=tuple(names[leaf] for leaf in leaves),
        clusters=tuple(map(tuple, members.values())),
    )


@dataclass(frozen=True)
class Pick:
    """A cluster and the pool that stands for it."""

    members: tuple[str, ...]
    pool: str | None
    """None where no pool of the cluster can be picked."""
    effect: float | None
    why: str


def best_of_each(
    clusters: Sequence[Sequence[str]], effects: Sequence[Candidate]
) -> tuple[Pick, ...]:
    """Pick the best pool of every cluster, in the order of the clusters.

    A confirmed pool goes before all that are not; then the greater effect decides, then the name.

    Args:
        clusters: names of statistics.
        effects: what is known of their pools.
    """
    return tuple(
        _pick(tuple(members), [item for item in effects if item.statistic in members])
        for members in clusters
    )


def _pick(members: tuple[str, ...], known: Sequence[Candidate]) -> Pick:
    fit = [item for item in known if not item.unfit]
    if not fit:
        reasons = "; ".join(f"{item.pool} {item.unfit}" for item in known)
        return Pick(members, None, None, f"skipped: {reasons or 'it has no pools'}")
    best = min(fit, key=lambda item: item.order)
    ranks = f"the best of {len(fit)} pools" if len(fit) > 1 else "the only pool"
    effect = "its confirmed effect" if best.confirmed else "not confirmed; its shrunken effect"
    return Pick(
        members, best.pool, best.effect, f"{ranks} called better; {effect} is {best.effect:.4g}"
    )


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
    metrics: ScoreMetrics | Sequence[str] | None = None,
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
            :class:`.scores.StudyScores`.
        SandboxError: too few complete controls.
    """
    study = StudyScores.of(pools, trials, seeds)
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
    study: StudyScores, metrics: ScoreMetrics | Sequence[str] | None
) -> tuple[dict[str, Yardstick], dict[str, str]]:
    """Return one yardstick per metric, and why a metric has none."""
    controls = study.control_metrics()
    known = list(next(iter(controls.values())))
    score = ScoreMetrics.of(metrics)
    found, left_out = {}, {}
    for name in score.chosen(known):
        if name not in known:
            raise BadInput(f"no trial has the metric {name!r} (there are: {', '.join(known)})")
        try:
            found[name] = Yardstick.from_controls(
                controls, replace(score, names=(name,)), Aggregate.STANDARDIZED
            )
        except BadInput:
            left_out[name] = "the same in all control trials: there is no noise to measure it by"
    return found, left_out


def _change(study: StudyScores, pool: str, yardstick: Yardstick) -> float:
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
