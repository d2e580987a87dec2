"""Parquet files with a column of texts and, where there are any, one of images or videos."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.dataset.arrow_rows import (
    Columns,
    ColumnsConfig,
    class_names,
    is_damage,
)
from djsandbox_ray.dataset.columns import META, OWN_META
from djsandbox_ray.dataset.faults import described, shown
from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.object_rows import (
    ObjectColumns,
    check_columns,
    chosen_columns,
    rows_of,
)
from djsandbox_ray.dataset.source import Item, Rejection, Shard, SourceConfig, estimated_loss
from djsandbox_ray.dataset.source_files import FileSource, SourceFile
from djsandbox_ray.errors import BadInput

_SHARD_ROWS = 2048
_BATCH_ROWS = 256
_BATCH_BYTES = 8 << 20
_BUFFER_BYTES = 4 << 20
_MOST_PER_BYTE = 1000
"""Rows that a footer may announce for each byte of its file."""


class ParquetConfig(ColumnsConfig):
    """Where the files are, and which columns to read."""

    path: str | tuple[str, ...]
    """A file, a folder or a glob, local or a URL; or a list of these."""


class ParquetFiles(FileSource):
    """A shard is a few row groups of a file: at least one, at most 2048 rows if there are more."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".parquet",)
    config: Any
    """Has ``meta_columns``, the names of columns to keep."""

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config)
        self._named: dict[str, dict[tuple[str, ...], str]] = {}
        """By column: the first file that names its classes so, by their names."""

    def shards(self) -> list[Shard]:
        """Read the footers of all files and check their columns."""
        files = self.files()
        with ThreadPoolExecutor(16) as threads:
            footers = list(threads.map(partial(_footer, choose=self.columns), files))
        self._named = {
            column: _first_files(files, footers, column) for column in self.config.meta_columns
        }
        self._said = tuple(
            dict.fromkeys(f.columns.said for f in footers if not f.fault and f.columns.found)
        )
        size = sum(_size(file) for file, foot in zip(files, footers, strict=True) if not foot.fault)
        rows = sum(footer.rows for footer in footers)
        shards: list[Shard] = []
        for file, footer in zip(files, footers, strict=True):
            if not footer.fault:
                shards += self._file_shards(file, footer)
            else:
                lost = estimated_loss(_size(file), size, rows)
                shards.append(_lost(file, 0, footer.fault, lost))
        return shards

    @abstractmethod
    def columns(self, file: SourceFile, names: list[str]) -> Columns | ObjectColumns:
        """Choose the columns of a file.

        Raises:
            BadInput: there are none, or names could mean two.
        """

    def class_names(self, key: str) -> tuple[str, ...]:
        """Return the names that the schemas of the files hold of a ``ClassLabel`` column.

        Raises:
            BadInput: files name its numbers differently, or only some do: says which.
        """
        found = self._named.get(key, {})
        if len(found) > 1:
            (one, first), (other, second), *_ = found.items()
            number = next(n for n in count() if one[n : n + 1] != other[n : n + 1])
            raise BadInput(
                f"column {key!r}: files name its classes differently: {first} calls the number "
                f"{number} {_shown_name(one, number)}, {second} {_shown_name(other, number)}; give "
                "the evaluator 'classes' if a number means the same in all of them"
            )
        return next(iter(found), ())

    def _file_shards(self, file: SourceFile, footer: _Footer) -> list[Shard]:
        check_columns(file.name, footer.schema, footer.columns)
        shards, first_row = [], 0
        for groups in _grouped(footer.groups):
            held = {group: footer.groups[group] for group in groups}
            rows = sum(held.values())
            read = partial(_read, file, footer.columns, held, first_row)
            shards.append(Shard(f"{file.name}#{first_row}", file.stamp, read, rows))
            first_row += rows
        if first_row < footer.rows:
            said = f"{footer.rows} rows are announced, {first_row} are there"
            shards.append(_lost(file, first_row, said, footer.rows - first_row))
        return shards


class ParquetSource(ParquetFiles):
    """Files of pairs, videos with captions, texts, or conversations."""

    Config = ParquetConfig
    VERSION: ClassVar[int | None] = 2
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos", "texts", "conversations")
    config: ParquetConfig

    def columns(self, file: SourceFile, names: list[str]) -> Columns | ObjectColumns:
        """Choose those of the configuration, or of usual names."""
        return chosen_columns(file, names, self.config)


