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
"""Rows that are held at a time."""


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
        self._part_rows = PART_ROWS
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
        for start in range(0, self._rows, self._part_rows):
            yield np.arange(start, min(start + self._part_rows, self._rows), dtype=np.int64)

    def ids(self) -> Iterator[NDArray[np.int64]]:
        """Yield the ids of the rows, ascending, a part at a time."""
        for row_ids in self.every_id():
            yield row_ids[self._kept(row_ids)]

    def reader(self, name: str) -> Read:
        """Bring a statistic here; what it returns gives it in the parts of :meth:`ids`.

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
        """Give codes of the parts of :meth:`ids` back as codes of those of all rows."""
        for row_ids, some in zip(self.every_id(), codes, strict=True):
            expanded = np.full(len(row_ids), EXCLUDED, dtype=np.int8)
            expanded[self._kept(row_ids)] = some
            yield expanded

    def _kept(self, row_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of consecutive rows are not excluded."""
        kept = np.ones(len(row_ids), dtype=np.bool_)
        first, last = np.searchsorted(self._excluded, [row_ids[0], row_ids[-1] + 1])
        kept[self._excluded[first:last] - row_ids[0]] = False
        return kept

    def _walk(self, file: IO[bytes]) -> Iterator[Part]:
        for row_ids in self.every_id():
            kept = self._kept(row_ids)
            file.seek(int(row_ids[0]) * np.dtype(np.float64).itemsize)
            values = np.fromfile(file, np.float64, len(row_ids))
            yield row_ids[kept], values[kept]
