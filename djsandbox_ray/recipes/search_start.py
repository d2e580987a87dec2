"""Where a threshold search starts: what the single-operator stage says of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from djsandbox_ray.analysis.confirmation import selected
from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.search import Windows
from djsandbox_ray.recipes.search_space import Window
from djsandbox_ray.records import Choice, PoolKind, Pools, RankingRow


@dataclass(frozen=True)
class Start:
    """The searched statistics, and what is known of them before anything is trained."""

    names: tuple[str, ...]
    known: tuple[tuple[Windows, float], ...]
    """Every bucket that was judged, as a window, with its change; best first."""
    first: tuple[Windows, ...]
    """To be tried first: the best buckets of all statistics together, then the best of all."""


def start(choice: Choice | None, rows: Sequence[RankingRow], pools: Pools) -> Start | None:
    """Return where to start.

    Args:
        choice: pools whose statistics are searched; without one, those that were called better.
        rows: the ranking of the single-operator stage.
        pools: of the single-operator stage.

    Returns:
        None where no pool was chosen or called better.

    Raises:
        BadInput: a chosen pool that is no bucket of a statistic.
    """
    buckets = {pool.id: pool for pool in pools.pools if pool.kind is PoolKind.BUCKET}
    # Pools of builders have no statistic, hence no window to search.
    rows = [row for row in rows if row.statistic is not None or row.pool not in buckets]
    chosen = choice.pools if choice else selected(rows, len(rows))
    if unknown := [name for name in chosen if name not in buckets]:
        raise BadInput(f"search: no pool {unknown[0]!r} among {', '.join(buckets)}")
    names = tuple(dict.fromkeys(str(buckets[name].statistic) for name in chosen))
    if not names:
        return None
    counts: dict[str, int] = {}
    for pool in buckets.values():
        if pool.statistic in names:
            counts[pool.statistic] = max(counts.get(pool.statistic, 0), pool.code + 1)
    known: list[tuple[Windows, float]] = []
    together: dict[str, Window] = {}
    for row in sorted(rows, key=lambda row: -row.change if math.isfinite(row.change) else math.inf):
        if row.statistic in counts and row.pool in buckets and math.isfinite(row.change):
            code, count = buckets[row.pool].code, counts[row.statistic]
            window = Window(code / count, (code + 1) / count)
            known.append(({row.statistic: window}, row.change))
            together.setdefault(row.statistic, window)
    alone = [windows for windows, _ in known[:1]]
    return Start(names, tuple(known), tuple([together, *alone] if len(together) > 1 else alone))
