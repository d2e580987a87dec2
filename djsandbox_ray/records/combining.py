"""What becomes of several good pools together."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """Pools of the single-operator stage that are worth combining, best first; maybe none."""

    id: str
    pools: tuple[str, ...]
    path: str
    """JSON: how they were chosen."""
    figure: str | None = None
    """PNG: the heat map with its dendrogram, where they were chosen by clustering."""


@dataclass(frozen=True)
class InteractionRow:
    """One quantity of the factorial model of a pyramid of combinations."""

    kind: str
    """main, interaction or shapley."""
    parts: str
    """The pools concerned, joined by " & "."""
    effect: float
    """In the unit of the ranking. main: mean over the other factors of adding this one;
    interaction: what the parts do together beyond what they do apart; shapley: a pool's fair share
    of the effect of all of them."""
    low: float
    high: float
    """Simultaneous interval over all rows."""
    verdict: str
    """helps, hurts or undecided: whether the interval excludes 0."""


@dataclass(frozen=True)
class SurrogateRow:
    """A combination as the model of main and pairwise effects predicts it."""

    pool: str
    predicted: float
    low: float
    high: float
    measured: float = math.nan
    """NaN for one that was not trained."""
    held_out: bool = False
    """Whether its own measurement had no part in the prediction."""


@dataclass(frozen=True)
class Interactions:
    """Which pools help or hurt each other."""

    id: str
    path: str
    """CSV: one :class:`InteractionRow` per quantity."""
    surrogate: str
    """CSV: one :class:`SurrogateRow` per combination."""
    notes: tuple[str, ...] = ()
    """What was left out, or rests on a part of the combinations."""
