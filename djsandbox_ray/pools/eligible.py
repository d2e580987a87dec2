"""Which rows may be in a pool: those in given ranges of the statistics, without the excluded ones.

A later round of a workflow probes in this way what the recipe of an earlier one leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.pools.cuts import EXCLUDED, Read
from djsandbox_ray.pools.order import slices
from djsandbox_ray.records import Range

RESERVED = ("control", "self_test")
"""Begin the ids of pools that stand for no statistic and no builder."""
Columns = Mapping[str, NDArray[np.float64]]
"""Statistics by name, each (n,), NaN for no value; a column may be read when it is asked for."""


class UnknownStatistic(BadInput, KeyError):
    """There is no statistic of this name: a bad input, and what a mapping raises."""

    __str__ = BadInput.__str__  # that of a KeyError quotes the message


def check_statistics(names: Iterable[str], known: Iterable[str]) -> None:
    """Check names of statistics.

    Raises:
        UnknownStatistic: there is none of a name; says the nearest and lists all.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise UnknownStatistic(str(unknown("statistic", name, known)))


def inside(values: NDArray[np.float64], low: float | None, high: float | None) -> NDArray[np.bool_]:
    """Return which values lie within bounds, bounds included, shape (n,); NaN never does."""
    found = ~np.isnan(values)
    if low is not None:
        found &= values >= low
    if high is not None:
        found &= values <= high
    return found


def outside(
    row_ids: NDArray[np.int64], columns: Columns, ranges: Sequence[Range]
) -> NDArray[np.int64]:
    """Return the ids of the rows that are not in every range: to be kept out of every pool.

    Args:
        row_ids: (n,).
        columns: statistics by name; read one at a time.
        ranges: what is kept, bounds included; a row without a value is in no range.

    Returns:
        Row ids in the order of ``row_ids``; none without ranges.

    Raises:
        BadInput: an unknown statistic, or a column of another length.
    """
    names = [item.statistic for item in ranges if item.statistic not in columns]
    if lines := [f"pools.within: {unknown('statistic', name, columns)}" for name in names]:
        raise BadInput("\n".join(lines))
    kept = np.ones(len(row_ids), dtype=np.bool_)
    for item in ranges:
        kept &= inside(_column(columns, item.statistic, len(row_ids)), item.low, item.high)
    return row_ids[~kept]


def _column(columns: Columns, name: str, rows: int) -> NDArray[np.float64]:
    """Read one statistic of all rows.

    Raises:
        BadInput: its length is not that of the row ids, or it does not hold numbers.
    """
    try:
        values = np.asarray(columns[name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"statistic {name!r} does not hold numbers: {error}") from error
    if values.shape != (rows,):
        raise BadInput(f"statistic {name!r} has shape {values.shape}, but there are {rows} row ids")
    return values


class EligibleRows:
    """The rows of a dataset without the excluded ones, by ascending row id.

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
        columns: Columns,
        excluded: NDArray[np.int64],
    ) -> None:
        _check_row_ids(row_ids)
        check_names(columns)
        self._columns = columns
        self._all = len(row_ids)
        self._kept: NDArray[np.bool_] | NDArray[np.intp] | None = _kept(row_ids, excluded)
        if not np.all(row_ids[1:] > row_ids[:-1]):
            order = np.argsort(row_ids)
            self._kept = order if self._kept is None else order[self._kept[order]]
        self.row_ids = row_ids if self._kept is None else row_ids[self._kept]
        """(len(self),), ascending."""

    def __len__(self) -> int:
        return len(self.row_ids)

    def column(self, name: str) -> NDArray[np.float64]:
        """Read one statistic of the eligible rows, shape (len(self),).

        Raises:
            BadInput: its length is not that of the row ids, or it does not hold numbers.
        """
        values = _column(self._columns, name, self._all)
        return values if self._kept is None else values[self._kept]

    def reader(self, name: str) -> Read:
        """Read one statistic of the eligible rows once; what it returns gives it in parts.

        Raises:
            BadInput: as :meth:`column` does.
        """
        values = self.column(name)
        return lambda: ((self.row_ids[part], values[part]) for part in slices(len(values)))

    def ids(self) -> Iterator[NDArray[np.int64]]:
        """Yield the row ids, a part at a time."""
        return (self.row_ids[part] for part in slices(len(self)))

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


def check_names(columns: Iterable[str]) -> None:
    """Check that names of statistics are free.

    Raises:
        BadInput: other columns of the assignments have such a name.
    """
    for name in columns:
        first, slash, _ = name.partition("/")
        if not name or name == "row_id" or (slash and first in RESERVED):
            raise BadInput(
                f"a statistic cannot be named {name!r}: row_id and names that begin with "
                f"{'/ or '.join(RESERVED)}/ stand for other columns of the assignments"
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
