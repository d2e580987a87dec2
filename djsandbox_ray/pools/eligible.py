"""The rows that may enter a pool and their statistics, checked.

Pools made of only a part of the dataset: the rows whose statistics are in certain ranges.

A later round of a workflow probes in this way what the recipe of an earlier one leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.pools.order import slices
from djsandbox_ray.records import Range

_RESERVED = ("control/", "self_test/")


class EligibleRows:
    """The rows of a dataset without the excluded ones.

    Args:
        row_ids: (n,), all different.
        columns: statistics by name, each (n,), NaN where a row has no value.
        excluded: row ids that are kept out of every pool.

    Raises:
        BadInput: duplicate row ids, excluded ids that are not among them, a reserved name.
    """

    def __init__(
        self,
        row_ids: NDArray[np.int64],
        columns: Mapping[str, NDArray[np.float64]],
        excluded: NDArray[np.int64],
    ) -> None:
        _check_row_ids(row_ids)
        _check_names(columns)
        self._columns = columns
        self._all = len(row_ids)
        self._kept = _kept(row_ids, excluded)
        self.row_ids = row_ids if self._kept is None else row_ids[self._kept]

    def __len__(self) -> int:
        return len(self.row_ids)

    def column(self, name: str) -> NDArray[np.float64]:
        """Read one statistic of the eligible rows, shape (len(self),).

        Raises:
            BadInput: its length is not that of the row ids, or it does not hold numbers.
        """
        try:
            values = np.asarray(self._columns[name], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise BadInput(f"statistic {name!r} does not hold numbers: {error}") from error
        if values.shape != (self._all,):
            raise BadInput(
                f"statistic {name!r} has shape {values.shape}, but there are {self._all} row ids"
            )
        return values if self._kept is None else values[self._kept]

    def expand(self, codes: NDArray[np.int8]) -> NDArray[np.int8]:
        """Give codes of the eligible rows back as codes of all rows, shape (n,)."""
        if self._kept is None:
            return codes
        expanded = np.full(self._all, EXCLUDED, dtype=np.int8)
        expanded[self._kept] = codes
        return expanded


def _check_row_ids(row_ids: NDArray[np.int64]) -> None:
    if row_ids.ndim != 1 or row_ids.dtype != np.int64:
        raise BadInput(
            f"row ids must be int64 of shape (n,), not {row_ids.dtype} of shape {row_ids.shape}"
        )
    if np.all(row_ids[1:] > row_ids[:-1]):
        return  # the usual case, without a sort
    different, counts = np.unique(row_ids, return_counts=True)
    if len(different) < len(row_ids):
        twice = different[counts > 1]
        raise BadInput(f"{len(twice)} row ids occur more than once, such as {twice[0]}")


def _check_names(columns: Mapping[str, NDArray[np.float64]]) -> None:
    for name in columns:
        if not name or name == "row_id" or name.startswith(_RESERVED):
            raise BadInput(
                f"a statistic cannot be named {name!r}: row_id and names that begin with "
                f"{' or '.join(_RESERVED)} stand for other columns of the assignments"
            )


def _kept(row_ids: NDArray[np.int64], excluded: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Return the mask of the eligible rows, shape (n,), or None where all rows are."""
    if len(excluded) == 0:
        return None
    wanted = np.unique(excluded)
    kept = np.ones(len(row_ids), dtype=np.bool_)
    for part in slices(len(row_ids)):
        nearest = np.minimum(np.searchsorted(wanted, row_ids[part]), len(wanted) - 1)
        kept[part] = wanted[nearest] != row_ids[part]
    if np.count_nonzero(~kept) < len(wanted):
        unknown = np.setdiff1d(wanted, row_ids)
        raise BadInput(f"{len(unknown)} excluded rows are not in the dataset, such as {unknown[0]}")
    return kept


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
