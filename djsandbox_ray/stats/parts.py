"""Where statistics lie: per operator a folder of Parquet parts, and a marker when it is complete.

A part holds ``row_id`` and one float64 column per statistic for consecutive rows; how it was
computed is in its own footer, so that a resumed run reports all. What is being computed lies
elsewhere, a file per range (see :mod:`~djsandbox_ray.stats.unfinished`).
Whoever writes parts holds the lease of the dataset's statistics: a marker holds the sizes of parts.
Finished statistics are read back one column at a time, or some of them range by range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.errors import Damaged, Missing
from djsandbox_ray.records import Statistic
from djsandbox_ray.storage.seals import sealed, unsealed
from djsandbox_ray.storage.store import Storage

EXAMPLES = 5
"""Failures that are kept with their reason, per operator."""
THREADS = 8
"""Parts that are read at a time."""
Put = Callable[[int, NDArray[np.float64]], None]
ROWS = 512
"""Rows of a range where a row may take a tenth of a second or more: what a kill loses of it."""
ROWS_OF_TEXT = 4096
"""Rows of a range of what only looks at text: they take a second or two."""
_MOST_RANGES = 2048
_FOOTER = b"djsandbox_ray"
_NAME = re.compile(r"part-\d+\.parquet")
"""What else lies in the folder is somebody else's."""


@dataclass(frozen=True)
class PartReport:
    """How one part came about."""

    rows: int
    missing: dict[str, int]
    """Per statistic: rows without a value."""
    failed: int
    """Rows at which the operator raised an error; they are among the missing."""
    examples: tuple[tuple[int, str], ...]
    """The first failures: (row_id, reason)."""
    seconds: float
    """Computing time of the operator, in seconds of one actor."""
    flops_per_sample: float | None = None
    """Floating-point operations of the operator's model, if this is the part they are counted in
    and they can be."""

    def __add__(self, other: PartReport) -> PartReport:
        """Return the report of two parts together."""
        return replace(
            self,
            rows=self.rows + other.rows,
            missing={key: self.missing[key] + other.missing[key] for key in self.missing},
            failed=self.failed + other.failed,
            examples=(self.examples + other.examples)[:EXAMPLES],
            seconds=self.seconds + other.seconds,
            flops_per_sample=(
                other.flops_per_sample if self.flops_per_sample is None else self.flops_per_sample
            ),
        )


