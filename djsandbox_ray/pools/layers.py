"""Repetition against diversity: the same few best rows again, or new rows of the next layers.

A layer is made of the rows that are in equally many parts of a top pool: all of them, all but one,
and so on. Whoever needs more rows than the top pool has takes in one layer after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.pools.arms import Arm, arm_of
from djsandbox_ray.pools.combine import Membership
from djsandbox_ray.pools.order import hash_key, least
from djsandbox_ray.records import Pools


class Layers:
    """The rows of a study in the order in which a top pool takes them in.

    First those of the top pool itself; then the other rows that are in all of its parts, those in
    all but one, and so on to those in none. Among rows in equally many parts, those in the better
    parts come first; among those in the same parts, a seeded hash decides.

    Args:
        pools: a pyramid; see :func:`djsandbox_ray.pools.combine.pyramid`.
        top: id of a combination or single of it.
        row_ids: (n,), all different, in any order.
        codes: columns of the pyramid's assignments by name, each (n,).

    Raises:
        BadInput: no such pool, one that is no combination, one whose parts are not in the pyramid,
            or codes of other pools.
    """

    def __init__(
        self,
        pools: Pools,
        top: str,
        row_ids: NDArray[np.int64],
        codes: Mapping[str, NDArray[np.int8]],
    ) -> None:
        combinations = {pool.id: pool for pool in pools.pools if pool.parts}
        if top not in combinations:
            raise unknown("combination", top, combinations)
        self.top = combinations[top]
        singles = {pool.parts[0]: pool for pool in pools.pools if len(pool.parts) == 1}
        if missing := [part for part in self.top.parts if part not in singles]:
            raise BadInput(f"the part {missing[0]!r} of {top!r} is not among the pools itself")
        parts = [singles[part] for part in self.top.parts]
        self._membership = Membership.of(row_ids, codes, parts)
        self._top_codes = codes[self.top.column]
        self._seed = pools.seed
        self._places = self._ranked()
        self._rows_at = np.bincount(self._places)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows in all of the parts, in all but one, and so on to none; together all rows."""
        counts = self._membership.counts()
        return tuple(
            int(sum(rows for pattern, rows in enumerate(counts) if pattern.bit_count() == parts))
            for parts in range(len(self.top.parts), -1, -1)
        )

    def strategies(self, factor: int, unit: int) -> dict[str, Arm]:
        """Return three ways to a training of ``factor * unit`` samples.

        - ``repeat``: ``unit`` rows of the top pool, each ``factor`` times.
        - ``expand``: as many different rows, of the best.
        - ``random``: as many different rows, of all.

        Seeds draw all three alike. A draw of ``unit`` rows is a certain share of the top pool, and
        ``expand`` draws the same share of a pool of ``factor`` times as many rows: with factor 1
        that is the top pool, too. Where there are not so many rows, a pool holds what is there:
        its ``draw_size`` is the number of different rows that a trial sees.

        Args:
            factor: samples seen over ``unit``, 1 or more.
            unit: rows of a draw from the top pool, 1 to its size.

        Raises:
            BadInput: one of them out of bounds.
        """
        if factor < 1:
            raise BadInput(f"a factor of {factor}; 1 or more is needed")
        if not 1 <= unit <= self.top.size:
            raise BadInput(
                f"draws of {unit} rows of {self.top.id!r}: 1 to {self.top.size} are possible"
            )
        repeat = replace(self.top, id=f"repeat/x{factor}", draw_size=unit)
        rows, seen = factor * self.top.size, factor * unit
        return {
            "repeat": (repeat, self._top_codes),
            "expand": self.expanded(f"expand/x{factor}", rows, seen),
            "random": self.random(f"random/x{factor}", rows, seen),
        }

    def expanded(self, name: str, rows: int, draw_size: int | None = None) -> Arm:
        """Make a pool of the best ``rows`` rows, fewer if there are not so many.

        Args:
            name: its id and column.
            rows: how many rows it should have.
            draw_size: rows that one trial trains on, fewer if there are not so many; by default
                all.
        """
        return self._arm(name, self.best(rows), draw_size, self.top.parts)

    def random(self, name: str, rows: int, draw_size: int | None = None) -> Arm:
        """Make a pool of random rows of all, under a hash of its own; see :meth:`expanded`."""
        row_ids = self._membership.row_ids
        chosen = least(row_ids, rows, hash_key(self._seed, "random_rows", name))
        return self._arm(name, chosen, draw_size, ())

    def best(self, rows: int) -> NDArray[np.intp]:
        """Return which of the rows that may be in a pool are the best, in no particular order."""
        # Whole groups of equally good rows, and of the next one those of least hash.
        whole = int(np.searchsorted(np.cumsum(self._rows_at), rows, side="right"))
        taken = np.flatnonzero(self._places < whole)
        rest = np.flatnonzero(self._places == whole)
        key = hash_key(self._seed, "layers", self.top.id)
        chosen = least(self._membership.row_ids[rest], rows - len(taken), key)
        return np.concatenate([taken, rest[chosen]])

    def _ranked(self) -> NDArray[np.int16]:
        """Return the place of every row, shape (m,): 0 in the top pool, then by its parts."""
        patterns = range(1 << len(self.top.parts))
        ordered = sorted(patterns, key=lambda pattern: (-pattern.bit_count(), -pattern))
        place_of = np.empty(len(ordered), dtype=np.int16)
        place_of[ordered] = np.arange(1, len(ordered) + 1)
        places = place_of[self._membership.patterns]
        places[self._top_codes[self._membership.positions] == self.top.code] = 0
        return places

    def _arm(
        self, name: str, chosen: NDArray[np.intp], draw_size: int | None, parts: tuple[str, ...]
    ) -> Arm:
        size = len(chosen) if draw_size is None else min(draw_size, len(chosen))
        pool, codes = arm_of(name, self._membership.row_ids, chosen, parts=parts, draw_size=size)
        return pool, self._membership.column(codes)
