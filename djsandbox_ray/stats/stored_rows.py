"""The rows of a dataset that has too many to be held: statistics are walked, a part at a time.

A statistic lies in many files, and is walked several times until its buckets are known. So
it is brought once into a plain file in the temporary folder, 8 bytes per row, and walked there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.cuts import EXCLUDED, Part, Read
from djsandbox_ray.pools.eligible import check_names
from djsandbox_ray.records import Statistic
from djsandbox_ray.stats.parts import spread_column
from djsandbox_ray.storage.store import Storage

PART_ROWS = 1 << 20
"""Rows that are handed on at a time."""
_SLICE_ROWS = 1 << 17
"""Rows that are walked at a time: so many numbers stay in a core's own cache."""


class StoredRows:
    """The rows of a dataset without the excluded ones: a :class:`djsandbox_ray.pools.filling.Rows`.

    Args:
        storage: where the statistics lie.
        statistics: of the dataset.
        rows: of the dataset; their ids are 0 to ``rows`` - 1.
        excluded: row ids that are kept out of every pool.

    Raises:
        BadInput: excluded ids that are not among the rows, a reserved name.
    """

    def __init__(
        self,
        storage: Storage,
        statistics: Sequence[Statistic],
        rows: int,
        excluded: NDArray[np.int64],
    ) -> None:
        self._storage = storage
        self._statistics = {statistic.name: statistic for statistic in statistics}
        self._rows = rows
        self._part_rows, self._slice_rows = PART_ROWS, _SLICE_ROWS
        self._excluded = np.unique(excluded)
        check_names(self._statistics)
        beyond = self._excluded[(self._excluded < 0) | (self._excluded >= rows)]
        if len(beyond):
            raise BadInput(
                f"{len(beyond)} excluded rows are not in the dataset, such as {beyond[0]}"
            )

    def __len__(self) -> int:
        return self._rows - len(self._excluded)

    def every_id(self) -> Iterator[NDArray[np.int64]]:
        """Yield the ids of all rows, excluded ones too, a part at a time."""
        for start, stop in self._spans(0, self._rows, self._part_rows):
            yield np.arange(start, stop, dtype=np.int64)

    def ids(self) -> Iterator[NDArray[np.int64]]:
        """Yield the ids of the rows, ascending, a slice at a time."""
        for start, stop in self._slices():
            row_ids = np.arange(start, stop, dtype=np.int64)
            kept = self._kept(start, stop)
            yield row_ids if kept is None else np.compress(kept, row_ids)

    def reader(self, name: str) -> Read:
        """Bring a statistic here; what it returns gives it in the slices of :meth:`ids`.

        Raises:
            Damaged: see :func:`~djsandbox_ray.stats.parts.spread_column`.
        """
        file = TemporaryFile(buffering=0)  # noqa: SIM115 - it is there as long as somebody may walk it

        def put(start: int, values: NDArray[np.float64]) -> None:
            content = np.ascontiguousarray(values, dtype=np.float64)
            left, at = content.data.cast("B"), start * content.itemsize
            while left:  # at its own place: threads share the file
                written = os.pwrite(file.fileno(), left, at)
                left, at = left[written:], at + written

        spread_column(self._storage, self._statistics[name], self._rows, put)
        return partial(self._walk, file)

    def expand(self, codes: Iterator[NDArray[np.int8]]) -> Iterator[NDArray[np.int8]]:
        """Give codes of the slices of :meth:`ids` back as codes of the parts of all rows."""
        for part in self._spans(0, self._rows, self._part_rows):
            expanded = np.full(part[1] - part[0], EXCLUDED, dtype=np.int8)
            for start, stop in self._spans(*part, self._slice_rows):
                kept, here = self._kept(start, stop), expanded[start - part[0] : stop - part[0]]
                here[slice(None) if kept is None else kept] = next(codes)
            yield expanded
        if next(codes, None) is not None:
            raise ValueError("codes of more rows than there are")

    def _slices(self) -> Iterator[tuple[int, int]]:
        """Yield first and last row + 1 of every slice; none reaches from one part into another."""
        for part in self._spans(0, self._rows, self._part_rows):
            yield from self._spans(*part, self._slice_rows)

    @staticmethod
    def _spans(start: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
        for first in range(start, stop, rows):
            yield first, min(first + rows, stop)

    def _kept(self, start: int, stop: int) -> NDArray[np.bool_] | None:
        """Return which rows from ``start`` on are not excluded; None where all are kept."""
        first, last = np.searchsorted(self._excluded, [start, stop])
        if first == last:
            return None
        kept = np.ones(stop - start, dtype=np.bool_)
        kept[self._excluded[first:last] - start] = False
        return kept

    def _walk(self, file: IO[bytes]) -> Iterator[Part]:
        for (start, stop), row_ids in zip(self._slices(), self.ids(), strict=True):
            file.seek(start * np.dtype(np.float64).itemsize)
            values, kept = np.fromfile(file, np.float64, stop - start), self._kept(start, stop)
            yield row_ids, values if kept is None else np.compress(kept, values)
