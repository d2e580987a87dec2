"""From finished trials to the rows of ``ranking.csv``: score every trial, compare every pool.

Only completed trials are scored: their metrics are aggregated against one baseline, the mean over
the completed control trials. The pools' scores are then compared with those of the control arms by
:func:`.verdicts`, with all metrics and with each one left out.
A pool that was given up early is listed with how far it came, and not compared. Where a trial
collapsed, pools are judged without it, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.collapse import collapsed
from djsandbox_ray.analysis.verdicts.grid import Key, given_up
from djsandbox_ray.analysis.verdicts.scores import StudyScores, Yardstick
from djsandbox_ray.analysis.verdicts.second_look import DECIDED
from djsandbox_ray.analysis.verdicts.shrinkage import shrink, standard_error
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS, Verdict, verdicts
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import (
    Aggregate,
    Pool,
    PoolKind,
    RankingRow,
    Spoil,
    TrialRecord,
    TrialState,
)

FAILED = "failed"
"""The verdict on a pool none of whose trials was completed."""
STOPPED = "stopped"
"""The verdict on a pool that was given up early."""

Floats = NDArray[np.float64]
Verdicts = Callable[[Yardstick], dict[str, Verdict]]
"""From scores on a yardstick to the verdicts by pool."""


def rank(
    pools: Sequence[Pool],
    trials: Iterable[TrialRecord],
    *,
    seeds: Sequence[int],
    metrics: ScoreMetrics | Sequence[str] | None = None,
    aggregate: Aggregate | str,
    alpha: float = 0.05,
    draw_share: float = 1.0,
    bucket_share: float = 1 / 3,
    family: int | None = None,
    measured_in: Yardstick | None = None,
    blind: Mapping[Spoil, Sequence[str]] | None = None,
) -> list[RankingRow]:
    """Rank the pools by their change against the controls.

    A pool with a trial that was stopped early is not compared: its verdict is ``stopped``, its
    numbers are NaN and ``stopped_at`` says how far it came. It counts in the family of the
    intervals, so that giving up pools makes no verdict easier.

    Intervals hold simultaneously over all pools, self-tests and stopped pools included. q-values
    are over the pools of one kind: a self-test that is known to come out worse would make
    discoveries among the others too cheap. A stopped pool counts among them as the least
    promising there can be (p = 1), so that giving up pools makes no discovery cheaper.

    Args:
        pools: all pools of the run, controls among them.
        trials: exactly one finished trial for every pool and seed.
        seeds: the seeds of the run.
        metrics: what is aggregated, and which way each counts; None for all, higher being better.
        aggregate: how; see :class:`Aggregate`. With ``standardized``, the changes and intervals
            are in control standard deviations, not fractions.
        alpha: family-wise error rate of the verdicts, in (0, 1).
        draw_share: size of a draw over the size of a bucket; see
            :class:`~djsandbox_ray.analysis.verdicts.design.Design`.
        bucket_share: size of a bucket over the number of rows that buckets are made of; see there.
        family: number of pools over which errors are controlled, where these were chosen among
            more: a second study of chosen pools gives the first one's. By default, and at least,
            those that are compared or were stopped.
        measured_in: the yardstick of another study, which then makes the unit of the changes, so
            that those of both studies can be set side by side; this study's own when None. Pools
            are compared with this study's controls all the same.
        blind: by what a self-test does to samples, the metrics that cannot show it: its change and
            its verdict are those of the others alone.

    Returns:
        One row per pool that is not a control: the judged ones, the greatest change first; then
        the stopped ones, those that came furthest first; then those that failed.

    Raises:
        BadInput: a trial that is missing, twice there, unknown or unfinished; a metric that a
            completed trial lacks or that is not finite; metrics of which the aggregate cannot be
            formed, or that the two studies do not share; fewer than 3 control pools; a control or
            self-test that was stopped early; alpha outside (0, 1).
        SandboxError: so many control trials failed that fewer than 3 arms are complete.
    """
    if not 0 < alpha < 1:
        raise BadInput(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")
    study = StudyScores.of(pools, trials, seeds)
    yardstick = measured_in or study.yardstick(metrics, aggregate)
    _check_metrics(study, yardstick)
    stopped = given_up(study.grid)
    tested = [pool for pool in pools if pool.kind is not PoolKind.CONTROL]
    judged = [pool.id for pool in tested if pool.id not in stopped and study.finals(pool.id)]

    def judge(ruler: Yardstick, left_out: Collection[Key] = ()) -> dict[str, Verdict]:
        found = verdicts(
            {name: _scores(study, name, ruler, left_out) for name in judged},
            [_scores(study, name, ruler, left_out) for name in study.arms],
            alpha,
            draw_share=draw_share,
            bucket_share=bucket_share,
            pools=max(len(judged) + len(stopped), family or 0),
        )
        return {verdict.pool: verdict for verdict in found}

    found, without = judge(yardstick), _leave_one_out(yardstick, judge)
    controls = study.control_scores(yardstick)
    lost = _collapsed(study, judged, yardstick)
    # Too few control arms may be left to judge by.
    spoilt = {arm for arm, _ in lost} & {*study.arms}
    alone = lost and len(study.arms) - len(spoilt) >= MIN_CONTROL_ARMS
    without_lost = judge(yardstick, lost) if alone else {}
    rulers = _rulers(yardstick, tested, blind or {}, ScoreMetrics.of(metrics))
    rows = []
    for pool in tested:
        row = _row(pool, study)
        if pool.id in found and pool.spoil in rulers:
            own = rulers[pool.spoil]
            changes = study.scores(pool.id, own) - study.control_scores(own).mean(axis=0)
            row = _judged(row, judge(own)[pool.id], changes, study.finals(pool.id))
        elif pool.id in found:
            changes = study.scores(pool.id, yardstick) - controls.mean(axis=0)
            row = _judged(row, found[pool.id], changes, study.finals(pool.id))
            others = {metric: by_pool.get(pool.id) for metric, by_pool in without.items()}
            row = replace(row, carried_by=carried_by(found[pool.id], others))
            row = replace(row, collapsed=_named(pool.id, lost, study))
            if pool.id in without_lost:
                row = replace(row, without_collapsed=without_lost[pool.id].verdict)
        elif pool.id in stopped:
            row = replace(row, verdict=STOPPED, stopped_at=stopped[pool.id])
        rows.append(row)
    rows = _shrunken(_q_by_kind(rows), standard_error(controls, draw_share, bucket_share))
    return [replace(row, rank=place) for place, row in enumerate(sorted(rows, key=_order), start=1)]


def control_scores(
    pools: Sequence[Pool],
    trials: Iterable[TrialRecord],
    *,
    seeds: Sequence[int],
    metrics: ScoreMetrics | Sequence[str] | None = None,
    aggregate: Aggregate | str,
) -> Floats:
    """Return the scores of the control arms, as :func:`rank` compares pools with them.

    Args:
        pools: of a study; only controls and self-tests with spoilt samples count.
        trials: exactly one finished trial for every one of these and seed, of the latter only where
            the metrics are to be those that see them; others are left out.
        seeds: the seeds of the study.
        metrics: what is aggregated; None for all.
        aggregate: how; see :class:`Aggregate`.

    Returns:
        Shape (complete controls, seeds).

    Raises:
        BadInput: as in :func:`rank`.
        SandboxError: as in :func:`rank`.
    """
    wanted = known_truth(pools, ScoreMetrics.of(metrics))
    names = {pool.id for pool in wanted}
    study = StudyScores.of(wanted, [trial for trial in trials if trial.spec.pool in names], seeds)
    return study.control_scores(study.yardstick(metrics, aggregate))


def known_truth(pools: Iterable[Pool], metrics: ScoreMetrics) -> list[Pool]:
    """Return the pools that must be trained before there can be a score.

    They are the controls, and where the metrics are to be those that see the self-tests, also those
    of them whose samples are spoilt.
    """
    return [
        pool
        for pool in pools
        if pool.kind is PoolKind.CONTROL or (metrics.informative and pool.spoil is not None)
    ]


def _check_metrics(study: StudyScores, yardstick: Yardstick) -> None:
    known = next(iter(study.measured.values()))
    if lacking := [name for name in yardstick.metrics if name not in known]:
        raise BadInput(
            f"the trials lack the metric {lacking[0]!r} of the study that makes the unit (they "
            f"have: {', '.join(known)})"
        )


def _rulers(
    yardstick: Yardstick,
    tested: Sequence[Pool],
    blind: Mapping[Spoil, Sequence[str]],
    metrics: ScoreMetrics,
) -> dict[Spoil | None, Yardstick]:
    """Return a yardstick for each way to spoil samples that not all metrics of the score show.

    Where metrics are those that see some self-test, none may be left for another: it is then judged
    by all of them, and will fail.
    """
    rulers: dict[Spoil | None, Yardstick] = {}
    for spoil in {pool.spoil for pool in tested if pool.spoil}:
        left_out = [name for name in yardstick.metrics if name in blind.get(spoil, ())]
        if len(left_out) == len(yardstick.metrics):
            if metrics.informative:
                continue
            raise BadInput(f"no metric of the score shows that {spoil} were spoilt")
        if left_out:
            rulers[spoil] = reduce(Yardstick.without, left_out, yardstick)
    return rulers


def _scores(study: StudyScores, name: str, ruler: Yardstick, left_out: Collection[Key]) -> Floats:
    """Return the scores of an arm, NaN for trials that are left out."""
    kept = np.array([(name, seed) not in left_out for seed in study.seeds])
    return np.where(kept, study.scores(name, ruler), math.nan)


def _collapsed(study: StudyScores, judged: Sequence[str], ruler: Yardstick) -> set[Key]:
    """Return the trials that collapsed."""
    if not judged:
        return set()
    pools = np.stack([study.scores(name, ruler) for name in judged])
    arms = [*judged, *study.arms]
    places = np.argwhere(collapsed(pools, study.control_scores(ruler)))
    return {(arms[arm], study.seeds[seed]) for arm, seed in places.tolist()}


def _named(pool: str, lost: Collection[Key], study: StudyScores) -> str | None:
    """Name the trials that collapsed and bear on a pool: its own, and those of controls."""
    own = [f"seed {seed}" for arm, seed in sorted(lost) if arm == pool]
    controls = [f"{arm} seed {seed}" for arm, seed in sorted(lost) if arm in study.arms]
    return ", ".join([*own, *controls]) or None


def _leave_one_out(yardstick: Yardstick, judge: Verdicts) -> dict[str, dict[str, Verdict]]:
    """Judge without each metric in turn; no verdicts where no score can be formed without it."""
    found: dict[str, dict[str, Verdict]] = {}
    for metric in yardstick.metrics if len(yardstick.metrics) > 1 else ():
        try:
            ruler = yardstick.without(metric)
        except BadInput:
            found[metric] = {}
        else:
            found[metric] = judge(ruler)
    return found


def carried_by(verdict: Verdict, without: Mapping[str, Verdict | None]) -> str | None:
    """Return the metric that carries a verdict: without it, the verdict would not be the same.

    Args:
        verdict: on one pool, with all metrics.
        without: by metric, the verdict on the same pool without that metric; None where no score
            can be formed without it.

    Returns:
        If there are several such metrics, the one whose absence changes the effect most (None in
        place of a verdict counts as the greatest change). None if there is none, or the pool is
        undecided.
    """
    if verdict.verdict not in DECIDED:
        return None
    shifts = {
        metric: math.inf if other is None else abs(other.effect - verdict.effect)
        for metric, other in without.items()
        if other is None or other.verdict != verdict.verdict
    }
    return max(shifts, key=lambda metric: shifts[metric], default=None)


def _row(pool: Pool, study: StudyScores) -> RankingRow:
    """Describe a pool of which nothing is known but how its trials ended."""
    states = [study.grid[pool.id, seed].state for seed in study.seeds]
    return RankingRow(
        rank=0,
        pool=pool.id,
        kind=pool.kind,
        statistic=pool.statistic,
        bucket=pool.bucket,
        change=math.nan,
        std=math.nan,
        low=math.nan,
        high=math.nan,
        p=math.nan,
        q=math.nan,
        verdict=FAILED,
        seeds=states.count(TrialState.COMPLETED),
        failed=states.count(TrialState.FAILED),
        expected=pool.expected,
    )


def _judged(
    row: RankingRow, verdict: Verdict, changes: Floats, finals: Sequence[Mapping[str, float]]
) -> RankingRow:
    """Add the verdict, and the spread and the metrics of the completed trials."""
    known = changes[~np.isnan(changes)]
    return replace(
        row,
        change=verdict.effect,
        std=float(known.std(ddof=1)) if len(known) > 1 else math.nan,
        low=verdict.low,
        high=verdict.high,
        p=verdict.p,
        q=verdict.q,
        verdict=verdict.verdict,
        metrics={
            name: math.fsum(final[name] for final in finals) / len(finals) for name in finals[0]
        },
    )


def _q_by_kind(rows: Sequence[RankingRow]) -> list[RankingRow]:
    """Replace the q-values by those over the pools of the same kind."""
    result = list(rows)
    for kind in PoolKind:
        places = [i for i, row in enumerate(rows) if row.kind is kind and not math.isnan(row.p)]
        given_up = sum(row.kind is kind and row.verdict == STOPPED for row in rows)
        q = scipy.stats.false_discovery_control([*(rows[i].p for i in places), *[1.0] * given_up])
        for place, value in zip(places, q[: len(places)], strict=True):
            result[place] = replace(rows[place], q=float(value))
    return result


def _shrunken(rows: Sequence[RankingRow], error: float) -> list[RankingRow]:
    """Add error and shrunken change of judged pools; self-tests are not of their population."""
    judged = [row for row in rows if row.kind is PoolKind.BUCKET and not math.isnan(row.change)]
    # As for the intervals: a mean over k of S seeds has at most S / k times the variance.
    errors = [error * math.sqrt((row.seeds + row.failed) / row.seeds) for row in judged]
    pulled = shrink([row.change for row in judged], errors)
    found = {
        row.pool: replace(row, shrunken=float(value), error=own)
        for row, value, own in zip(judged, pulled, errors, strict=True)
    }
    return [found.get(row.pool, row) for row in rows]


def _order(row: RankingRow) -> tuple[int, float, str]:
    """Judged pools by their change, stopped ones by how far they came, then the failed."""
    if row.stopped_at is not None:
        return 1, -row.stopped_at, row.pool
    return (2, 0.0, row.pool) if row.verdict == FAILED else (0, -row.change, row.pool)
