"""Chooses the best pools of the single-operator stage, those that a second look has confirmed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.analysis.verdicts.second_look import Candidate, candidates
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Choice,
    Confirmation,
    ConfirmationRow,
    Pools,
    Ranking,
    RankingRow,
)


@dataclass(frozen=True)
class Considered:
    """A bucket of the first study, and whether it is taken."""

    candidate: Candidate
    taken: bool
    reason: str
    """Why it is taken or not."""

    def to_json(self, row: RankingRow, second: ConfirmationRow | None) -> dict[str, Any]:
        """Return plain data; None for a number that is not there.

        Args:
            row: of the first study.
            second: of the second look, where it was there.
        """
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


class ChooseTop(Hook):
    """Writes ``choice.json``: every bucket, and why it was taken or not."""

    VERSION = 1

    def ahead(self, top: int = 3, **_: Any) -> Planned:
        """``top`` pools at most; nothing is trained."""
        return Planned(pools=top)

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
        rows = self.rows(RankingRow, ranking)
        seconds = self.rows(ConfirmationRow, confirmation)
        decided = choose(candidates(rows, seconds, only_confirmed=only_confirmed), top)
        chosen = tuple(item.candidate.pool for item in decided if item.taken)
        first, again = {row.pool: row for row in rows}, {row.pool: row for row in seconds}
        document = {
            "top": top,
            "only_confirmed": only_confirmed,
            "chosen": list(chosen),
            "candidates": [
                item.to_json(first[name], again.get(name))
                for name, item in ((item.candidate.pool, item) for item in decided)
            ],
        }
        path = self.write_sealed("choice.json", document)
        if not chosen:
            better = [item for item in decided if first[item.candidate.pool].verdict == "better"]
            why = "none was called better"
            if better:
                why = f"{better[0].candidate.pool} {better[0].reason}"
            self.note(f"choice: no pool is taken: {why}")
            return None
        self.note(f"choice: {', '.join(chosen)}")
        return Choice(content_id("choice", pools.id, document), chosen, path)


def choose(known: Sequence[Candidate], top: int) -> list[Considered]:
    """Say of every candidate whether it is taken.

    Args:
        known: the best first.
        top: how many to take at most, one per statistic.
    """
    taken: dict[str | None, str] = {}
    decided = []
    for item in known:
        reason = item.unfit
        if not reason and item.statistic in taken:
            reason = f"is of the statistic of {taken[item.statistic]}, which is better"
        if not reason and len(taken) == top:
            reason = f"is not among the best {top}"
        if not reason:
            taken[item.statistic] = item.pool
        outcome = "is confirmed" if item.confirmed else "was called better"
        decided.append(Considered(item, not reason, reason or outcome))
    return decided


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
