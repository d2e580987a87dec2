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
    order: int
    """How many pools are concerned."""
    effect: float
    """In the unit of the ranking. main: mean over the other factors of adding this one;
    interaction of two: what they do together beyond what they do apart; of more: beyond what the
    effects of fewer of them add up to; shapley: a pool's fair share of the effect of all."""
    low: float
    high: float
    """Simultaneous interval over all rows."""
    verdict: str
    """undecided where the interval holds 0; else helps or hurts. Of three and more pools: more or
    less, for they may help each other and still do less than their pairs let expect."""
    contexts: int
    """Sets of the other pools that the effect is averaged over: those that were trained."""
    all_contexts: int
    """All sets of the other pools, none of them included."""


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
