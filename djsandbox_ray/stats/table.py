"""Finished statistics, read back one column at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.records import Statistic
from djsandbox_ray.storage import Storage


def load_column(storage: Storage, statistic: Statistic) -> NDArray[np.float64]:
    """Return a statistic of every row, shape (rows,), in the order of ``row_id``; NaN = no value.

    Raises:
        SandboxError: the row ids are not 0, 1, 2, ...: the files were changed by hand.
    """
    table = storage.read_table(statistic.path, columns=["row_id", statistic.key])
    row_ids = table["row_id"].to_numpy()
    if not np.array_equal(row_ids, np.arange(len(row_ids))):
        raise SandboxError(
            f"{statistic.path}: the row ids are not 0 to {len(row_ids) - 1} in order"
        )
    return np.asarray(table[statistic.key].to_numpy(), dtype=np.float64)


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
        column = load_column(self._storage, self._statistics[name])
        if len(column) != self._rows:
            raise SandboxError(
                f"statistic {name}: {len(column)} rows where {self._rows} are needed"
            )
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._statistics)

    def __len__(self) -> int:
        return len(self._statistics)
