"""The second look: pools that were called better, trained again with fresh seeds and controls.

The best of many measured effects is too good on average: it was chosen also for its luck (the
winner's curse). The second study had no part in the choice, so its effects have no such bias.
"""

from __future__ import annotations

from collections.abc import Sequence

from djsandbox_ray.analysis.rows_csv import read_rows, write_rows
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import ConfirmationRow, PoolKind, RankingRow


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
    :func:`djsandbox_ray.analysis.ranking.rank`.

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


def write_confirmation(rows: Sequence[ConfirmationRow]) -> str:
    """Return ``confirmation.csv``: one line per pool."""
    return write_rows(ConfirmationRow, rows)


def read_confirmation(text: str) -> list[ConfirmationRow]:
    """Read what :func:`write_confirmation` wrote.

    Raises:
        BadInput: other columns, or a cell that cannot be read; says which.
    """
    return read_rows(ConfirmationRow, text, "confirmation")
