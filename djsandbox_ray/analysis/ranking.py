"""From finished trials to the rows of ``ranking.csv``: score every trial, compare every pool.

Only completed trials are scored: their metrics are aggregated against one baseline, the mean over
the completed control trials. The pools' scores are then compared with those of the control arms by
:func:`djsandbox_ray.analysis.verdicts.verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.aggregate import Aggregate
from djsandbox_ray.analysis.grid import Grid, completed_metrics, trial_grid
from djsandbox_ray.analysis.verdicts import (
    MIN_CONTROLS,
    Verdict,
    benjamini_hochberg,
    verdicts,
)
from djsandbox_ray.analysis.yardstick import Yardstick
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.records import Pool, PoolKind, RankingRow, TrialRecord, TrialState

FAILED = "failed"
"""The verdict on a pool none of whose trials was completed."""


def rank(
    pools: Sequence[Pool],
    trials: Iterable[TrialRecord],
    *,
    seeds: Sequence[int],
    metrics: Sequence[str] | None = None,
    aggregate: Aggregate | str,
    alpha: float = 0.05,
) -> list[RankingRow]:
    """Rank the pools by their change against the controls.

    Intervals hold simultaneously over all pools, self-tests included. q-values are over the pools
    of one kind: a self-test that is known to come out worse would make discoveries among the
    others too cheap.

    Args:
        pools: all pools of the run, controls among them.
        trials: exactly one finished trial for every pool and seed.
        seeds: the seeds of the run.
        metrics: what is aggregated, higher being better; None for all.
        aggregate: how; see :class:`Aggregate`. With ``standardized``, the changes and intervals
            are in control standard deviations, not fractions.
        alpha: family-wise error rate of the verdicts, in (0, 1).

    Returns:
        One row per pool that is not a control, the greatest change first; pools without a
        completed trial last.

    Raises:
        BadInput: a trial that is missing, twice there, unknown or unfinished; a metric that a
            completed trial lacks or that is not finite; metrics of which the aggregate cannot be
            formed; fewer than 3 control pools; alpha outside (0, 1).
        SandboxError: so many control trials failed that fewer than 3 arms are complete.
    """
    if not 0 < alpha < 1:
        raise BadInput(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")
    grid = trial_grid(pools, trials, seeds)
    measured = completed_metrics(grid)
    controls = [pool.id for pool in pools if pool.kind is PoolKind.CONTROL]
    complete = _complete_controls(controls, measured, seeds)
    yardstick = Yardstick.from_controls(
        {key: values for key, values in measured.items() if key[0] in controls},
        metrics,
        aggregate,
    )
    scores = _scores(pools, seeds, measured, yardstick)
    control_scores = np.stack([scores[pool] for pool in complete])
    tested = [pool for pool in pools if pool.kind is not PoolKind.CONTROL]
    scored = {p.id: scores[p.id] for p in tested if not np.isnan(scores[p.id]).all()}
    found = {verdict.pool: verdict for verdict in verdicts(scored, control_scores, alpha)}
    rows = [
        _row(pool, grid, seeds, measured, found.get(pool.id), scores[pool.id], control_scores)
        for pool in tested
    ]
    rows.sort(key=lambda row: (row.verdict == FAILED, -row.change if row.seeds else 0.0, row.pool))
    return [replace(row, rank=place) for place, row in enumerate(_q_by_kind(rows), start=1)]


def _complete_controls(
    controls: Sequence[str], measured: Mapping[tuple[str, int], object], seeds: Sequence[int]
) -> list[str]:
    if len(controls) < MIN_CONTROLS:
        raise BadInput(f"{len(controls)} control pools; at least {MIN_CONTROLS} are needed")
    complete = [c for c in controls if all((c, seed) in measured for seed in seeds)]
    if len(complete) < MIN_CONTROLS:
        raise SandboxError(
            f"only {len(complete)} of {len(controls)} control arms completed all their trials; "
            f"at least {MIN_CONTROLS} are needed to measure the noise between arms"
        )
    return complete


def _scores(
    pools: Sequence[Pool],
    seeds: Sequence[int],
    measured: Mapping[tuple[str, int], Mapping[str, float]],
    yardstick: Yardstick,
) -> dict[str, NDArray[np.float64]]:
    """Score per seed of every pool, shape (seeds,); NaN where no trial was completed."""

    def score(pool: str, seed: int) -> float:
        values = measured.get((pool, seed))
        return math.nan if values is None else yardstick.change(values)

    return {pool.id: np.array([score(pool.id, seed) for seed in seeds]) for pool in pools}


def _row(
    pool: Pool,
    grid: Grid,
    seeds: Sequence[int],
    measured: Mapping[tuple[str, int], Mapping[str, float]],
    verdict: Verdict | None,
    scores: NDArray[np.float64],
    control_scores: NDArray[np.float64],
) -> RankingRow:
    """Describe one pool; its place in the ranking is set later."""
    finals = [measured[pool.id, seed] for seed in seeds if (pool.id, seed) in measured]
    changes = (scores - control_scores.mean(axis=0))[~np.isnan(scores)]
    return RankingRow(
        rank=0,
        pool=pool.id,
        kind=pool.kind,
        statistic=pool.statistic,
        bucket=pool.bucket,
        change=verdict.effect if verdict else math.nan,
        std=float(changes.std(ddof=1)) if len(changes) > 1 else math.nan,
        low=verdict.low if verdict else math.nan,
        high=verdict.high if verdict else math.nan,
        p=verdict.p if verdict else math.nan,
        q=verdict.q if verdict else math.nan,
        verdict=verdict.verdict if verdict else FAILED,
        seeds=len(finals),
        failed=sum(grid[pool.id, seed].state is TrialState.FAILED for seed in seeds),
        expected=pool.expected,
        metrics={
            name: math.fsum(final[name] for final in finals) / len(finals)
            for name in (finals[0] if finals else ())
        },
    )


def _q_by_kind(rows: Sequence[RankingRow]) -> list[RankingRow]:
    """Replace the q-values by those over the pools of the same kind that have a p-value."""
    result = list(rows)
    for kind in PoolKind:
        places = [i for i, row in enumerate(rows) if row.kind is kind and row.verdict != FAILED]
        for place, q in zip(places, benjamini_hochberg([rows[i].p for i in places]), strict=True):
            result[place] = replace(rows[place], q=float(q))
    return result
