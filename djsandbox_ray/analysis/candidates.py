"""Which pools of the first study may be taken further, and in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from djsandbox_ray.records import ConfirmationRow, PoolKind, RankingRow

_BETTER = "better"


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
        confirmed = second is not None and second.verdict == _BETTER
        first = row.change if math.isnan(row.shrunken) else row.shrunken
        effect = second.confirmed if second is not None and confirmed else first
        unfit = _unfit(row, second, only_confirmed)
        found.append(Candidate(row.pool, row.statistic, effect, confirmed, unfit))
    return sorted(found, key=lambda item: item.order)


def _unfit(row: RankingRow, second: ConfirmationRow | None, only_confirmed: bool) -> str:
    if row.verdict != _BETTER:
        return f"was not called better, but {row.verdict}"
    if row.statistic is None:
        return "is no part of a statistic, so that it cannot be combined"
    if second is None:
        return "has had no second look" if only_confirmed else ""
    if second.verdict == "worse" or (only_confirmed and second.verdict != _BETTER):
        return f"is {second.verdict} in the second look"
    return ""
