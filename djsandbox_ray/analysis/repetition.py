"""Whether more repetitions still pay, and what they cost against new rows.

Gains are compared with the scatter of seeds within the cells (a strategy at a factor), pooled over
all cells: a seed gives trainings of two lengths little in common, and where it does, this is on the
safe side. All differences of one question hold together (Bonferroni).
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
    """Simultaneous interval over the differences of one question; None with one seed."""
    verdict: str
    """better, worse or undecided: whether the interval excludes 0."""


@dataclass(frozen=True)
class Paying:
    """Where repetition stops paying."""

    factor: int | None
    """The largest one whose gain over the one before is beyond noise; None: no gain is."""
    statement: str
    steps: tuple[Difference, ...]
    """Every factor of "repeat" against the one before it."""


def paying(factors: Sequence[int], scores: Floats) -> Paying:
    """Say up to which factor repetition pays.

    Args:
        factors: rising.
        scores: of "repeat", (factors, seeds), NaN where a trial has no result.
    """
    pairs = list(zip(range(len(factors)), range(1, len(factors)), strict=False))
    names = [f"repeat x{factor}" for factor in factors]
    steps = _differences(
        [names[after] for _, after in pairs],
        [names[before] for before, _ in pairs],
        scores[[after for _, after in pairs]],
        scores[[before for before, _ in pairs]],
        scores,
    )
    gains = [factors[index + 1] for index, step in enumerate(steps) if step.verdict == "better"]
    last = max(gains, default=None)
    return Paying(last, _statement(factors, steps, last), steps)


def against_new_rows(factors: Sequence[int], expand: Floats, repeat: Floats) -> list[Difference]:
    """Return what "expand" has over "repeat" at equal samples seen, factor by factor.

    Args:
        factors: rising.
        expand: scores, (factors, seeds), NaN where a trial has no result.
        repeat: the same.
    """
    new, again = ([f"{name} x{factor}" for factor in factors] for name in ("expand", "repeat"))
    return list(_differences(new, again, expand, repeat, np.concatenate([expand, repeat])))


def _differences(
    names: Sequence[str], others: Sequence[str], of: Floats, against: Floats, cells: Floats
) -> tuple[Difference, ...]:
    """Compare cells row by row with the pooled variance of ``cells``."""
    counts = np.isfinite(cells).sum(axis=1)
    freedom = int(np.maximum(counts - 1, 0).sum())
    squares = sum(float(((c - c.mean()) ** 2).sum()) for c in map(_there, cells) if len(c))
    sd = math.sqrt(squares / freedom) if freedom else math.nan
    level = 1 - (1 - CONFIDENCE) / (2 * max(len(of), 1))
    factor = float(stats.t.ppf(level, freedom)) if freedom else math.nan
    found = []
    for name, other, mine, theirs in zip(names, others, of, against, strict=True):
        here, there = _there(mine), _there(theirs)
        if not (len(here) and len(there)):
            found.append(Difference(name, other, None, None, None, "undecided"))
            continue
        value = float(here.mean() - there.mean())
        half = factor * sd * math.sqrt(1 / len(here) + 1 / len(there))
        if math.isnan(half):
            found.append(Difference(name, other, value, None, None, "undecided"))
            continue
        verdict = "undecided" if abs(value) <= half else "better" if value > 0 else "worse"
        found.append(Difference(name, other, value, value - half, value + half, verdict))
    return tuple(found)


def _there(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _statement(factors: Sequence[int], steps: Sequence[Difference], last: int | None) -> str:
    if len(factors) < 2:
        return "one factor only: there is nothing to compare"
    if all(step.low is None for step in steps):
        return "undecided: without two results of a seed each, a gain is not told from noise"
    later = steps if last is None else steps[factors.index(last) :]
    loss = next((step for step in later if step.verdict == "worse"), None)
    beyond = f"{loss.of} is worse than {loss.against}" if loss else ""
    if last is None:
        return (
            f"repetition does not pay: {beyond}"
            if loss
            else ("undecided: no step is a gain or a loss beyond noise")
        )
    if not later:
        return f"repetition still pays at x{last}, the largest factor tried"
    return f"repetition pays up to x{last}; " + (
        beyond or "whether it does beyond that is undecided"
    )
