"""Finished statistics, read back one column at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.records import Statistic
from djsandbox_ray.stats import parts
from djsandbox_ray.storage import Storage


def load_column(storage: Storage, statistic: Statistic, rows: int) -> NDArray[np.float64]:
    """Return a statistic of every row, shape (rows,), in the order of ``row_id``; NaN = no value.

    Parts are read several at a time into the one array: of the others, nothing is held.

    Raises:
        SandboxError: the row ids are not 0 to ``rows`` - 1: the files were changed by hand.
    """
    column = np.empty(rows, dtype=np.float64)
    fill = partial(_fill, column, storage, statistic)
    with ThreadPoolExecutor(parts.THREADS) as threads:
        spans = sorted(threads.map(fill, parts.files(storage, statistic.path)))
    ends = [0, *(stop for _, stop in spans)]
    if [start for start, _ in spans] != ends[:-1] or ends[-1] != rows:
        raise SandboxError(
            f"statistic {statistic.name}: {statistic.path} does not hold the rows 0 to {rows - 1}, "
            "each once"
        )
    return column


def _fill(
    column: NDArray[np.float64], storage: Storage, statistic: Statistic, path: str
) -> tuple[int, int]:
    """Read a part into its place; return its first row and the one after its last."""
    table = storage.read_table(path, columns=["row_id", statistic.key])
    row_ids = table["row_id"].to_numpy()
    start = int(row_ids[0]) if len(row_ids) else 0
    stop = start + len(row_ids)
    if not (0 <= start <= stop <= len(column) and np.array_equal(row_ids, range(start, stop))):
        raise SandboxError(
            f"statistic {statistic.name}: the row ids of {path} are not consecutive ones below "
            f"{len(column)}"
        )
    column[start:stop] = table[statistic.key].to_numpy()
    return start, stop


class StatisticColumns(Mapping[str, NDArray[np.float64]]):
    """Statistics by name; a column is read when it is asked for, and not kept.

    Args:
        storage: where they lie.
        statistics: what :func:`~djsandbox_ray.stats.compute.compute_statistics` returned.
        rows: rows of the dataset.
    """

    def __init__(self, storage: Storage, statistics: Sequence[Statistic], rows: int) -> None:
        self._storage = storage
        self._statistics = {statistic.name: statistic for statistic in statistics}
        self._rows = rows

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return load_column(self._storage, self._statistics[name], self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._statistics)

    def __len__(self) -> int:
        return len(self._statistics)
