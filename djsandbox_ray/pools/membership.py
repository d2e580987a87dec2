"""Which of some chosen pools hold a row: one number per row, whatever the number of pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT
from djsandbox_ray.pools.draws import members
from djsandbox_ray.records import Pool

MOST_PARTS = 8
"""A pattern is a byte; nobody trains the 255 combinations of eight pools anyway."""


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
