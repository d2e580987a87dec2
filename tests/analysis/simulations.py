"""Simulated pyramids, arms of all combinations of k pools beside control arms; and slow cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from djsandbox_ray.analysis.together.contrasts import Arms
from djsandbox_ray.analysis.together.interactions import subsets

FACTORS = ("a", "b", "c")
DRAW_SHARE, BUCKET_SHARE = 0.5, 0.1
ALPHA = 0.05


def mostly_slow(cases, *kept):
    """Mark the cases of a large simulation as slow, all but those that every run checks."""
    found = [case if isinstance(case, tuple) else (case,) for case in cases]
    wanted = [case if isinstance(case, tuple) else (case,) for case in kept]
    assert all(case in found for case in wanted)
    slow = pytest.mark.slow
    return [pytest.param(*case, marks=() if case in wanted else slow) for case in found]


def groups(factors=FACTORS):
    """All non-empty combinations, the smaller ones first."""
    return [group for group in subsets(factors) if group]


def combination(names):
    """The combination "ab" of the factors a and b."""
    return frozenset(names)


def arms_of(scores, controls, **shares):
    """Arms from a mapping or from rows in the order of ``groups``."""
    if not isinstance(scores, dict):
        scores = dict(zip(groups(), scores, strict=True))
    shares = {"draw_share": DRAW_SHARE, "bucket_share": BUCKET_SHARE, **shares}
    return Arms.of(scores, controls, **shares)


def exact(effects, seeds=3, controls=5):
    """Arms without any noise but that of seeds, which all arms share."""
    common = np.linspace(-1.0, 1.0, seeds)
    return arms_of(
        {group: common + effect for group, effect in effects.items()},
        np.tile(common, (controls, 1)),
    )


def simulate(rng, studies, truth, *, controls=8, seeds=3, data=0.5, m_b=DRAW_SHARE):
    """Scores of shape (studies, 7, seeds) and (studies, controls, seeds).

    A score is truth + seed effect (common to all arms) + bucket + draw + training, with the
    finite-population variances of test_analysis_error_rates.
    """
    arms = 7 + controls
    bucket = math.sqrt(data * m_b * (1 - BUCKET_SHARE)) * rng.standard_normal((studies, arms, 1))
    spread = math.sqrt(data * (1 - m_b) + 1 - data)
    scores = bucket + spread * rng.standard_normal((studies, arms, seeds))
    scores += 3.0 * rng.standard_normal((studies, 1, seeds))
    scores[:, :7] += np.reshape(truth, (7, 1))
    return scores[:, :7], scores[:, 7:]


def simulate_rows(rng, studies, *, rows=960, controls=8, seeds=3, data=0.8):
    """Null scores of nested arms that share rows, and the share of rows that an arm has.

    Every row is in every factor's pool or not, by chance; the arm of a combination is what its
    pools have in common, trimmed by one order of the rows to the size of the smallest; a seed draws
    half of it, again by one order for all arms. Nothing is shared more than by such orders.
    """
    scores, sizes = np.empty((studies, 7 + controls, seeds)), []
    for study in scores:
        value, inside = rng.standard_normal(rows), rng.random((rows, 3)) < 0.5
        columns = [[FACTORS.index(name) for name in group] for group in groups()]
        masks = [inside[:, column].all(axis=1) for column in columns]
        size = min(mask.sum() for mask in masks)
        arms = [np.flatnonzero(mask)[:size] for mask in masks]
        arms += [rng.permutation(rows)[:size] for _ in range(controls)]
        order, draw = rng.permuted(np.tile(np.arange(rows), (seeds, 1)), axis=1), size // 2
        for i, arm in enumerate(arms):
            drawn = arm[np.argsort(order[:, arm], axis=1)[:, :draw]]
            study[i] = math.sqrt(data * draw) * value[drawn].mean(axis=1)
        sizes.append(size)
    scores += math.sqrt(1 - data) * rng.standard_normal(scores.shape)
    return scores[:, :7], scores[:, 7:], float(np.mean(sizes) / rows)
