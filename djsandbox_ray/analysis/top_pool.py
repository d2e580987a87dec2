"""The pool that is scaled: one combination of a pyramid stands for all that was found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Pool, PoolKind, Pools, RankingRow


def top_pool(pools: Pools, ranking: Sequence[RankingRow] = ()) -> Pool:
    """Return the best combination by its ranking, or without one that of the most parts.

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
        return max(combined.values(), key=lambda pool: len(pool.parts))
    judged = [row for row in ranking if row.pool in combined and math.isfinite(row.change)]
    if not judged:
        raise BadInput(f"the ranking has a result for none of {', '.join(combined)}")
    return combined[max(judged, key=lambda row: row.change).pool]
