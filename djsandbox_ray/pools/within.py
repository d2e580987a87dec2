"""Pools made of only a part of the dataset: the rows whose statistics are in certain ranges.

A later round of a workflow probes in this way what the recipe of an earlier one leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Range


def outside(
    row_ids: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.float64]],
    ranges: Sequence[Range],
) -> NDArray[np.int64]:
    """Return the ids of the rows that are not in every range: to be kept out of every pool.

    Args:
        row_ids: (n,).
        columns: statistics by name, each (n,), NaN for no value; read one at a time.
        ranges: what is kept, bounds included; a row without a value is in no range.

    Returns:
        Row ids in the order of ``row_ids``; none without ranges.

    Raises:
        BadInput: an unknown statistic, or a column of another length.
    """
    if found := unknown(ranges, columns):
        raise BadInput("\n".join(found))
    kept = np.ones(len(row_ids), dtype=np.bool_)
    for item in ranges:
        values = columns[item.statistic]
        if values.shape != kept.shape:
            raise BadInput(
                f"statistic {item.statistic!r} has shape {values.shape}, but there are "
                f"{len(row_ids)} row ids"
            )
        kept &= _inside(values, item)
    return row_ids[~kept]


def unknown(ranges: Iterable[Range], statistics: Iterable[str]) -> list[str]:
    """Say of every range whose statistic is not known which are."""
    known = list(statistics)
    found = []
    for item in ranges:
        if item.statistic not in known:
            near = get_close_matches(item.statistic, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            found.append(
                f"pools.within: unknown statistic {item.statistic!r}{hint} "
                f"(known: {', '.join(known) or 'none'})"
            )
    return found


def _inside(values: NDArray[np.float64], item: Range) -> NDArray[np.bool_]:
    inside = ~np.isnan(values)
    if item.low is not None:
        inside &= values >= item.low
    if item.high is not None:
        inside &= values <= item.high
    return inside
