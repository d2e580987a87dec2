"""The second look: what a further study says of the pools that the first one decided.

The best of many measured effects is too good on average: it was chosen also for its luck (the
winner's curse). So the pools that are called better are trained again with fresh seeds and
controls. That study had no part in the choice, and its effects have no such bias: :func:`confirm`
sets them beside the first, :func:`candidates` says which pools may be taken further, and in which
order. :func:`flips` asks whether verdicts stand at another learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import ConfirmationRow, FlipRow, PoolKind, RankingRow
from djsandbox_ray.settings.sections import Section

DECIDED = ("better", "worse")
"""Verdicts that can be wrong."""


class ConfirmConfig(Section):
    """The second look at the pools that are called better."""

    top: int = Field(default=3, ge=0, le=1000, strict=True)
    """At most so many pools, best first, are trained again with fresh seeds; 0 for none."""
    seeds: int | None = Field(default=None, ge=1, le=1000, strict=True)
    """Fresh seeds; by default as many as the first study has."""
    controls: int = Field(default=5, ge=5, le=1000, strict=True)
    """Fresh control arms."""


class LearningRateConfig(Section):
    """Whether the verdicts hold at a second learning rate."""

    learning_rate: float = Field(gt=0)
    """Replaces the model's, for the controls and the pools that were decided."""


def selected(rows: Sequence[RankingRow], top: int) -> list[str]:
    """Return the ids of the pools that are called better, at most ``top``, best first.

    Raises:
        BadInput: a negative ``top``.
    """
    if top < 0:
        raise BadInput(f"top is {top}; a number of pools is needed, 0 or more")
    better = [row for row in rows if row.kind is PoolKind.BUCKET and row.verdict == "better"]
    return [row.pool for row in sorted(better, key=lambda row: row.rank)[:top]]


def confirm(first: Sequence[RankingRow], second: Sequence[RankingRow]) -> list[ConfirmationRow]:
    """Set the effects of the second study beside those that its pools were chosen by.

    Both rankings must be in one unit: see ``measured_in`` of
    :func:`.ranking.rank`.

    Args:
        first: the ranking that pools were chosen from.
        second: the ranking of the chosen ones, from fresh seeds and controls.

    Returns:
        One row per pool of the second study, in the order of the first; self-tests are left out.

    Raises:
        BadInput: a pool of the second study that the first did not call better, or that was given
            up early.
    """
    again = {row.pool: row for row in second if row.kind is PoolKind.BUCKET}
    chosen = [name for name in selected(first, len(first)) if name in again]
    if unknown := again.keys() - set(chosen):
        raise BadInput(f"the first study did not call the pool {min(unknown)!r} better")
    if stopped := [name for name in chosen if again[name].stopped_at is not None]:
        raise BadInput(f"pool {stopped[0]!r} was given up early; a second look is never cut short")
    by_pool = {row.pool: row for row in first}
    return [_row(by_pool[name], again[name]) for name in chosen]


def _row(first: RankingRow, second: RankingRow) -> ConfirmationRow:
    return ConfirmationRow(
        pool=first.pool,
        first=first.change,
        first_low=first.low,
        first_high=first.high,
        shrunken=first.shrunken,
        confirmed=second.change,
        low=second.low,
        high=second.high,
        verdict=second.verdict,
        seeds=second.seeds,
    )


@dataclass(frozen=True)
class Candidate:
    """What speaks for a single-operator pool, and against it."""

    pool: str
    statistic: str | None
    """None where a builder of pools has picked its rows."""
    effect: float
    """In the unit of the ranking: the confirmed effect, else the first one, shrunken; NaN where
    every trial failed."""
    confirmed: bool
    """Whether it is better in the second study, too."""
    unfit: str = ""
    """Why it cannot be taken whatever the others are; empty where it can."""

    @property
    def order(self) -> tuple[bool, bool, float, str]:
        """Confirmed ones, whose effect the choice has not biased, then by effect."""
        unknown = math.isnan(self.effect)
        return not self.confirmed, unknown, 0.0 if unknown else -self.effect, self.pool


def candidates(
    ranking: Sequence[RankingRow],
    confirmation: Sequence[ConfirmationRow],
    *,
    only_confirmed: bool,
) -> list[Candidate]:
    """Return what is known of every single-operator pool, the best first.

    Args:
        ranking: of the first study.
        confirmation: the second look; empty where there was none.
        only_confirmed: whether a pool must be better in the second look, too; if not, it must only
            not be worse there.
    """
    again = {row.pool: row for row in confirmation}
    found = []
    for row in ranking:
        if row.kind is not PoolKind.BUCKET:
            continue
        second = again.get(row.pool)
        confirmed = second is not None and second.verdict == "better"
        first = row.change if math.isnan(row.shrunken) else row.shrunken
        effect = second.confirmed if second is not None and confirmed else first
        unfit = _unfit(row, second, only_confirmed)
        found.append(Candidate(row.pool, row.statistic, effect, confirmed, unfit))
    return sorted(found, key=lambda item: item.order)


def _unfit(row: RankingRow, second: ConfirmationRow | None, only_confirmed: bool) -> str:
    if row.verdict != "better":
        return f"was not called better, but {row.verdict}"
    if row.statistic is None:
        return "is no part of a statistic, so that it cannot be combined"
    if second is None:
        return "has had no second look" if only_confirmed else ""
    if second.verdict == "worse" or (only_confirmed and second.verdict != "better"):
        return f"is {second.verdict} in the second look"
    return ""


def flips(first: Sequence[RankingRow], second: Sequence[RankingRow]) -> list[FlipRow]:
    """Compare the verdicts of two studies of the same pools, such as at two learning rates.

    Args:
        first: the ranking of the first study.
        second: that of the second one; it may lack pools that the first left undecided.

    Returns:
        One row per pool that is better or worse in either study, in the order of the first.
        Self-tests are left out.

    Raises:
        BadInput: a pool of the second study that the first has not, or one that the first decided
            and the second has not.
    """
    others = {row.pool: row for row in second if row.kind is PoolKind.BUCKET}
    own = [row for row in sorted(first, key=lambda r: r.rank) if row.kind is PoolKind.BUCKET]
    if unknown := others.keys() - {row.pool for row in own}:
        raise BadInput(f"the second study has the pool {min(unknown)!r}, which the first has not")
    lost = [row.pool for row in own if row.verdict in DECIDED and row.pool not in others]
    if lost:
        raise BadInput(f"the second study lacks the pool {lost[0]!r}, which the first decided")
    return [
        FlipRow(row.pool, row.change, row.verdict, other.change, other.verdict)
        for row in own
        if (other := others.get(row.pool)) and {row.verdict, other.verdict} & {*DECIDED}
    ]
