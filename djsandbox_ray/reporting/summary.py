"""What a run found, in one line: for a chat, a log, a commit message."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from djsandbox_ray.records import ConfirmationRow, Pool, PoolKind, Range, RankingRow
from djsandbox_ray.reporting.ranking import Unit, notes, tally


def summary_line(
    name: str,
    rows: Sequence[RankingRow],
    confirmed: Sequence[ConfirmationRow],
    pools: Mapping[str, Pool],
    unit: Unit,
) -> str:
    """Say what to keep, what that is worth, how sure it is, and how the others did.

    Args:
        name: of the run.
        rows: the ranking of single operators.
        confirmed: the second look at the best; empty where there was none.
        pools: by id, for what the best one keeps.
        unit: what changes are measured in.
    """
    if any(row.self_test_failed for row in rows):  # then nothing is promised
        return f"{name}: {notes(rows)[0]}"
    return f"{name}: {_best(rows, confirmed, pools, unit)}. {tally(rows)}"


def _best(
    rows: Sequence[RankingRow],
    confirmed: Sequence[ConfirmationRow],
    pools: Mapping[str, Pool],
    unit: Unit,
) -> str:
    better = [
        row
        for row in sorted(rows, key=lambda row: row.rank)
        if row.kind is PoolKind.BUCKET and row.verdict == "better"
    ]
    again = sorted(
        (row for row in confirmed if row.verdict == "better"),
        key=lambda row: row.confirmed,
        reverse=True,
    )
    if again:
        row = again[0]
        worth = _worth(row.confirmed, row.low, row.high, unit)
        return f"keep {_kept(row.pool, pools)}: {worth}, confirmed with fresh seeds"
    if not better:
        return "no pool is better than random data of the same size"
    first = better[0]
    looked = {row.pool for row in confirmed}
    sure = "not confirmed by the second look" if first.pool in looked else "seen once"
    worth = _worth(first.change, first.low, first.high, unit)
    return f"perhaps keep {_kept(first.pool, pools)}: {worth}, {sure}"


def _worth(change: float, low: float, high: float, unit: Unit) -> str:
    between = f" [{unit.text(low)}, {unit.text(high)}]" if math.isfinite(low + high) else ""
    return f"{unit.text(change)} {unit}{between}"


def _kept(name: str, pools: Mapping[str, Pool]) -> str:
    """Return a pool with the values that it holds, where it is cut from one statistic."""
    pool = pools.get(name)
    if pool is None or pool.statistic is None or (pool.low is None and pool.high is None):
        return name
    return f"{name} ({Range(pool.statistic, pool.low, pool.high).text})"
