"""Chooses the best pools of the single-operator stage, those that a second look has confirmed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from djsandbox_ray.analysis.confirmation import read_confirmation
from djsandbox_ray.analysis.ranking_csv import read_csv
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Choice,
    Confirmation,
    ConfirmationRow,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
)

_BETTER = "better"


@dataclass(frozen=True)
class Candidate:
    """A bucket of the first study, and whether it is taken."""

    row: RankingRow
    second: ConfirmationRow | None
    """Of the second study, where it was there."""
    taken: bool = False
    reason: str = ""
    """Why it is taken or not."""

    @property
    def confirmed(self) -> bool:
        """Whether it is better in the second study, too."""
        return self.second is not None and self.second.verdict == _BETTER

    @property
    def order(self) -> tuple[int, float, str]:
        """Confirmed ones by the effect that the choice has not biased; then by the shrunken one."""
        if self.second is not None and self.confirmed:
            return 0, -self.second.confirmed, self.row.pool
        effect = self.row.change if math.isnan(self.row.shrunken) else self.row.shrunken
        return (2, 0.0, self.row.pool) if math.isnan(effect) else (1, -effect, self.row.pool)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None for a number that is not there."""
        row, second = self.row, self.second
        return {
            "pool": row.pool,
            "taken": self.taken,
            "reason": self.reason,
            "statistic": row.statistic,
            "first": _number(row.change),
            "shrunken": _number(row.shrunken),
            "first_verdict": row.verdict,
            "confirmed": _number(second.confirmed) if second else None,
            "confirmed_verdict": second.verdict if second else None,
        }


@HOOKS.register("top_k")
class ChooseTop(Hook):
    """Writes ``choice.json``: every bucket, and why it was taken or not."""

    def run(
        self,
        pools: Pools,
        ranking: Ranking,
        confirmation: Confirmation | None,
        top: int = 3,
        only_confirmed: bool = True,
    ) -> Choice | None:
        """Choose at most ``top`` pools that were called better, one per statistic, best first.

        Args:
            pools: of the first study.
            ranking: of these pools.
            confirmation: the second look; None where there was none.
            top: how many at most, 1 or more.
            only_confirmed: whether a pool must be better in the second look, too; if not, those
                that are not confirmed follow the confirmed ones, except where the second look
                found them worse.

        Returns:
            None where no pool can be taken.

        Raises:
            BadInput: ``top`` below 1.
        """
        if top < 1:
            raise BadInput(f"top is {top}; at least 1 pool must be allowed")
        storage, note = self.context.storage, self.context.progress.note
        rows = read_csv(storage.read_bytes(ranking.path).decode())
        seconds = []
        if confirmation is not None:
            seconds = read_confirmation(storage.read_bytes(confirmation.path).decode())
        candidates = choose(rows, seconds, top, only_confirmed)
        chosen = tuple(item.row.pool for item in candidates if item.taken)
        document = {
            "top": top,
            "only_confirmed": only_confirmed,
            "chosen": list(chosen),
            "candidates": [item.to_json() for item in candidates],
        }
        path = f"{self.context.folder}/choice.json"
        storage.write_json(path, document)
        if not chosen:
            better = [item for item in candidates if item.row.verdict == _BETTER]
            why = f"{better[0].row.pool} {better[0].reason}" if better else "none was called better"
            note(f"choice: no pool is taken: {why}")
            return None
        note(f"choice: {', '.join(chosen)}")
        return Choice(content_id("choice", pools.id, document), chosen, path)


def choose(
    first: Sequence[RankingRow], second: Sequence[ConfirmationRow], top: int, only_confirmed: bool
) -> list[Candidate]:
    """Say of every bucket of the first study whether it is taken, the best first.

    Args:
        first: the ranking of the first study.
        second: its second look; empty where there was none.
        top: how many to take at most.
        only_confirmed: see :meth:`ChooseTop.run`.
    """
    again = {row.pool: row for row in second}
    buckets = [row for row in first if row.kind is PoolKind.BUCKET]
    candidates = sorted(
        (Candidate(row, again.get(row.pool)) for row in buckets), key=lambda item: item.order
    )
    taken: dict[str | None, str] = {}
    judged = []
    for item in candidates:
        reason = _unfit(item, only_confirmed)
        if not reason and item.row.statistic in taken:
            reason = f"is of the statistic of {taken[item.row.statistic]}, which is better"
        if not reason and len(taken) == top:
            reason = f"is not among the best {top}"
        if not reason:
            taken[item.row.statistic] = item.row.pool
        outcome = "is confirmed" if item.confirmed else "was called better"
        judged.append(replace(item, taken=not reason, reason=reason or outcome))
    return judged


def _unfit(item: Candidate, only_confirmed: bool) -> str:
    """Say why a pool cannot be taken whatever the others are; nothing if it can."""
    if item.row.verdict != _BETTER:
        return f"was not called better, but {item.row.verdict}"
    if item.second is None:
        return "has had no second look" if only_confirmed else ""
    if item.second.verdict == "worse" or (only_confirmed and not item.confirmed):
        return f"is {item.second.verdict} in the second look"
    return ""


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
