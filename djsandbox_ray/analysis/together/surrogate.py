"""A simple model of combinations, main effects and pairs, that predicts those not trained.

    y(S) = b_0 + sum over i in S of b_i + sum over pairs i, j in S of b_ij,

fitted by weighted least squares to the arms that were trained, the controls being the empty
combination: weights are one over the variances, so that the C controls count C times. The
prediction is a linear combination sum(a_j y_j) of the arms, and how far the measured change may
come out from it is a contrast, too: y(S) - sum(a_j y_j). Intervals are prediction intervals, for
the change that is or would be measured, and hold simultaneously over all rows *if* there are no
interactions of three and more. Combinations of three and more test that: each is predicted from all
others, and should lie in its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations as choose

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.together.contrasts import Arms, Combination, label
from djsandbox_ray.analysis.together.interactions import subsets
from djsandbox_ray.records import SurrogateRow

Floats = NDArray[np.float64]

_ESTIMABLE = 1e-8
"""How far from zero rounding may bring what is not explained of a row of the design matrix."""
LEAST_HELD_OUT = 3
"""Parts of a combination that is held out: the model is to extrapolate from smaller ones."""


@dataclass(frozen=True)
class Surrogate:
    """Predicted combinations, and why others are not predicted."""

    rows: tuple[SurrogateRow, ...]
    """Those held out, then those that were not trained."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Foreseen:
    combination: Combination
    arms: Floats
    """Weight of every arm, shape (arms,); the controls have what these lack to 1."""
    held_out: int | None
    """The place of the combination among the arms."""


def surrogate(arms: Arms, factors: Sequence[str], alpha: float = 0.05) -> Surrogate:
    """Predict the combinations that were not trained, and those of three and more that were.

    Args:
        arms: the combinations that have scores.
        factors: what they are combinations of.
        alpha: error rate over the family of all rows, in (0, 1).

    Raises:
        ValueError: alpha out of range.
    """
    place = {combination: i for i, combination in enumerate(arms.combinations)}
    wanted = [group for group in subsets(factors) if group]
    tested = [group for group in wanted if group in place and len(group) >= LEAST_HELD_OUT]
    untrained = [group for group in wanted if group not in place]
    found, unknown = [], []
    for group in [*tested, *untrained]:
        weights = _weights(arms, factors, group, place.get(group))
        if weights is None:
            unknown.append(label(group, factors))
        else:
            found.append(_Foreseen(group, weights, place.get(group)))
    notes = []
    if unknown:
        notes.append(
            f"Too few arms to predict {', '.join(unknown)} from main and pairwise effects."
        )
    elif not found:
        notes.append(
            f"Nothing to predict: all combinations were trained, none of {LEAST_HELD_OUT} or more."
        )
    return Surrogate(tuple(_rows(arms, factors, found, alpha)), tuple(notes))


def _weights(
    arms: Arms, factors: Sequence[str], target: Combination, left_out: int | None
) -> Floats | None:
    """Return the weight of every arm in a prediction; None where the arms do not determine it."""
    precision = np.append(arms.present / arms.seeds, len(arms.controls))
    if left_out is not None:
        precision[left_out] = 0.0
    root = np.sqrt(precision)
    design = _design([*arms.combinations, frozenset()], factors) * root[:, None]
    wanted = _design([target], factors)[0]
    weights = wanted @ np.linalg.pinv(design)
    if np.abs(weights @ design - wanted).max() > _ESTIMABLE:
        return None
    return np.asarray((weights * root)[:-1])


def _design(groups: Sequence[Combination], factors: Sequence[str]) -> Floats:
    """Intercept, factors and pairs as 0 and 1, shape (groups, 1 + k + k (k - 1) / 2)."""
    terms = [frozenset(term) for size in range(3) for term in choose(factors, size)]
    return np.array([[float(term <= group) for term in terms] for group in groups])


def _rows(
    arms: Arms, factors: Sequence[str], found: Sequence[_Foreseen], alpha: float
) -> list[SurrogateRow]:
    if not found:
        return []
    weights = np.stack([prediction.arms for prediction in found])
    predicted = arms.effects(weights)
    errors = -weights
    untrained = np.array([float(prediction.held_out is None) for prediction in found])
    for row, prediction in zip(errors, found, strict=True):
        if prediction.held_out is not None:
            row[prediction.held_out] = 1.0
    half = arms.half_widths(errors, alpha, untrained)
    return [
        SurrogateRow(
            pool=label(prediction.combination, factors, "&"),
            predicted=float(value),
            low=float(value - width),
            high=float(value + width),
            measured=_measured(arms, prediction),
            held_out=prediction.held_out is not None,
        )
        for prediction, value, width in zip(found, predicted, half, strict=True)
    ]


def _measured(arms: Arms, prediction: _Foreseen) -> float:
    return math.nan if prediction.held_out is None else float(arms.changes[prediction.held_out])
