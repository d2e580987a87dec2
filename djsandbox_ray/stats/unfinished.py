"""What actors have computed of operators that are not complete yet: one file per range of rows.

A file holds ``row_id`` and a float64 column per operator and statistic, of all operators that
lacked the range; how each came about is in the footer. So there are as many files as ranges,
whatever the number of operators, and a kill loses the ranges that were at work. Once all are there,
:func:`gather` brings them into the folders of the operators, in longer parts (see
:mod:`~djsandbox_ray.stats.parts`): to read a statistic back takes few files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.identity import content_id
from djsandbox_ray.stats import parts
from djsandbox_ray.stats.parts import PartReport
from djsandbox_ray.storage.store import Storage

PART_ROWS = 1 << 18
"""Rows of an operator's part before it is written: 2 MiB per statistic."""
_NAME = re.compile(r"rows-(\d+)-.*\.parquet")


@dataclass(frozen=True)
class Piece:
    """A file, and how what it holds came about."""

    path: str
    start: int
    reports: dict[str, PartReport]
    """By the ids of the operators; all of the same rows."""

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + max(report.rows for report in self.reports.values())


@dataclass(frozen=True)
class Portion:
    """What is to be gathered of a file: some of its operators, by their ids."""

    path: str
    start: int
    stop: int
    operators: tuple[str, ...]


def folder(dataset_id: str) -> str:
    """Return the folder of what is computed of a dataset."""
    return f"datasets/{dataset_id}/stats/unfinished"


def file(folder: str, start: int, operators: Iterable[str]) -> str:
    """Return the path of the file that begins with row ``start`` and holds these operators."""
    return f"{folder}/rows-{start:012d}-{content_id('of', *operators)}.parquet"


def write(
    storage: Storage,
    folder: str,
    row_ids: NDArray[np.int64],
    computed: Mapping[str, tuple[dict[str, NDArray[np.float64]], PartReport]],
) -> None:
    """Write what was computed of consecutive rows, in one file.

    Args:
        storage: where.
        folder: see :func:`folder`.
        row_ids: the rows, at least one.
        computed: by the id of an operator, its statistics by key, and how they came about.
    """
    columns = {
        f"{operator}/{key}": values
        for operator, (statistics, _) in computed.items()
        for key, values in statistics.items()
    }
    reports = {operator: asdict(report) for operator, (_, report) in computed.items()}
    path = file(folder, int(row_ids[0]), computed)
    parts.write_columns(storage, path, {"row_id": row_ids, **columns}, {"operators": reports})


def pieces(storage: Storage, folder: str) -> list[Piece]:
    """List the files in a folder by their first row, the longest first of several.

    Those that cannot be read are removed.
    """
    names = {name: int(found[1]) for name in storage.names(folder) if (found := _NAME.match(name))}
    paths = [f"{folder}/{name}" for name in names]
    with ThreadPoolExecutor(parts.THREADS) as threads:
        footers = [*threads.map(partial(parts.read_footer, storage), paths)]
    listed = []
    for path, start, footer in zip(paths, names.values(), footers, strict=True):
        if reports := _reports(footer):
            listed.append(Piece(path, start, reports))
        else:
            storage.remove(path)
    return sorted(listed, key=lambda piece: (piece.start, -piece.stop))


def gather(storage: Storage, dataset_id: str, portions: Sequence[Portion]) -> None:
    """Bring what was computed into parts of the operators.

    At most :data:`PART_ROWS` rows (more where a file has more) are in memory, of all operators.

    Args:
        storage: where all of it lies.
        dataset_id: of the dataset.
        portions: what to take; of an operator no row twice.

    Raises:
        Damaged: a file cannot be read.
    """
    portions = sorted(portions, key=lambda portion: portion.start)
    growing: dict[str, _Part] = {}
    with ThreadPoolExecutor(parts.THREADS) as threads:
        for first in range(0, len(portions), parts.THREADS):
            some = portions[first : first + parts.THREADS]
            tables = threads.map(partial(_read, storage), some)
            for portion, table in zip(some, tables, strict=True):
                reports = _reports(parts.footer_of(table))
                for operator in portion.operators:
                    if operator not in reports:
                        raise storage.damaged(portion.path, f"it does not hold {operator}")
                    part = growing.setdefault(
                        operator, _Part(storage, parts.folder(dataset_id, operator))
                    )
                    part.add(portion, _of(table, operator), reports[operator])
    for part in growing.values():
        part.write()


def clear(
    storage: Storage,
    dataset_id: str,
    files: Mapping[str, Iterable[str]],
    over: Iterable[str],
) -> None:
    """Remove the files that nobody needs any more.

    Args:
        storage: where they lie.
        dataset_id: of the dataset.
        files: by the path of each file, the ids of its operators.
        over: ids of operators of which nothing is to be kept; of others, what is complete is not.
    """
    held = {operator for operators in files.values() for operator in operators} - set(over)
    held = {name for name in held if not storage.exists(parts.marker(dataset_id, name))}
    needless = [path for path, operators in files.items() if held.isdisjoint(operators)]
    place = folder(dataset_id)
    if {f"{place}/{name}" for name in storage.names(place)} <= set(needless):
        storage.remove(place)
        return
    for path in needless:
        storage.remove(path)


class _Part:
    """A part of an operator as it grows."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder
        self._start = self._stop = 0
        self._tables: list[pa.Table] = []
        self._reports: list[PartReport] = []

    def add(self, portion: Portion, table: pa.Table, report: PartReport) -> None:
        if portion.start != self._stop or self._stop - self._start >= PART_ROWS:
            self.write()
            self._start = portion.start
        self._stop = portion.stop
        self._tables.append(table)
        self._reports.append(report)

    def write(self) -> None:
        """Write what has been added, if anything has."""
        if not self._tables:
            return
        table = pa.concat_tables(self._tables)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        row_ids = columns.pop("row_id")
        path = parts.part(self._folder, self._start)
        parts.write_part(self._storage, path, row_ids, columns, reduce(add, self._reports))
        self._tables, self._reports = [], []


def _read(storage: Storage, portion: Portion) -> pa.Table:
    return storage.read_table(portion.path)


def _of(table: pa.Table, operator: str) -> pa.Table:
    """Return the columns of one operator, by the keys of its statistics."""
    start = f"{operator}/"
    names = [name for name in table.column_names if name.startswith(start)]
    chosen = table.select(["row_id", *names]).replace_schema_metadata(None)
    return chosen.rename_columns(["row_id", *(name.removeprefix(start) for name in names)])


def _reports(footer: dict[str, object] | None) -> dict[str, PartReport]:
    """Return the reports in a footer by operator; none if it is not one that :func:`write` made."""
    found = (footer or {}).get("operators")
    if not isinstance(found, dict):
        return {}
    reports = {operator: parts.report_of(values) for operator, values in found.items()}
    return {operator: report for operator, report in reports.items() if report is not None}
