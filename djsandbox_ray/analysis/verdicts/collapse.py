"""Trials that collapsed: far below what the other trials of their arm and all controls allow.

A training that diverges without failing makes its arm look bad, or, among the controls, all pools
look good. Such a trial is named, and pools are judged with and without it; nothing is dropped
silently, as what makes trainings collapse may be what a pool is made of.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.scores import NORMAL_MAD

Floats = NDArray[np.float64]

_RATE = 0.001
"""Share of studies in which any trial may seem to have collapsed, where all are equally noisy."""


def collapsed(pools: Floats, controls: Floats) -> NDArray[np.bool_]:
    """Say which trials collapsed, shape (arms, seeds), pools first.

    A trial of k has collapsed where it is below the mean of the other k - 1 of its arm by more than

        c max(s, s_others) sqrt(1 + 1/(k - 1)),

    s the robust scatter of trials of controls within arms and seeds, s_others the standard
    deviation of those others, where there are several, and c the quantile of Student's t with the
    controls' degrees of freedom that one in a thousand studies exceeds. The effect of a seed is the
    median over the controls.

    Args:
        pools: shape (pools, seeds), NaN for a missing score; greater is better.
        controls: shape (controls, seeds), complete.
    """
    arms = np.concatenate([pools, controls])
    found = np.zeros(arms.shape, dtype=bool)
    count, seeds = controls.shape
    if seeds < 2:
        return found
    left = controls - controls.mean(axis=1, keepdims=True)
    left = left - np.median(left, axis=0)
    spread = float(np.median(np.abs(left))) / NORMAL_MAD * math.sqrt(seeds / (seeds - 1))
    if spread <= np.finfo(np.float64).eps * controls.size * np.abs(controls).max():
        return found
    limit = scipy.stats.t.isf(_RATE / arms.size, (count - 1) * (seeds - 1))
    changes = arms - np.median(controls, axis=0)
    for seed in range(seeds):
        others = np.delete(changes, seed, axis=1)
        known = np.isfinite(others).sum(axis=1)
        several = np.maximum(known, 1)
        mean = np.nansum(others, axis=1) / several
        squares = np.nansum((others - mean[:, None]) ** 2, axis=1)
        scale = np.maximum(spread, np.sqrt(squares / np.maximum(known - 1, 1)))
        below = mean - changes[:, seed] > limit * scale * np.sqrt(1 + 1 / several)
        found[:, seed] = below & (known > 0)
    return found
