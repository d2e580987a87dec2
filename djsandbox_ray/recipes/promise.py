"""What a recipe promises to keep: the rows whose statistics lie within its thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.bounds import inside
from djsandbox_ray.recipes.ranges import UNBOUNDED, kept, thresholds
from djsandbox_ray.recipes.recipe_file import RecipeFile
from djsandbox_ray.records import Range
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.names import statistic_names
from djsandbox_ray.stats.operators import OperatorSpec


@dataclass(frozen=True)
class Promise:
    """Ranges, and the statistics that they are about."""

    ranges: tuple[Range, ...]
    columns: Mapping[str, NDArray[np.float64]]
    """By name, each (rows,); read when asked for."""

    def mask(self) -> NDArray[np.bool_]:
        """Return which rows are inside every range, shape (rows,)."""
        return kept(self.columns, self.ranges)

    def explain(self, rows: NDArray[np.int64]) -> list[list[dict[str, Any]]]:
        """Return, per row, what stands against it, or all that is known where nothing does.

        Returns:
            Per range ``statistic``, ``value`` (None for no value), ``low``, ``high``, ``inside``.
        """
        found: list[list[dict[str, Any]]] = [[] for _ in rows]
        for r in self.ranges:
            values = self.columns[r.statistic][rows]
            within = inside(values, r.low, r.high)
            for row, value, good in zip(found, values.tolist(), within.tolist(), strict=True):
                shown = value if math.isfinite(value) else None
                row.append({"statistic": r.statistic, "value": shown, "low": r.low, "high": r.high})
                row[-1]["inside"] = good
        return [[item for item in row if not item["inside"]] or row for row in found]


def promised_ranges(recipe: RecipeFile) -> tuple[Range, ...]:
    """Read the thresholds of a recipe back as ranges; those left out are Data-Juicer's defaults.

    Returns:
        One range per statistic of :attr:`~.recipe_file.RecipeFile.operators`, by its name there.

    Raises:
        BadInput: an operator keeps something else than one range of each of its statistics.
    """
    ranges = []
    for spec, names in zip(recipe.process, statistic_names(recipe.operators), strict=True):
        for key, name in zip(spec.keys, names, strict=True):
            try:
                low, high = _bounds(spec, key)
            except BadInput as error:
                raise BadInput(f"{recipe.path}: {error}") from error
            ranges.append(Range(name, low, high))
    return tuple(ranges)


def _bounds(spec: OperatorSpec, key: str) -> tuple[float | None, float | None]:
    names = thresholds(spec, key)
    low, high = _bound(spec, names.low), _bound(spec, names.high)
    low_counts = spec.params.get("min_closed_interval", True)
    high_counts = spec.params.get("max_closed_interval", True)
    if spec.params.get("reversed_range", False):
        # What lay within the bounds is dropped; a bound that was included is kept all the same.
        if names.low and names.high:
            raise BadInput(f"{spec.name} with reversed_range keeps two ranges of {key}, not one")
        low, high, low_counts, high_counts = high, low, high_counts, low_counts
    if low is not None and not low_counts:
        low = math.nextafter(low, math.inf)
    if high is not None and not high_counts:
        high = math.nextafter(high, -math.inf)
    return low, high


def _bound(spec: OperatorSpec, name: str | None) -> float | None:
    """Return the number that a parameter stands for; None where it keeps nothing out."""
    if name is None:
        return None
    value: Any = spec.params.get(name, inspection.parameters(spec.filter_class)[name].default)
    if isinstance(value, str):
        from data_juicer.utils.mm_utils import size_to_bytes

        value = size_to_bytes(value)
    return None if value is None or abs(value) >= UNBOUNDED else float(value)
