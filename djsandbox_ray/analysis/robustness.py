"""Does a verdict stand when a metric, or the learning rate, is not what it was?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from djsandbox_ray.analysis.rows_csv import read_rows, write_rows
from djsandbox_ray.analysis.verdicts import Verdict
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import FlipRow, PoolKind, RankingRow

DECIDED = ("better", "worse")


def carried_by(verdict: Verdict, without: Mapping[str, Verdict | None]) -> str | None:
    """Return the metric that carries a verdict: without it, the verdict would not be the same.

    Args:
        verdict: on one pool, with all metrics.
        without: by metric, the verdict on the same pool without that metric; None where no score
            can be formed without it.

    Returns:
        If there are several such metrics, the one whose absence changes the effect most (None in
        place of a verdict counts as the greatest change). None if there is none, or the pool is
        undecided.
    """
    if verdict.verdict not in DECIDED:
        return None
    shifts = {
        metric: math.inf if other is None else abs(other.effect - verdict.effect)
        for metric, other in without.items()
        if other is None or other.verdict != verdict.verdict
    }
    return max(shifts, key=lambda metric: shifts[metric], default=None)


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


def write_flips(rows: Sequence[FlipRow]) -> str:
    """Return ``learning_rate.csv``: one line per pool."""
    return write_rows(FlipRow, rows)


def read_flips(text: str) -> list[FlipRow]:
    """Read what :func:`write_flips` wrote.

    Raises:
        BadInput: other columns, or a cell that cannot be read; says which.
    """
    return read_rows(FlipRow, text, "learning rate check")
