"""Verdicts: which pools are better or worse than the control arms, with simultaneous intervals.

A pool and a control are *arms*: a bucket of samples, and one score per seed, each from a draw of
the bucket. Which samples are in the bucket moves all scores of an arm together, and more seeds do
not average that away; so an arm's noise is measured between control arms, never within an arm:

    t = (pool's mean - mean of the C control means) / sqrt(s2 (1 + 1/C)),

s2 the variance of the C control arms' means, C - 1 degrees of freedom, with Dunnett's critical
value of the maximum over all pools (:mod:`djsandbox_ray.analysis.dunnett`). Seed effects that all
arms share cancel: with complete data the mean of the differences within seeds is the difference of
arm means. The family-wise error is at most alpha when pools that have no effect are exchangeable
with control arms; the tests simulate it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from djsandbox_ray.analysis.dunnett import critical_value

Floats = NDArray[np.float64]

MIN_CONTROLS = 3
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
    """Benjamini-Hochberg: the least false discovery rate at which this pool is a discovery."""
    verdict: str
    """better or worse where the simultaneous interval excludes 0, else undecided."""


def verdicts(
    pool_scores: Mapping[str, ArrayLike],
    control_scores: Iterable[ArrayLike],
    alpha: float = 0.05,
) -> list[Verdict]:
    """Compare every pool with the control arms.

    NaN is a missing score. A control arm with a missing score is left out. A pool with k of S
    scores is compared with the controls over the same k seeds, and its variance multiplied by S/k.
    That is an upper bound: an arm mean over k seeds has variance b + w/k (b from the bucket, w per
    seed), and S/k (b + w/S) = b S/k + w/k is not less. As the controls' part of the t-values is
    then no longer the same for all pools, the critical value is that for uncorrelated ones, which
    holds under any correlation (Sidak's inequality).

    Without any spread among the control arms (beyond rounding) there is no noise to allow for:
    intervals have no width, a difference other than 0 is decided (p = 0), none is undecided
    (p = 1).

    Args:
        pool_scores: pool id to its scores, shape (seeds,), one per draw; higher is better.
        control_scores: shape (controls, seeds), in the same order of seeds.
        alpha: family-wise error rate over all pools given, in (0, 1).

    Returns:
        One verdict per pool, in the order of ``pool_scores``.

    Raises:
        ValueError: alpha outside (0, 1); ragged shapes; an infinite score; a pool without any
            score (leave it out); fewer than 3 complete control arms.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")
    controls = _complete_arms(control_scores)
    if not pool_scores:
        return []
    seeds = controls.shape[1]
    pools = np.stack([_pool_row(name, row, seeds) for name, row in pool_scores.items()])
    effect, error = contrasts(pools, controls)
    half = half_widths(error, pools, len(controls), alpha)
    p = p_values(effect, error, len(controls))
    q = benjamini_hochberg(p)
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


def contrasts(pools: Floats, controls: Floats) -> tuple[Floats, Floats]:
    """Return effects and their standard errors, each of shape (..., pools).

    Args:
        pools: shape (..., pools, seeds); NaN is a missing score, at least one is there.
        controls: shape (..., controls, seeds), complete.
    """
    arms, seeds = controls.shape[-2:]
    differences = pools - controls.mean(axis=-2, keepdims=True)
    present = np.isfinite(pools).sum(axis=-1)
    effect = np.nansum(differences, axis=-1) / present
    arm_means = controls.mean(axis=-1)
    spread = arm_means.std(axis=-1, ddof=1)[..., None]
    error = spread * np.sqrt((1.0 + 1.0 / arms) * seeds / present)
    # What rounding alone makes of equal scores is no spread and no effect.
    largest = np.abs(controls).max(axis=(-2, -1))[..., None]
    rounding = (arms + seeds) * np.finfo(np.float64).eps * largest
    effect = np.where(np.abs(effect) <= rounding, 0.0, effect)
    return effect, np.where(spread <= rounding, 0.0, error)


def half_widths(error: Floats, pools: Floats, controls: int, alpha: float) -> Floats:
    """Half-widths of the simultaneous intervals over the pools (axis -2 of ``pools``)."""
    incomplete = bool(np.isnan(pools).any())
    shared = math.inf if incomplete else controls
    return error * critical_value(alpha, pools.shape[-2], shared, controls - 1)


def p_values(effect: Floats, error: Floats, controls: int) -> Floats:
    """Two-sided p-values of single pools; an effect without any error gives 0, no effect 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(effect == 0, 0.0, np.abs(effect) / error)
    return np.asarray(2.0 * stats.t.sf(t, controls - 1), dtype=np.float64)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return q-values (Benjamini & Hochberg 1995, step-up) of p-values of shape (tests,)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")[::-1]
    ranks = np.arange(len(values), 0, -1)
    q = np.empty_like(values)
    q[order] = np.minimum.accumulate(np.minimum(values[order] * (len(values) / ranks), 1.0))
    return q


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
    if len(complete) < MIN_CONTROLS:
        raise ValueError(
            f"{len(complete)} of {len(rows)} control arms have all their scores; "
            f"at least {MIN_CONTROLS} are needed to measure the noise between arms"
        )
    return np.stack(complete)