def ranges(rows: int, least: int = ROWS) -> Iterator[tuple[int, int]]:
    """Cut a table into ranges (start, stop) of at least so many rows; at most 2,048 of them."""
    step = least * max(1, -(-rows // (least * _MOST_RANGES)))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def folder(dataset_id: str, operator: str) -> str:
    """Return the folder of an operator's parts."""
    return f"datasets/{dataset_id}/stats/{operator}.parquet"


def marker(dataset_id: str, operator: str) -> str:
    """Return the path of what says that an operator is complete."""
    return f"datasets/{dataset_id}/stats/{operator}.json"


def lease(dataset_id: str) -> str:
    """Return the path of the lease of who computes statistics of a dataset."""
    return f"datasets/{dataset_id}/stats/lease"


def part(parts: str, start: int) -> str:
    """Return the path of the part that begins with row ``start``; sorted by name, by row."""
    return f"{parts}/part-{start:012d}.parquet"


def first_row(name: str) -> int:
    """Return the first row of a part, from its name."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


def files(storage: Storage, parts: str) -> list[str]:
    """Return the paths of the parts in a folder, by row; of a single file, that file."""
    names = [name for name in storage.names(parts) if _NAME.fullmatch(name)]
    return [f"{parts}/{name}" for name in names] or [parts]


def write_part(
    storage: Storage,
    path: str,
    row_ids: NDArray[np.int64],
    columns: dict[str, NDArray[np.float64]],
    report: PartReport,
) -> None:
    """Write a part whole, with its report in the footer."""
    write_columns(storage, path, {"row_id": row_ids, **columns}, asdict(report))


def write_columns(
    storage: Storage, path: str, columns: Mapping[str, Any], footer: Mapping[str, Any]
) -> None:
    """Write columns as one file, with a footer that vouches for itself."""
    metadata = {_FOOTER: json.dumps(sealed(footer)).encode()}
    storage.write_table(path, pa.table(columns).replace_schema_metadata(metadata))


def footer_of(table: pa.Table) -> dict[str, Any] | None:
    """Return the footer that :func:`write_columns` gave a table, None without one that is whole."""
    try:
        return unsealed(json.loads((table.schema.metadata or {})[_FOOTER]))
    except (KeyError, TypeError, ValueError):
        return None


def read_footer(storage: Storage, path: str) -> dict[str, Any] | None:
    """Return the footer of a file, None if there is no such file or none that can be read."""
    try:
        return footer_of(storage.read_table(path, columns=[]))
    except Damaged:
        return None


def report_of(values: Any) -> PartReport | None:
    """Return a report as a footer holds it, None if that is none."""
    try:
        examples = tuple((row, reason) for row, reason in values["examples"])
        return PartReport(**{**values, "examples": examples})
    except (KeyError, TypeError, ValueError):
        return None


def read_report(storage: Storage, path: str) -> PartReport | None:
    """Return how a part came about, or None if there is no such part, or none that can be read."""
    return report_of(read_footer(storage, path))


def sizes(storage: Storage, folder: str) -> dict[str, int]:
    """Return the bytes of every part in a folder, by name."""
    stamps = storage.stamps(folder)
    return {name: int(stamps[name]["size"]) for name in stamps if _NAME.fullmatch(name)}


def broken_parts(storage: Storage, folder: str) -> dict[str, str]:
    """Return what is wrong with the parts of an operator that is complete, by path.

    Only sizes are compared, by one listing: every page of a part has a checksum, which is compared
    when it is read.

    Args:
        storage: where they lie.
        folder: of the operator.
    """
    path = f"{folder.removesuffix('.parquet')}.json"
    try:
        marked = storage.read_sealed(path).get("parts", {})
    except Missing:
        return {path: "is not there"}
    except Damaged:
        return {path: "is damaged"}
    if not isinstance(marked, dict):
        return {path: "is damaged"}
    there = sizes(storage, folder)
    return {
        f"{folder}/{name}": f"has {there[name]} bytes, not {size}" if name in there else "is gone"
        for name, size in marked.items()
        if there.get(name) != size
    }


def load_column(storage: Storage, statistic: Statistic, rows: int) -> NDArray[np.float64]:
    """Return a statistic of every row, shape (rows,), in the order of ``row_id``; NaN = no value.

    Raises:
        Damaged: see :func:`spread_column`.
    """
    column = np.empty(rows, dtype=np.float64)

    def put(start: int, values: NDArray[np.float64]) -> None:
        column[start : start + len(values)] = values

    spread_column(storage, statistic, rows, put)
    return column


def spread_column(storage: Storage, statistic: Statistic, rows: int, put: Put) -> None:
    """Read a statistic of every row, several parts at a time, of which nothing is held.

    Args:
        storage: where it lies.
        statistic: which.
        rows: rows of the dataset.
        put: takes the first row of a piece of a part and its values, in any order, in several
            threads.

    Raises:
        Damaged: a part cannot be read, or the row ids are not 0 to ``rows`` - 1.
    """
    spread = partial(_spread, storage, statistic, rows, put)
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(spread, files(storage, statistic.path))
        spans = sorted(chain.from_iterable(found))
    ends = [0, *(stop for _, stop in spans)]
    if [start for start, _ in spans] != ends[:-1] or ends[-1] != rows:
        # Without what says that it is complete, the rows that are lacking are computed.
        mark = f"{statistic.path.removesuffix('.parquet')}.json"
        raise storage.damaged(mark, f"{statistic.path} does not hold the rows 0 to {rows - 1}")


def _spread(
    storage: Storage, statistic: Statistic, rows: int, put: Put, path: str
) -> list[tuple[int, int]]:
    """Put the pieces of a part into their places; return the first row of each and its end."""
    spans = []
    for batch in storage.read_batches(path, ["row_id", statistic.key]):
        row_ids = batch["row_id"].to_numpy()
        start = int(row_ids[0]) if len(row_ids) else 0
        stop = start + len(row_ids)
        if not (0 <= start <= stop <= rows and np.array_equal(row_ids, np.arange(start, stop))):
            raise storage.damaged(path, f"its row ids are not consecutive ones below {rows}")
        put(start, batch[statistic.key].to_numpy(zero_copy_only=False))
        spans.append((start, stop))
    return spans


def chunks(
    storage: Storage, statistics: Sequence[Statistic], rows: int
) -> Iterator[NDArray[np.float64]]:
    """Yield the statistics of one range of rows after another, shape (rows, statistics).

    Operators need not have their parts cut at the same rows; of each, one part is held.

    Raises:
        Damaged: a part holds other rows than it should: the files were changed by hand.
    """
    keys: dict[str, list[str]] = {}
    for item in statistics:
        keys.setdefault(item.path, []).append(item.key)
    held: dict[str, pa.Table] = {folder: pa.table({"row_id": []}) for folder in keys}
    start = 0
    while start < rows:
        for folder, names in keys.items():
            if held[folder].num_rows == 0:
                path = part(folder, start)
                table = held[folder] = storage.read_table(path, ["row_id", *names])
                there = np.arange(start, min(start + max(1, table.num_rows), rows))
                if not np.array_equal(table["row_id"].to_numpy(), there):
                    mark = f"{folder.removesuffix('.parquet')}.json"
                    raise storage.damaged(mark, f"{path} does not hold the rows from {start} on")
        step = min(table.num_rows for table in held.values())
        columns = [held[item.path][item.key][:step].to_numpy() for item in statistics]
        yield np.stack(columns, axis=1).astype(np.float64)
        held = {folder: table.slice(step) for folder, table in held.items()}
        start += step


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
