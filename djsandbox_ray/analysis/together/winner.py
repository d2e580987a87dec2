"""Which pool stands for all that was found: the simplest of the combinations that did best.

A recipe stands on the :func:`winner` of a whole run, scaling on the :func:`top_pool` of a pyramid.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import ConfirmationRow, Pool, PoolKind, Pools, RankingRow


@dataclass(frozen=True)
class TopPool:
    """The combination that is scaled."""

    pool: Pool
    why: str
    """In one line, as :attr:`sentence` says it."""

    @property
    def sentence(self) -> str:
        """Which pool it is, and why."""
        return f"the pool studied is {self.pool.id}: {self.why}"


def simplest_of_best(
    rows: Sequence[RankingRow], parts: Mapping[str, Sequence[str]]
) -> tuple[RankingRow, str] | None:
    """Return the simplest of the pools that did best, and why; None where none was better.

    Among those that were called better, it is the one with the fewest parts whose change is within
    one standard error of the greatest: the one-standard-error rule (Breiman et al. 1984; Hastie,
    Tibshirani & Friedman, The Elements of Statistical Learning, section 7.10). More operators must
    pay for themselves. The error is that of the greatest change, which rows are in its bucket
    included; seeds alone would leave the rule next to nothing to forgive.

    Args:
        rows: a ranking; rows of pools that ``parts`` lacks are passed over.
        parts: of every pool that may be chosen, the pools that it is made of.
    """
    better = [
        row
        for row in rows
        if row.kind is PoolKind.BUCKET and row.verdict == "better" and row.pool in parts
    ]
    if not better:
        return None
    best = max(better, key=lambda row: row.change)
    # Where nothing is known of the noise, the greatest change decides.
    error = best.error if math.isfinite(best.error) else 0.0
    near = [row for row in better if row.change >= best.change - error]
    chosen = min(near, key=lambda row: (len(parts[row.pool]), -row.change))
    if chosen is not best:
        return chosen, f"simplest within one standard error ({error:.3g}) of {best.pool}"
    return best, f"greatest change of {len(better)} combinations called better"


def top_pool(pools: Pools, ranking: Sequence[RankingRow] = ()) -> TopPool:
    """Return the combination that a recipe would stand on, or the next best thing.

    It is chosen as :func:`.winner.winner` does among combinations: by
    :func:`simplest_of_best`, without those that break a policy. Where that leaves none, it is the
    one with the greatest change, whatever its verdict, and ``why`` says so; without a ranking, the
    one of the most parts.

    Args:
        pools: a pyramid: pools with ``parts``, single ones included.
        ranking: of these pools; one that was measured (its change is finite) is needed.

    Raises:
        BadInput: no pool has parts, or the ranking has none of them.
    """
    combined = {
        pool.id: pool for pool in pools.pools if pool.kind is PoolKind.BUCKET and pool.parts
    }
    if not combined:
        raise BadInput(f"no pool of {pools.id!r} has parts: a pyramid of combinations is needed")
    if not ranking:
        most = max(combined.values(), key=lambda pool: len(pool.parts))
        return TopPool(most, "without a ranking, the one of the most parts")
    judged = [row for row in ranking if row.pool in combined and math.isfinite(row.change)]
    if not judged:
        raise BadInput(f"the ranking has a result for none of {', '.join(combined)}")
    allowed = {name: pool.parts for name, pool in combined.items() if not pool.breaks}
    found = simplest_of_best(judged, allowed)
    if found is not None:
        return TopPool(combined[found[0].pool], found[1])
    best = max(judged, key=lambda row: row.change)
    kept = " that keeps to the policies" if len(allowed) < len(combined) else ""
    return TopPool(
        combined[best.pool],
        f"no combination{kept} was called better; the greatest change ({best.verdict}) is studied",
    )


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
    :func:`.winner.simplest_of_best`.
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
