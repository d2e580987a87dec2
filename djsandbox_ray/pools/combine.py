"""The pyramid: every intersection of some chosen pools, cut to one size, beside fresh controls.

Singles are part of it, cut to the same size: what a combination adds to its parts can only be told
from arms that differ in nothing else. Which of the chosen pools hold a row is one number per row,
its membership, whatever the number of pools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import Arm, arm_of, control_arms, named_pools
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT, NO_VALUE
from djsandbox_ray.pools.draws import members
from djsandbox_ray.pools.order import hash_key, least
from djsandbox_ray.records import NotTestable, Pool, PoolKind, Pools

MOST_PARTS = 8
"""A pattern is a byte; nobody trains the 255 combinations of eight pools anyway."""

JOINT = "&"
"""Between the ids of the parts in the id of a combination."""


@dataclass(frozen=True, eq=False)
class Pyramid:
    """Combinations and controls of one size, and the codes that say which rows they hold."""

    assignments: dict[str, NDArray[np.int8]]
    """Per pool, a column (n,) named by its id: 0 for its rows, ``EXCLUDED`` as in the first study.
    Of a combination, ``LEFT_OUT`` for the rows of the intersection that are beyond its size and
    ``NO_VALUE`` for those outside; of a control, ``LEFT_OUT`` for all others."""
    pools: tuple[Pool, ...]
    """Singles, pairs, triples and so on, each in the order of the choice; then controls."""
    size: int
    """Rows of every pool."""
    draw_size: int
    """Rows that one trial trains on."""
    dropped: tuple[NotTestable, ...]
    """Combinations with too few rows."""


def pyramid(
    pools: Pools,
    chosen: Sequence[str],
    row_ids: NDArray[np.int64],
    codes: Mapping[str, NDArray[np.int8]],
    *,
    minimum: int,
    controls: Callable[[int], int],
    first: int,
    draw_share: float,
) -> Pyramid:
    """Combine chosen pools in all 2^k - 1 ways.

    The common size is that of the smallest intersection with at least ``minimum`` rows; smaller
    ones are dropped. Which rows a combination keeps depends on its parts, the size and the seed,
    by a hash of its own: arms are cut independently of each other.

    Args:
        pools: of the first study.
        chosen: ids of bucket pools of it, of different statistics, best first; 1 to 8.
        row_ids: (n,), all different, in any order.
        codes: columns of the first study's assignments by name, each (n,); those of the chosen
            pools are read, one at a time.
        minimum: least number of rows, 1 to ``pools.size``.
        controls: how many control arms to make beside so many combinations.
        first: number of the first control: those of lower numbers are used by other studies.
        draw_share: share of a pool that one seed trains on, above 0, at most 1.

    Raises:
        BadInput: a pool that is not there, chosen twice, no bucket, or of a statistic that is
            there already; a ``minimum`` out of bounds; draws that would be empty.
    """
    parts = _parts(pools, chosen)
    if not 1 <= minimum <= pools.size:
        raise BadInput(
            f"minimum is {minimum} rows per combination; 1 to {pools.size} are possible, since "
            f"every single pool has {pools.size}"
        )
    membership = Membership.of(row_ids, codes, parts)
    sizes = _sizes(membership)
    kept = {names: rows for names, rows in sizes.items() if rows >= minimum}
    size = min(kept.values())
    draw_size = round(size * draw_share)
    if draw_size < 1:
        raise BadInput(f"draws would have no row ({size} rows per pool x draw_share {draw_share})")
    by_id = {pool.id: pool for pool in parts}
    arms = [_combination(membership, names, by_id, size, pools.seed) for names in kept]
    arms += control_arms(membership.row_ids, size, controls(len(kept)), pools.seed, first)
    return Pyramid(
        assignments={pool.column: membership.column(own) for pool, own in arms},
        pools=tuple(pool for pool, _ in arms),
        size=size,
        draw_size=draw_size,
        dropped=tuple(
            NotTestable(JOINT.join(names), f"{rows} rows; at least {minimum} are needed")
            for names, rows in sizes.items()
            if names not in kept
        ),
    )


def _parts(pools: Pools, chosen: Sequence[str]) -> list[Pool]:
    seen: dict[str, str] = {}
    parts = named_pools(pools, chosen)
    for pool in parts:
        if pool.kind is not PoolKind.BUCKET or pool.statistic is None:
            raise BadInput(f"pool {pool.id!r} is no bucket of a statistic: it cannot be combined")
        if pool.statistic in seen:
            raise BadInput(
                f"pools {seen[pool.statistic]!r} and {pool.id!r} cannot be combined: buckets of "
                "one statistic have no row in common"
            )
        seen[pool.statistic] = pool.id
    return parts


def _sizes(membership: Membership) -> dict[tuple[str, ...], int]:
    """Return the rows of every intersection, level by level."""
    counts = membership.counts()
    patterns = np.arange(len(counts))
    sizes = {}
    for level in range(1, len(membership.parts) + 1):
        for names in combinations(membership.parts, level):
            wanted = membership.pattern(names)
            sizes[names] = int(counts[patterns & wanted == wanted].sum())
    return sizes


def _combination(
    membership: Membership,
    names: tuple[str, ...],
    parts: Mapping[str, Pool],
    size: int,
    seed: int,
) -> Arm:
    name = JOINT.join(names)
    common = membership.common(names)
    row_ids = membership.row_ids[common]
    chosen = least(row_ids, size, hash_key(seed, "combination", name))
    codes = np.full(len(membership.row_ids), NO_VALUE, dtype=np.int8)
    codes[common] = LEFT_OUT
    more: dict[str, Any] = {}
    if len(names) == 1:
        part = parts[name]
        more = {"statistic": part.statistic, "bucket": part.bucket}
        more |= {"operator": part.operator, "ties": part.ties}
    return arm_of(name, membership.row_ids, common[chosen], others=codes, parts=names, **more)


@dataclass(frozen=True, eq=False)
class Membership:
    """Which of ``parts`` hold each of the m rows that may be in a pool."""

    parts: tuple[str, ...]
    """Ids of the chosen pools, best first."""
    rows: int
    """n: all rows, the excluded ones too."""
    positions: NDArray[np.intp]
    """(m,): where the rows stand among all."""
    row_ids: NDArray[np.int64]
    """(m,)."""
    patterns: NDArray[np.uint8]
    """(m,): one bit per part. That of the best is the highest, so that of two patterns with
    equally many parts the greater one has the better parts."""

    @classmethod
    def of(
        cls,
        row_ids: NDArray[np.int64],
        codes: Mapping[str, NDArray[np.int8]],
        parts: Sequence[Pool],
    ) -> Membership:
        """Read one column of codes per part, one at a time.

        Args:
            row_ids: (n,), all different, in any order.
            codes: columns of assignments by name, each (n,).
            parts: the chosen pools, best first.

        Raises:
            BadInput: no part, more than ``MOST_PARTS``, or codes of other pools.
        """
        if not 1 <= len(parts) <= MOST_PARTS:
            raise BadInput(f"{len(parts)} pools to combine; 1 to {MOST_PARTS} are possible")
        kept = np.flatnonzero(codes[parts[0].column] != EXCLUDED)
        patterns = np.zeros(len(kept), dtype=np.uint8)
        for pool in parts:
            column = codes[pool.column]
            members(row_ids, column, pool)  # raises where the codes are not those of the pool
            patterns <<= 1
            patterns |= _held(column, pool)[kept]
        return cls(tuple(pool.id for pool in parts), len(row_ids), kept, row_ids[kept], patterns)

    def pattern(self, parts: Iterable[str]) -> int:
        """Return the pattern of the rows that just these parts hold."""
        last = len(self.parts) - 1
        return sum(1 << (last - self.parts.index(part)) for part in parts)

    def counts(self) -> NDArray[np.int64]:
        """Return the number of rows of every pattern, shape (2 ** parts,)."""
        return np.bincount(self.patterns, minlength=1 << len(self.parts)).astype(np.int64)

    def common(self, parts: Iterable[str]) -> NDArray[np.intp]:
        """Return which of the m rows all of these parts hold, others maybe too; ascending."""
        wanted = np.uint8(self.pattern(parts))
        return np.flatnonzero(self.patterns & wanted == wanted)

    def column(self, codes: NDArray[np.int8]) -> NDArray[np.int8]:
        """Give codes of the m rows back as codes of all rows, shape (n,)."""
        expanded = np.full(self.rows, EXCLUDED, dtype=np.int8)
        expanded[self.positions] = codes
        return expanded


def _held(codes: NDArray[np.int8], pool: Pool) -> NDArray[np.bool_]:
    held: NDArray[np.bool_] = codes == pool.code
    if pool.parts:  # of a combination's own column, what was left out for its size belongs to it
        held |= codes == LEFT_OUT
    return held
