"""Verdicts: which pools are better or worse than the control arms, with simultaneous intervals.

A pool and a control are *arms*: a bucket of samples, and one score per seed, each from a draw of
the bucket. Which samples are in the bucket moves all scores of an arm together, and more seeds do
not average that away; so how much that is, is measured between control arms. How much the trials of
an arm scatter differs from arm to arm, and is measured within each, steadied by all others. Both
are in the noise of a pool's mean (:mod:`.arm_noise`):

    t = (pool's mean - mean of the C control means) / sqrt(V_pool + sum_j V_j / C^2).

The critical value is that of the maximum over all pools. Seed effects that all arms share cancel:
with complete data the mean of the differences within seeds is the difference of arm means. The
family-wise error is near alpha or below whether arms are equally noisy or not, and with heavy
tails; the tests simulate it. With two seeds it is more where arms differ much, and with one nothing
tells whether they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from djsandbox_ray.analysis.verdicts.arm_noise import ArmNoise, against_controls, rounding_of
from djsandbox_ray.analysis.verdicts.design import Design

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
    scores is compared with the controls over the same k seeds; its variance is at most S/k times
    that of a complete one (:func:`.arm_noise.against_controls`), and k - 1 degrees of freedom say
    how noisy it is: with one score nothing but the other arms.

    Without any spread (beyond rounding) within arms nor between the controls there is no noise to
    allow for: intervals have no width, a difference other than 0 is decided (p = 0), none is
    undecided (p = 1).

    Args:
        pool_scores: pool id to its scores, shape (seeds,), one per draw; higher is better.
        control_scores: shape (controls, seeds), in the same order of seeds.
        alpha: family-wise error rate over the family, in (0, 1).
        draw_share: size of a draw over the size of its bucket, in (0, 1]. At 1 nothing bounds what
            a bucket adds to the noise of an arm, and only the control arms tell it.
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
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")
    controls = _complete_arms(control_scores)
    family = len(pool_scores) if pools is None else pools
    if family < len(pool_scores):
        raise ValueError(f"pools is {family}, but {len(pool_scores)} pools have scores")
    count, seeds = controls.shape
    Design(max(family, 1), count, seeds, draw_share, bucket_share)  # refuses what is out of range
    if not pool_scores:
        return []
    scores = np.stack(
        [_pool_row(name, row, controls.shape[1]) for name, row in pool_scores.items()]
    )
    noise = ArmNoise.of(scores, controls, draw_share, bucket_share)
    present = np.isfinite(scores).sum(axis=1)
    effect = np.nanmean(scores - controls.mean(axis=0), axis=1)
    # What rounding alone makes of equal scores is no effect.
    effect = np.where(np.abs(effect) <= rounding_of(controls), 0.0, effect)
    squares = against_controls(present, *controls.shape)
    half = noise.half_widths(squares, alpha, family)
    p = noise.p_values(effect, squares)
    q = scipy.stats.false_discovery_control(np.clip(p, 0, 1))  # a last digit may be beyond
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
