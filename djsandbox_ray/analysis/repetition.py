"""Whether more repetitions still pay, and what they cost against new rows.

A difference of two cells (a strategy at a factor) is compared with the scatter of seeds within
these two alone, by Welch's test: longer trainings scatter more, and repeated rows of a small draw
more than new ones of a large one, so that no cell says much about another. A seed gives two
trainings little in common, and where it does, this is on the safe side. All differences of one
question hold together (Bonferroni).

Steps of "repeat" are between trainings on one pool: which rows it has is in both. New rows are
compared with repeated ones of *one* pool, whose luck no seed averages away: the interval is wider
by the most that this luck can be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from djsandbox_ray.analysis.seed_bootstrap import CONFIDENCE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One cell against another."""

    of: str
    """What is compared: ``repeat x4``."""
    against: str
    value: float | None
    """In the unit of the ranking; None where one of both has no result."""
    low: float | None
    high: float | None
    """Simultaneous interval over the differences of one question; None with one seed, and where
    seeds say nothing of other rows."""
    verdict: str
    """better, worse or undecided: whether the interval excludes 0."""


@dataclass(frozen=True)
class Paying:
    """Where repetition stops paying."""

    factor: int | None
    """The largest one whose gain over the one before is beyond noise, none before it being worse
    than the one before; None: no gain is."""
    statement: str
    steps: tuple[Difference, ...]
    """Every factor of "repeat" against the one before it."""


def paying(factors: Sequence[int], scores: Floats) -> Paying:
    """Say up to which factor repetition pays: as far as a step is better, until one is worse.

    Args:
        factors: rising.
        scores: of "repeat", (factors, seeds), NaN where a trial has no result.
    """
    names = [f"repeat x{factor}" for factor in factors]
    steps = _differences(names[1:], names[:-1], scores[1:], scores[:-1], np.zeros(len(names) - 1))
    falls = next((i for i, step in enumerate(steps) if step.verdict == "worse"), len(steps))
    gains = [i for i, step in enumerate(steps[:falls]) if step.verdict == "better"]
    last = factors[gains[-1] + 1] if gains else None
    return Paying(last, _statement(factors, steps, last, falls), steps)


def against_new_rows(
    factors: Sequence[int], expand: Floats, repeat: Floats, draw_share: float, bucket_share: float
) -> list[Difference]:
    """Return what "expand" has over "repeat" at equal samples seen, factor by factor.

    The intervals are of pools of the same kind, not of the rows that this top pool happens to have.
    With the factor f, "expand" draws from f times as many rows, the top pool's n among them. The
    means over both pools differ by chance with the variance S^2 (1/n - 1/(f n)), S^2 that of single
    rows and f at most 1/bucket_share; draws of d n rows vary within the top pool by at least S^2
    (1 - d)/(d n). So the luck of the pool is at most d (1 - 1/f)/(1 - d) times the variance within
    the cell of "repeat", as in :attr:`djsandbox_ray.analysis.design.Design.bucket_bound`.

    Args:
        factors: rising.
        expand: scores, (factors, seeds), NaN where a trial has no result.
        repeat: the same.
        draw_share: size of a draw over that of the top pool, in (0, 1]. With 1, all seeds repeat
            the same rows and say nothing of others: there are no intervals beyond the factor 1.
        bucket_share: size of the top pool over the number of rows that there are, in (0, 1].
    """
    new, again = ([f"{name} x{factor}" for factor in factors] for name in ("expand", "repeat"))
    share = 1 - np.maximum(1 / np.array(factors, dtype=np.float64), bucket_share)
    most = draw_share / (1 - draw_share) if draw_share < 1 else math.inf
    luck = np.array([most * part if part > 0 else 0.0 for part in share.tolist()])
    return list(_differences(new, again, expand, repeat, luck))


def _differences(
    names: Sequence[str], others: Sequence[str], of: Floats, against: Floats, luck: Floats
) -> tuple[Difference, ...]:
    """Compare cells row by row.

    Args:
        names: of the cells.
        others: of those that they are compared with.
        of: scores, (cells, seeds).
        against: the same of the others.
        luck: (cells,): variance that seeds do not show, in that within the other cell, at most.
    """
    level = 1 - (1 - CONFIDENCE) / (2 * max(len(of), 1))
    found = []
    for name, other, mine, theirs, more in zip(names, others, of, against, luck, strict=True):
        here, there = _there(mine), _there(theirs)
        if not (len(here) and len(there)):
            found.append(Difference(name, other, None, None, None, "undecided"))
            continue
        value = float(here.mean() - there.mean())
        half = _half_width(here, there, float(more), level)
        if half is None:
            found.append(Difference(name, other, value, None, None, "undecided"))
            continue
        verdict = "undecided" if abs(value) <= half else "better" if value > 0 else "worse"
        found.append(Difference(name, other, value, value - half, value + half, verdict))
    return tuple(found)


def _half_width(here: Floats, there: Floats, luck: float, level: float) -> float | None:
    """Return that of Welch's interval (Biometrika 34:28, 1947); None where it is unbounded."""
    if min(len(here), len(there)) < 2 or math.isinf(luck):
        return None
    mine, theirs = here.var(ddof=1) / len(here), there.var(ddof=1) / len(there)
    if mine + theirs == 0:  # trials that repeat each other to the last digit
        return 0.0
    lucky = theirs * (1 + luck * len(there))

    def freedom(other: float) -> float:
        """Satterthwaite's."""
        squares = mine**2 / (len(here) - 1) + other**2 / (len(there) - 1)
        return float((mine + other) ** 2 / squares)

    # More variance on the quieter side would raise it: luck must not make an interval narrower.
    factor = stats.t.ppf(level, min(freedom(theirs), freedom(lucky)))
    return float(factor * math.sqrt(mine + lucky))


def _there(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _statement(
    factors: Sequence[int], steps: Sequence[Difference], last: int | None, falls: int
) -> str:
    if len(factors) < 2:
        return "one factor only: there is nothing to compare"
    if all(step.low is None for step in steps):
        return "undecided: without two results of a seed each, a gain is not told from noise"
    if falls < len(steps):
        beyond = f"{steps[falls].of} is worse than {steps[falls].against}"
        again = [step.of for step in steps[falls:] if step.verdict == "better"]
        if again:
            beyond += (
                f"; that {', '.join(again)} is better again than the one before counts no more"
            )
        return (
            f"repetition does not pay: {beyond}"
            if last is None
            else f"repetition pays up to x{last}; {beyond}"
        )
    if last is None:
        return "undecided: no step is a gain or a loss beyond noise"
    if last == factors[-1]:
        return f"repetition still pays at x{last}, the largest factor tried"
    return f"repetition pays up to x{last}; whether it does beyond that is undecided"
