"""Which pool a recipe stands on: the simplest of those that did best."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from djsandbox_ray.analysis.top_pool import simplest_of_best
from djsandbox_ray.records import ConfirmationRow, Pool, PoolKind, RankingRow


@dataclass(frozen=True)
class Winner:
    """The pool whose effect stands behind a recipe."""

    pool: str
    parts: tuple[str, ...]
    """The pools of the single-operator stage that it is made of: itself, for one of these."""
    why: str
    """In one line."""


def winner(
    ranking: Sequence[RankingRow],
    confirmation: Sequence[ConfirmationRow] | None,
    combination_ranking: Sequence[RankingRow] = (),
    combinations: Collection[Pool] = (),
    refused: Collection[str] = (),
) -> Winner | None:
    """Return the pool to stand behind, or None where nothing is better than the controls.

    Among the combinations that were called better, and the single pools that were trained at their
    size, it is the simplest of the best; see
    :func:`djsandbox_ray.analysis.top_pool.simplest_of_best`.
    If none was called better, it is the single pool with the greatest confirmed change among those
    confirmed to be better; without a confirmation, the best of those called better.

    Args:
        ranking: of the single-operator stage.
        confirmation: None where there was none.
        combination_ranking: of the combinations.
        combinations: their pools, which say of what parts they are.
        refused: pools that must not be chosen.
    """
    found = _combined(combination_ranking, combinations, refused)
    if found is not None:
        return found
    if confirmation is not None:
        confirmed = [r for r in confirmation if r.verdict == "better" and r.pool not in refused]
        if not confirmed:
            return None
        best = max(confirmed, key=lambda row: row.confirmed)
        why = f"greatest confirmed change of {len(confirmed)} confirmed pools"
        return Winner(best.pool, (best.pool,), why)
    better = _better(ranking, refused)
    if not better:
        return None
    first = max(better, key=lambda row: row.change)
    why = f"greatest change of {len(better)} pools called better; nothing was confirmed"
    return Winner(first.pool, (first.pool,), why)


def _better(rows: Sequence[RankingRow], refused: Collection[str]) -> list[RankingRow]:
    return [
        row
        for row in rows
        if row.kind is PoolKind.BUCKET and row.verdict == "better" and row.pool not in refused
    ]


def _combined(
    rows: Sequence[RankingRow], pools: Collection[Pool], refused: Collection[str]
) -> Winner | None:
    parts = {pool.id: pool.parts or (pool.id,) for pool in pools if pool.id not in refused}
    found = simplest_of_best(rows, parts)
    if found is None:
        return None
    row, why = found
    return Winner(row.pool, parts[row.pool], why)