def _first_files(
    files: list[SourceFile], footers: list[_Footer], column: str
) -> dict[tuple[str, ...], str]:
    """Return all namings of a column's classes, each with the first file that has it."""
    first: dict[tuple[str, ...], str] = {}
    for file, footer in zip(files, footers, strict=True):
        if not footer.fault:
            first.setdefault(class_names(footer.schema, column), file.name)
    return first


def _shown_name(names: tuple[str, ...], number: int) -> str:
    return shown(names[number]) if number < len(names) else "nothing"


def _size(file: SourceFile) -> int:
    return int(file.stamp["size"] or 0)


@dataclass(frozen=True)
class _Footer:
    """What a file says of itself."""

    fault: str
    """Why it cannot be read; empty if it can."""
    schema: pa.Schema = None
    rows: int = 0
    groups: list[int] = field(default_factory=list)
    """Rows of each row group."""
    columns: Any = None
    """What is read of it, see :meth:`ParquetFiles.columns`; none if it cannot be read."""


def _footer(
    file: SourceFile, choose: Callable[[SourceFile, list[str]], Columns | ObjectColumns]
) -> _Footer:
    try:
        with file.open() as handle, pq.ParquetFile(handle) as parquet:
            schema, found = parquet.schema_arrow, parquet.metadata
            columns = _with_own(choose(file, schema.names), schema)
            rows, counted = int(found.num_rows), range(found.num_row_groups)
            # Asked for a column of a damaged group, Arrow 25 would end the process.
            groups = [int(found.row_group(at).num_rows) for at in counted]
        ", ".join(schema.names).encode()  # names that are no text are found here
    except Exception as error:
        if not is_damage(error):
            raise
        return _Footer(described(error))
    if min([rows, *groups]) < 0 or max(rows, sum(groups)) > _MOST_PER_BYTE * _size(file):
        return _Footer(f"its footer announces {rows} rows in {_size(file)} bytes")
    return _Footer("", schema, rows, groups, columns)


def _with_own(columns: Columns | ObjectColumns, schema: pa.Schema) -> Columns | ObjectColumns:
    """Have the meta data read of a file that was materialised, if nobody asks for the column."""
    own = OWN_META in (schema.metadata or {}) and META in schema.names
    if not own or isinstance(columns, ObjectColumns) or META in columns.read:
        return columns
    return replace(columns, own=(META,))


def _lost(file: SourceFile, row: int, detail: str, lost: int) -> Shard:
    """Return the shard of what cannot be read."""
    broken = Rejection(f"{file.name}#{row}", "broken_shard", detail, lost)
    return Shard(f"{file.name}#{row}", file.stamp, partial(iter, (broken,)), rows=lost)


def _grouped(sizes: list[int]) -> Iterator[range]:
    """Join consecutive row groups, up to ``_SHARD_ROWS`` rows where one group is not larger."""
    start, rows = 0, 0
    for index, size in enumerate(sizes):
        if index > start and rows + size > _SHARD_ROWS:
            yield range(start, index)
            start, rows = index, 0
        rows += size
    if start < len(sizes):
        yield range(start, len(sizes))


def _read(
    file: SourceFile, chosen: Columns | ObjectColumns, groups: dict[int, int], first_row: int
) -> Iterator[Item]:
    # By default every column of a row group is first read as a whole; so, page by page.
    paged = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
    with file.open() as handle, pq.ParquetFile(handle, **paged) as parquet:
        for group, rows in groups.items():
            yield from _read_group(parquet, group, file, range(first_row, first_row + rows), chosen)
            first_row += rows


def _read_group(
    parquet: pq.ParquetFile,
    group: int,
    file: SourceFile,
    rows: range,
    chosen: Columns | ObjectColumns,
) -> Iterator[Item]:
    """Yield the rows of a row group; where it is damaged, a rejection of all that are lost."""
    position, said = rows.start, "the rows end before"
    try:
        for batch in parquet.iter_batches(_batch_rows(parquet, group), [group], chosen.read):
            for items in rows_of(batch, file, position, chosen):
                yield from items
                position += 1
    except Exception as error:
        if not is_damage(error):
            raise
        said = described(error)
    if lost := rows.stop - position:
        detail = f"rows {position} to {rows.stop - 1} cannot be read: {said}"
        yield Rejection(f"{file.name}#{position}", "broken_shard", detail, lost)


def _batch_rows(parquet: pq.ParquetFile, group: int) -> int:
    """Return how many rows of a row group are decoded at once, by their mean size."""
    footer = parquet.metadata.row_group(group)
    mean = int(footer.total_byte_size) // max(1, int(footer.num_rows))
    return min(_BATCH_ROWS, max(1, _BATCH_BYTES // max(1, mean)))
