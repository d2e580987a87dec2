"""What each metric can see: how much it varies among controls, and whether self-tests move it.

Metrics tell very different amounts of the same trainings, and in a mean of many the ones that tell
nothing drown the others. Which ones tell something is asked of arms whose truth is known: controls
say how much a metric varies, and of samples that were spoilt on purpose it is known that they are
worse. Pools that are judged have no say in it: metrics chosen by what they find would find too
much.

With m_a the mean over seeds of what an arm's metric is above the mean of the C controls of the same
seed, a spoilt arm is worse by t = -sign m / (s sqrt(1 + 1/C)) standard errors, s^2 the variance of
the m_a of the controls with C - 1 degrees of freedom. The metric sees it where Student's t exceeds
that one time in a hundred only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.grid import Key
from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import MetricRow

Floats = NDArray[np.float64]

_RARE = 0.01
"""One-sided: how often a metric seems to see a self-test that it does not."""
_TOLD, _MISSED = 0.025, 0.2
"""Of one pool beside the controls: rates of error by which an effect counts as visible."""


def sensitivities(
    controls: Mapping[Key, Mapping[str, float]],
    spoilt: Mapping[Key, Mapping[str, float]],
    score: ScoreMetrics,
) -> list[MetricRow]:
    """Measure every metric on arms whose truth is known; those that see most come first.

    Args:
        controls: final metrics of completed control trials by arm and seed; the same metrics
            everywhere. Of less than two arms nothing is known.
        spoilt: the same of self-tests whose samples were spoilt; may be empty.
        score: which metrics may make the score, and which way each counts.
    """
    if len({arm for arm, _ in controls}) < 2:
        return []
    names = list(next(iter(controls.values())))
    table = {key: np.array([trial[name] for name in names]) for key, trial in controls.items()}
    seeds = dict.fromkeys(seed for _, seed in controls)
    of_seed = {seed: [row for key, row in table.items() if key[1] == seed] for seed in seeds}
    base = {seed: np.mean(rows, axis=0) for seed, rows in of_seed.items()}
    means = _arm_means(table, base)
    freedom = len(means) - 1
    spread = np.sqrt((means**2).sum(axis=0) / freedom)
    # What rounding alone makes of equal values is no spread, and no change.
    size = np.abs(np.array(list(table.values()))).max(axis=0)
    rounding = len(table) * np.finfo(np.float64).eps * size
    spread = np.where(spread <= rounding, 0.0, spread)
    error = spread * math.sqrt(1 + 1 / len(means))
    left = np.array([row - base[key[1]] for key, row in table.items()])
    noise = np.sqrt((left**2).sum(axis=0) / max(len(left) - len(seeds), 1))
    there = {key: trial for key, trial in spoilt.items() if key[1] in base}
    signs = np.array([score.sign(name) for name in names])
    worse = np.zeros((0, len(names)))
    if there:
        found = {key: np.array([trial[name] for name in names]) for key, trial in there.items()}
        changes = _arm_means(found, base)
        worse = _in_errors(-signs * np.where(np.abs(changes) <= rounding, 0.0, changes), error)
    visible = (scipy.stats.t.isf(_TOLD, freedom) + scipy.stats.t.isf(_MISSED, freedom)) * error
    limit, scored = scipy.stats.t.isf(_RARE, freedom), set(score.chosen(names))
    rows = [
        MetricRow(
            metric=name,
            mean=float(np.mean([row[place] for row in table.values()])),
            noise=float(noise[place]),
            visible=float(visible[place]),
            seen=float(worse[:, place].max()) if len(worse) else math.nan,
            sees=bool((worse[:, place] > limit).any()),
            scored=name in scored,
        )
        for place, name in enumerate(names)
    ]
    return rows if not len(worse) else sorted(rows, key=lambda row: -row.seen)


def informative(rows: Sequence[MetricRow], among: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that see a self-test, in the order given; all where none does.

    Args:
        rows: of :func:`sensitivities`.
        among: the metrics that may make the score.
    """
    seeing = {row.metric for row in rows if row.sees}
    return tuple(name for name in among if name in seeing) or tuple(among)


def _arm_means(table: Mapping[Key, Floats], base: Mapping[int, Floats]) -> Floats:
    """Means over seeds of what arms are above the controls, shape (arms, metrics)."""
    arms = dict.fromkeys(arm for arm, _ in table)
    return np.array(
        [
            np.mean([row - base[key[1]] for key, row in table.items() if key[0] == arm], axis=0)
            for arm in arms
        ]
    )


def _in_errors(worse: Floats, error: Floats) -> Floats:
    """Divide by standard errors; without any, every change for the worse is infinitely many."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(worse == 0, 0.0, worse / error)
