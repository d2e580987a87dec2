"""What a threshold search leaves behind: ``search.json``, ``search.csv`` and its thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from djsandbox_ray.recipes.search.search import Proposal, ProposalState, SearchPlan
from djsandbox_ray.records import ConfirmationRow, Range, RankingRow


@dataclass(frozen=True)
class ProposalRow:
    """A proposal as a row of ``search.csv``."""

    number: int
    pool: str
    state: ProposalState
    rows: int
    score: float
    """NaN where there is none."""
    windows: str
    """Quantiles: ``text_len 0.33 to 1``; open ones are left out."""
    ranges: str
    """Values: ``text_len in [10, inf]``."""


def proposal_rows(proposals: Sequence[Proposal]) -> list[ProposalRow]:
    """Return ``search.csv``: one :class:`ProposalRow` per proposal."""
    return [_row(item) for item in proposals]


@dataclass(frozen=True)
class SearchReport:
    """A finished search."""

    plan: SearchPlan
    proposals: tuple[Proposal, ...]
    winner: Proposal
    """The trained proposal of the greatest score."""
    confirmed: ConfirmationRow | None
    """Its second look; None where there was none, or it could not be judged."""
    only_confirmed: bool = True
    """Whether thresholds are handed on only if the second look calls the winner better."""

    @property
    def accepted(self) -> bool:
        """Whether there are thresholds to hand on."""
        better = self.confirmed is not None and self.confirmed.verdict == "better"
        return self.winner.is_gain and (better or not self.only_confirmed)

    @property
    def summary(self) -> str:
        """What was chosen from how many, and what became of it, in one line."""
        trained = sum(item.state is ProposalState.TRAINED for item in self.proposals)
        wanted = "" if trained == self.plan.proposals else f" of {self.plan.proposals}"
        chosen = f"search: best of {trained}{wanted} proposals, score {self.winner.score:+.3g}"
        if not self.winner.is_gain:
            return f"{chosen}: not above keeping every row, so there are no thresholds"
        row = self.confirmed
        if row is None or math.isnan(row.confirmed):
            second = "not confirmed: the trials of the second look failed"
        else:
            word = "confirmed" if row.verdict == "better" else "not confirmed"
            second = (
                f"{word} with fresh seeds and controls: {row.confirmed:+.3g} "
                f"[{row.low:+.3g}, {row.high:+.3g}], {row.verdict}"
            )
        refused = "" if self.accepted else ": there are no thresholds (only_confirmed)"
        return f"{chosen}; {second}{refused}"

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        states = [item.state for item in self.proposals]
        return {
            "plan": asdict(self.plan),
            "states": {str(state): states.count(state) for state in ProposalState},
            "best": self.winner.number,
            "confirmed": self._effect(),
            "only_confirmed": self.only_confirmed,
            "accepted": self.accepted,
            "proposals": [_to_json(item) for item in self.proposals],
        }

    def thresholds_json(self, ranges: Sequence[Range]) -> dict[str, Any]:
        """Return the thresholds, and how they came about, as plain data.

        Args:
            ranges: those of the winner, within what was searched.
        """
        return {
            "ranges": [asdict(found) for found in ranges],
            "source": self.summary,
            "pool": self.winner.pool,
            "proposal": _to_json(self.winner),
            "confirmed": self._effect(),
        }

    def _effect(self) -> dict[str, Any] | None:
        if self.confirmed is None:
            return None
        values = asdict(self.confirmed).items()
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values}


def confirmed_effect(winner: Proposal, second: RankingRow) -> ConfirmationRow:
    """Set the second look beside the score that the best was chosen by, which has no interval."""
    return ConfirmationRow(
        pool=winner.pool,
        first=math.nan if winner.score is None else winner.score,
        first_low=math.nan,
        first_high=math.nan,
        shrunken=math.nan,
        confirmed=second.change,
        low=second.low,
        high=second.high,
        verdict=second.verdict,
        seeds=second.seeds,
    )


def _to_json(item: Proposal) -> dict[str, Any]:
    return {
        "number": item.number,
        "pool": item.pool,
        "state": str(item.state),
        "feasible": item.feasible,
        "rows": item.rows,
        "score": item.score,
        "windows": {name: asdict(window) for name, window in item.windows.items()},
        "ranges": [asdict(found) for found in item.ranges],
    }


def _row(item: Proposal) -> ProposalRow:
    windows = [
        f"{name} {window.low:g} to {window.high:g}"
        for name, window in item.windows.items()
        if (window.low, window.high) != (0.0, 1.0)
    ]
    return ProposalRow(
        number=item.number,
        pool=item.pool,
        state=item.state,
        rows=item.rows,
        score=math.nan if item.score is None else item.score,
        windows="; ".join(windows),
        ranges="; ".join(found.text for found in item.ranges),
    )
