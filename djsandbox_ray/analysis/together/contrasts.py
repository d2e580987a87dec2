"""Linear contrasts of arm means, with intervals that hold simultaneously.

With d_S the change of arm S against the C control arms, a contrast is L = sum(w_S d_S). Arm means
are independent with variances V_S, those of the controls V_j, and their mean is subtracted from
every arm, so that with complete arms

    Var(L) = sum(w_S^2 V_S) + (sum(w_S))^2 sum(V_j) / C^2

with the variances of :mod:`.arm_noise`. Contrasts are correlated in all ways; the critical value is
that of as many independent ones, which bounds the error under any correlation (Sidak 1967, JASA
62:626). For the 3 to 19 contrasts of 2 to 4 pools it is 1 to 5 % above the exact one, as simulated.

The arms of a pyramid are nested and share rows, so that their means are not quite independent: what
they share cancels in differences. A simulation with rows in the tests says what that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from djsandbox_ray.analysis.verdicts.arm_noise import ArmNoise, rounding_of
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Combination = frozenset[str]
"""The pools whose rows an arm has in common."""
Weights = Mapping[Combination, float]
"""A contrast: the weight of every arm; those that are not there have none."""


@dataclass(frozen=True, eq=False)
class Arms:
    """Scores of combinations beside those of control arms.

    Raises:
        ValueError: no combination, or the empty one; shapes that do not fit; an infinite score; a
            control arm with a missing score, or fewer than 3; a combination without any score;
            draw_share or bucket_share out of range.
    """

    combinations: tuple[Combination, ...]
    scores: Floats
    """Shape (combinations, seeds); NaN for a missing score."""
    controls: Floats
    """Shape (controls, seeds), complete."""
    draw_share: float
    """Size of a draw over the size of a pool; see
    :class:`~djsandbox_ray.analysis.verdicts.design.Design`."""
    bucket_share: float
    """Size of a pool over the number of rows that pools are made of; see there."""

    @classmethod
    def of(
        cls,
        scores: Mapping[Combination, ArrayLike],
        controls: ArrayLike,
        *,
        draw_share: float,
        bucket_share: float,
    ) -> Arms:
        """Gather scores of shape (seeds,) per combination, and (controls, seeds)."""
        rows = [np.asarray(row, dtype=np.float64) for row in scores.values()]
        if not rows or len({row.shape for row in rows}) > 1:
            raise ValueError(f"{len(rows)} arms are given; at least one, all with the same seeds")
        table = np.asarray(controls, dtype=np.float64)
        return cls(tuple(scores), np.stack(rows), table, draw_share, bucket_share)

    def __post_init__(self) -> None:
        if self.controls.ndim != 2 or self.scores.shape[1:] != self.controls.shape[1:]:
            raise ValueError(
                f"scores have shape {self.scores.shape} and controls {self.controls.shape}; "
                "(arms, seeds) is needed, with the same seeds"
            )
        if len(self.controls) < MIN_CONTROL_ARMS or not np.isfinite(self.controls).all():
            raise ValueError(
                f"at least {MIN_CONTROL_ARMS} control arms with finite scores are needed"
            )
        if np.isinf(self.scores).any() or np.isnan(self.scores).all(axis=1).any():
            raise ValueError("every arm needs a score, all finite; NaN stands for a missing one")
        if frozenset() in self.combinations:
            raise ValueError("the empty combination is the controls'; it is not given among arms")
        count, seeds = self.controls.shape
        Design(1, count, seeds, self.draw_share, self.bucket_share)  # refuses what is out of range

    @property
    def seeds(self) -> int:
        """Trials per arm."""
        return int(self.scores.shape[1])

    @cached_property
    def changes(self) -> Floats:
        """Mean over seeds of the arm's score less the controls' mean of that seed, (arms,)."""
        return np.asarray(np.nanmean(self.scores - self.controls.mean(axis=0), axis=1))

    @cached_property
    def present(self) -> Floats:
        """How many scores every arm has, shape (arms,)."""
        return np.asarray(np.isfinite(self.scores).sum(axis=1), dtype=np.float64)

    @cached_property
    def noise(self) -> ArmNoise:
        """The noise of all arms, inferred as that of verdicts is."""
        return ArmNoise.of(self.scores, self.controls, self.draw_share, self.bucket_share)

    def matrix(self, contrasts: Sequence[Weights]) -> Floats:
        """Return the weights of contrasts, shape (contrasts, arms).

        Raises:
            ValueError: a weight on a combination that is not among the arms.
        """
        place = {combination: i for i, combination in enumerate(self.combinations)}
        weights = np.zeros((len(contrasts), len(place)))
        for row, contrast in zip(weights, contrasts, strict=True):
            for combination, weight in contrast.items():
                if combination not in place:
                    raise ValueError(f"no arm {sorted(combination)}, on which a contrast depends")
                row[place[combination]] = weight
        return weights

    def effects(self, weights: Floats) -> Floats:
        """Return the contrasts, shape (contrasts,).

        Args:
            weights: shape (contrasts, arms).
        """
        effects = weights @ self.changes
        return np.where(np.abs(effects) <= rounding_of(self.controls), 0.0, effects)

    def half_widths(self, weights: Floats, alpha: float, untrained: ArrayLike = 0.0) -> Floats:
        """Return half-widths of simultaneous intervals, shape (contrasts,).

        Args:
            weights: shape (contrasts, arms). Equal contrasts, whatever their sign, count once.
            alpha: family-wise error rate, in (0, 1).
            untrained: shape (contrasts,), the weight of one more arm with all its seeds, which was
                not trained.

        Raises:
            ValueError: alpha out of range.
        """
        if not len(weights):
            return np.zeros(0)
        count, seeds = self.controls.shape
        extra = np.broadcast_to(np.asarray(untrained, dtype=np.float64), len(weights))
        # By seed, what is subtracted of the controls.
        seen = np.isfinite(self.scores) / self.present[:, None]
        subtracted = weights @ seen + extra[:, None] / seeds
        shared = seeds * (subtracted**2).sum(axis=1, keepdims=True) / count**2
        own = weights**2 * (seeds / self.present)
        squares = np.hstack([own, np.broadcast_to(shared, (len(weights), count))])
        # An arm that was not trained is as noisy as all are on average.
        squares = squares + extra[:, None] ** 2 / squares.shape[1]
        first, place, size = _different(np.column_stack([weights, extra]))
        return self.noise.half_widths(squares[first], alpha)[place] * size


def label(combination: Combination, factors: Iterable[str], joint: str = " & ") -> str:
    """Name a combination by its parts in the order of the factors."""
    return joint.join(name for name in factors if name in combination)


def _different(weights: Floats) -> tuple[Integers, Integers, Floats]:
    """Find contrasts that are equal but for a factor.

    Returns:
        The rows of different ones; for every row the place of its like among those, and its size
        over that of its like.
    """
    size = np.linalg.norm(weights, axis=1)
    unit = np.round(weights / np.where(size > 0, size, 1.0)[:, None], 9)
    lead = unit[np.arange(len(unit)), (unit != 0).argmax(axis=1)]
    signed = np.where(lead[:, None] < 0, -unit, unit) + 0.0
    _, first, place = np.unique(signed, axis=0, return_index=True, return_inverse=True)
    own = size[first][place]
    return first, place, size / np.where(own > 0, own, 1.0)
