"""Verdicts: which pools are better or worse than the control arms, with simultaneous intervals.

A pool and a control are *arms*: a bucket of samples, and one score per seed, each from a draw of
the bucket. Which samples are in the bucket moves all scores of an arm together, and more seeds do
not average that away; so an arm's noise is measured between control arms, never within arms alone:

    t = (pool's mean - mean of the C control means) / sqrt(s2 (1 + 1/C)),

s2 the variance of the C control arms' means. Where draws are smaller than the bucket, the variance
within arms says something about it too, and s2 is moderated by that
(:mod:`.moderated`); arms that do not vary alike are allowed for
(:mod:`.squeeze`). The critical value is that of the maximum over all pools.
Seed effects that all arms share cancel: with complete data the mean of the differences within seeds
is the difference of arm means. The family-wise error is at most alpha when pools that have no
effect are exchangeable with control arms; the tests simulate it, and how much more it is for pools
whose trials scatter more than those of the controls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.moderated import Moderation, between_variance
from djsandbox_ray.analysis.verdicts.squeeze import squeeze

Floats = NDArray[np.float64]

MIN_CONTROL_ARMS = 3
"""Fewer control arms leave one degree of freedom for the noise, or none."""


@dataclass(frozen=True)
class Verdict:
    """A pool against the control arms."""

    pool: str
    effect: float
    """Mean over seeds of the pool's score minus the control arms' mean of that seed."""
    low: float
    high: float
    """Simultaneous interval: with probability 1 - alpha those of all pools hold the truth."""
    p: float
    """Two-sided p-value of this pool alone."""
    q: float
    """The least false discovery rate at which it is a discovery (Benjamini & Hochberg 1995)."""
    verdict: str
    """better or worse where the simultaneous interval excludes 0, else undecided."""


def verdicts(
    pool_scores: Mapping[str, ArrayLike],
    control_scores: Iterable[ArrayLike],
    alpha: float = 0.05,
    *,
    draw_share: float = 1.0,
    bucket_share: float = 1 / 3,
    pools: int | None = None,
) -> list[Verdict]:
    """Compare every pool with the control arms.

    NaN is a missing score. A control arm with a missing score is left out. A pool with k of S
    scores is compared with the controls over the same k seeds, and its variance multiplied by S/k.
    That is an upper bound: an arm mean over k seeds has variance b + w/k (b from the bucket, w per
    seed), and S/k (b + w/S) = b S/k + w/k is not less. As the controls' part of the t-values is
    then no longer the same for all pools, the critical value is that for uncorrelated ones, which
    holds under any correlation (Sidak's inequality). Such a pool has no part in the variance
    within arms, and its own is taken to be that of the controls.

    Without any spread (beyond rounding) among the control arms, neither between nor within them,
    there is no noise to allow for: intervals have no width, a difference other than 0 is decided
    (p = 0), none is undecided (p = 1). With smaller draws that is so only of pools without spread:
    where trials within control arms do not vary, every pool is judged by its own variance over
    seeds, of few degrees of freedom, and the most that its bucket may add; one with a single score
    by the greatest of these.

    Args:
        pool_scores: pool id to its scores, shape (seeds,), one per draw; higher is better.
        control_scores: shape (controls, seeds), in the same order of seeds.
        alpha: family-wise error rate over the family, in (0, 1).
        draw_share: size of a draw over the size of its bucket, in (0, 1]. At 1 nothing bounds what
            a bucket adds to the variance within arms, so only that between controls is used.
        bucket_share: size of a bucket over the number of rows that buckets are made of, in (0, 1).
        pools: size of the family over which errors are controlled: all pools of the study, also
            those given up early that have no scores here. By default those given.

    Returns:
        One verdict per pool, in the order of ``pool_scores``.

    Raises:
        ValueError: alpha, draw_share or bucket_share out of range; a family smaller than the
            pools given; ragged shapes; an infinite score; a pool without any score (leave it
            out); fewer than 3 complete control arms.
    """
    from scipy import stats

    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")
    controls = _complete_arms(control_scores)
    family = len(pool_scores) if pools is None else pools
    if family < len(pool_scores):
        raise ValueError(f"pools is {family}, but {len(pool_scores)} pools have scores")
    count, seeds = controls.shape
    design = Design(max(family, 1), count, seeds, draw_share, bucket_share)
    if not pool_scores:
        return []
    scores = np.stack([_pool_row(name, row, seeds) for name, row in pool_scores.items()])
    effect, half, p = _compare(scores, controls, design, alpha)
    q = stats.false_discovery_control(np.clip(p, 0, 1))  # a last digit may be beyond
    return [
        Verdict(
            pool=name,
            effect=float(effect[i]),
            low=float(effect[i] - half[i]),
            high=float(effect[i] + half[i]),
            p=float(p[i]),
            q=float(q[i]),
            verdict=_decide(effect[i] - half[i], effect[i] + half[i]),
        )
        for i, name in enumerate(pool_scores)
    ]


def _compare(
    pools: Floats, controls: Floats, design: Design, alpha: float
) -> tuple[Floats, Floats, Floats]:
    """Effects, half-widths and p-values, each of shape (pools,)."""
    # What rounding alone makes of equal scores is no spread and no effect.
    rounding = sum(controls.shape) * np.finfo(np.float64).eps * np.abs(controls).max()
    present = np.isfinite(pools).sum(axis=-1)
    effect = np.nansum(pools - controls.mean(axis=0), axis=-1) / present
    effect = np.where(np.abs(effect) <= rounding, 0.0, effect)
    between = _beyond(rounding, between_variance(controls))
    complete = present == design.seeds
    within, within_df, ratio = between, 0, np.ones(len(pools))
    if design.draw_share < 1 and design.seeds > 1:
        squeezed = squeeze(pools[complete], controls)
        within, within_df = _beyond(rounding, squeezed.controls), int(squeezed.df)
        if within > 0:
            ratio[complete] = squeezed.pools / within
        else:
            within, within_df = _own_variances(pools, controls, rounding), design.seeds - 1
            # Controls that do not vary say nothing of a pool's bucket: it may add the most.
            most = within * (1 / design.seeds + design.bucket_bound)
            between = np.maximum(between, most)
    moderation = Moderation(design, alpha, within_df, shared=bool(complete.all()))
    inflation = (ratio + 1 / design.controls) / (1 + 1 / design.controls) * design.seeds / present
    scale = np.sqrt(inflation)
    half = moderation.half_width(between, within) * scale
    return effect, half, moderation.p_values(effect / scale, between, within)


def _own_variances(pools: Floats, controls: Floats, rounding: float) -> Floats:
    """Variance of every pool over seeds, shape (pools,); the greatest for those with one score.

    It is that of the differences to the controls, which tell what a seed does to all arms exactly.
    """
    changes = pools - controls.mean(axis=0)
    several = np.isfinite(changes).sum(axis=-1) > 1
    own = _beyond(rounding, np.nanvar(changes[several], axis=-1, ddof=1))
    variances = np.full(len(pools), own.max(initial=0.0))
    variances[several] = own
    return variances


def _beyond(rounding: float, variance: Floats) -> Floats:
    return np.where(np.sqrt(variance) <= rounding, 0.0, variance)


def _decide(low: float, high: float) -> str:
    if low > 0:
        return "better"
    return "worse" if high < 0 else "undecided"


def _scores(what: str, row: ArrayLike) -> Floats:
    try:
        scores = np.asarray(row, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: one number per seed is needed: {error}") from error
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"{what} has scores of shape {scores.shape}; (seeds,) is needed")
    if np.isinf(scores).any():
        raise ValueError(f"{what} has an infinite score; NaN stands for a missing one")
    return scores


def _pool_row(name: str, row: ArrayLike, seeds: int) -> Floats:
    scores = _scores(f"pool {name!r}", row)
    if len(scores) != seeds:
        raise ValueError(
            f"pool {name!r} has {len(scores)} scores and the control arms have {seeds}; "
            "one per seed is needed, with NaN for a missing one"
        )
    if np.isnan(scores).all():
        raise ValueError(f"pool {name!r} has no score at all; leave it out")
    return scores


def _complete_arms(control_scores: Iterable[ArrayLike]) -> Floats:
    """Check the control arms and return those without a missing score."""
    rows = [_scores(f"control arm {i}", row) for i, row in enumerate(control_scores)]
    for index, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"control arm {index} has {len(row)} scores and arm 0 has {len(rows[0])}; "
                "shape (controls, seeds) is needed, with NaN for a missing score"
            )
    complete = [row for row in rows if not np.isnan(row).any()]
    if len(complete) < MIN_CONTROL_ARMS:
        raise ValueError(
            f"{len(complete)} of {len(rows)} control arms have all their scores; "
            f"at least {MIN_CONTROL_ARMS} are needed to measure the noise between arms"
        )
    return np.stack(complete)
