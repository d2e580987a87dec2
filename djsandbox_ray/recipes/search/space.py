"""What a threshold search chooses from: windows of quantiles, one per statistic. Pure numpy.

A *point*, two numbers per statistic, is what the searcher moves: the ends of a window. It stands
for *windows* of quantiles, these for *ranges* of values, and these for rows: those that are inside
every range, as Data-Juicer would keep them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.eligible import inside
from djsandbox_ray.recipes.bounds import finite, settle
from djsandbox_ray.records import Range

Floats = NDArray[np.float64]
Point = dict[str, float]
"""Per statistic i: ``low_i`` and ``high_i``, the ends of its window as shares of the values. Where
they come in the other order they are exchanged: most points then stand for a pool."""

EDGE = 0.05
"""A window that would cut off less than this share of the values at an end is open there: so few
rows are not what a trial can see, and a recipe needs no threshold for them."""


@dataclass(frozen=True)
class Window:
    """A part of the values of a statistic, by rank."""

    low: float = 0.0
    """Share of the values below it; 0: open."""
    high: float = 1.0
    """Share of the values up to its end; 1: open."""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise BadInput(
                f"a window of quantiles from {self.low:g} to {self.high:g}: 0 <= low <= high <= 1 "
                "is needed"
            )


class SearchSpace:
    """The windows of some statistics.

    Args:
        columns: statistics by name, each (n,), of the rows that pools are made of; NaN for no
            value. A row without a finite value is outside every range of that statistic.
        least: rows that a pool must have: the size of a draw.

    Raises:
        BadInput: no statistic; columns of different lengths; a statistic with fewer than ``least``
            values, or with one value only.
    """

    def __init__(self, columns: Mapping[str, Floats], least: int) -> None:
        if not columns:
            raise BadInput("a search for thresholds needs at least one statistic")
        self.names = tuple(columns)
        self.least = least
        self.size = len(columns[self.names[0]])
        """Rows that pools are made of."""
        self._columns = dict(columns)
        self._ordered = {name: self._order(name) for name in columns}

    def _order(self, name: str) -> Floats:
        values = self._columns[name]
        if values.shape != (self.size,):
            raise BadInput(
                f"statistic {name!r} has shape {values.shape}, but {self.names[0]!r} has "
                f"{self.size} rows"
            )
        ordered = np.sort(finite(values))
        if len(ordered) < max(self.least, 1):
            raise BadInput(
                f"statistic {name!r} has {len(ordered)} values: too few to search for thresholds "
                f"that keep {self.least} rows"
            )
        if ordered[0] == ordered[-1]:
            raise BadInput(f"statistic {name!r} has one value only: there is nothing to search for")
        return ordered

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Return the least and the greatest value of every coordinate of a point."""
        found = {}
        for index, name in enumerate(self.names):
            narrowest = self._narrowest(name)
            found[f"low_{index}"] = (0.0, 1.0 - narrowest)
            found[f"high_{index}"] = (narrowest, 1.0)
        return found

    def windows(self, point: Mapping[str, float]) -> dict[str, Window]:
        """Return the windows that a point stands for, by statistic."""
        found = {}
        for index, name in enumerate(self.names):
            low, high = sorted((point[f"low_{index}"], point[f"high_{index}"]))
            low, high = 0.0 if low < EDGE else low, 1.0 if high > 1 - EDGE else high
            found[name] = Window(low, high)
        return found

    def point(self, windows: Mapping[str, Window]) -> Point:
        """Return the point of windows, the nearest one where they are narrower than a draw is.

        A statistic without a window is open.

        Raises:
            BadInput: a window of a statistic that is not searched.
        """
        if unknown := windows.keys() - set(self.names):
            raise BadInput(f"no statistic {min(unknown)!r} is searched, but {list(self.names)}")
        found: Point = {}
        for index, name in enumerate(self.names):
            window, narrowest = windows.get(name, Window()), self._narrowest(name)
            found[f"low_{index}"] = min(window.low, 1.0 - narrowest)
            found[f"high_{index}"] = max(window.high, narrowest)
        return found

    def ranges(self, windows: Mapping[str, Window]) -> tuple[Range, ...]:
        """Return the ranges of windows, at least one value wide; an open window gives none.

        The values at the ends are inside, and all rows that equal them; bounds then move to where
        rounding errors cannot reach them, see :func:`djsandbox_ray.recipes.bounds.settle`.
        """
        found = []
        for name in self.names:
            window, ordered = windows.get(name, Window()), self._ordered[name]
            first = min(round(window.low * len(ordered)), len(ordered) - 1)
            last = max(round(window.high * len(ordered)) - 1, first)
            low = None if first == 0 else float(ordered[first])
            high = None if last == len(ordered) - 1 else float(ordered[last])
            low, high = settle(ordered, low, high)
            if low is not None or high is not None:
                found.append(Range(name, low, high))
        return tuple(found)

    def _narrowest(self, name: str) -> float:
        """Return the share of a statistic's values that a draw is."""
        return self.least / len(self._ordered[name])

    def inside(self, ranges: Sequence[Range]) -> NDArray[np.bool_]:
        """Say which rows are inside all ranges, bounds included; shape (n,)."""
        mask = np.ones(self.size, dtype=np.bool_)
        for item in ranges:
            values = self._columns[item.statistic]
            mask &= np.isfinite(values) & inside(values, item.low, item.high)
        return mask
