"""Parquet files with a column of text and, if there are any, one of image or video bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from djsandbox_ray.dataset.beside import read_beside
from djsandbox_ray.dataset.faults import (
    META_LEFT_OUT,
    Unusable,
    as_json,
    attempt,
    described,
    is_failing,
    shown,
)
from djsandbox_ray.dataset.files import FileSource, SourceFile
from djsandbox_ray.dataset.media import Content, Kind, Media
from djsandbox_ray.dataset.source import (
    Item,
    Rejection,
    Remark,
    Sample,
    Shard,
    SourceConfig,
    estimated_loss,
)
from djsandbox_ray.errors import BadInput

_SHARD_ROWS = 2048
_BATCH_ROWS = 256
_BATCH_BYTES = 8 << 20
_BUFFER_BYTES = 4 << 20
_MOST_PER_BYTE = 1000
"""Rows that a footer may announce for each byte of its file."""
_DAMAGE = (
    *(pa.ArrowException, ValueError, OverflowError, MemoryError),
    *(TypeError, LookupError, SystemError, RecursionError),
)
"""What Arrow raises on damaged files; a client of an object store has others."""
_FEATURES = b"huggingface"
"""Where the metadata of a schema say of what kind the columns are, as JSON."""


class ParquetConfig(SourceConfig):
    """Where the files are and which columns to read."""

    path: str | tuple[str, ...]
    """A file, a folder or a glob, local or a URL; or a list of these."""
    image: str = "image"
    """Column of encoded images: bytes, or a struct with a field ``bytes`` (Hugging Face).

    Where ``bytes`` is null, the field ``path`` names a file beside the Parquet file."""
    video: str = "video"
    """Column of whole video files, in the same two forms; read for ``content: videos``."""
    text: str = "text"
    meta_columns: tuple[str, ...] = ()
    """Columns to keep as ``meta``. Where one is a ``ClassLabel`` of Hugging Face, an evaluator that
    is told no names takes those that the file's schema holds."""

    @property
    def media(self) -> tuple[Kind, str] | None:
        """The kind of the media and their column; None where only texts are read."""
        media: dict[Content, tuple[Kind, str]] = {
            "pairs": ("image", self.image),
            "videos": ("video", self.video),
        }
        return media.get(self.content)

    @property
    def columns(self) -> list[str]:
        """All columns that are read, each once."""
        media = [self.media[1]] if self.media else []
        return list(dict.fromkeys([*media, self.text, *self.meta_columns]))


class ParquetSource(FileSource):
    """A shard is a few row groups of a file: at least one, at most 2048 rows if there are more."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".parquet",)
    Config = ParquetConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos", "texts")
    config: ParquetConfig

    def __init__(self, config: ParquetConfig) -> None:
        super().__init__(config)
        self._named: dict[str, dict[tuple[str, ...], str]] = {}
        """By column: the first file that names its classes so, by their names."""

    def shards(self) -> list[Shard]:
        """Read the footers of all files and check their columns."""
        files = self.files()
        with ThreadPoolExecutor(16) as threads:
            footers = list(threads.map(partial(_footer, text=self.config.text), files))
        self._named = {
            column: _first_files(files, footers, column) for column in self.config.meta_columns
        }
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
        self._check(file.name, footer.schema)
        shards, first_row = [], 0
        for groups in _grouped(footer.groups):
            held = {group: footer.groups[group] for group in groups}
            rows = sum(held.values())
            read = partial(_read, file, self.config, held, first_row)
            shards.append(Shard(f"{file.name}#{first_row}", file.stamp, read, rows))
            first_row += rows
        if first_row < footer.rows:
            said = f"{footer.rows} rows are announced, {first_row} are there"
            shards.append(_lost(file, first_row, said, footer.rows - first_row))
        return shards

    def _check(self, name: str, schema: pa.Schema) -> None:
        for column in self.config.columns:
            times = schema.names.count(column)
            if times != 1:
                fault = f"has {times} columns" if times else "has no column"
                raise BadInput(f"{name} {fault} {column!r} (it has {', '.join(schema.names)})")
        if self.config.media is not None:
            kind, column = self.config.media
            files = schema.field(column).type
            if types.is_struct(files) and files.get_field_index("bytes") >= 0:
                files = files.field("bytes").type
            if not _is_binary(files):
                raise BadInput(
                    f"{name}: the {kind} column {column!r} is of type {files}; "
                    "bytes, or a struct with a field 'bytes', are needed"
                )
        text = schema.field(self.config.text).type
        text = text.value_type if types.is_dictionary(text) else text
        if not (types.is_string(text) or types.is_large_string(text) or _is_binary(text)):
            raise BadInput(
                f"{name}: the text column {self.config.text!r} is of type {text}, not string"
            )
        for column in self.config.meta_columns:
            if _is_binary(schema.field(column).type):
                raise BadInput(
                    f"{name}: the column {column!r} holds bytes, which cannot be kept as meta data"
                )


def _first_files(
    files: list[SourceFile], footers: list[_Footer], column: str
) -> dict[tuple[str, ...], str]:
    """Return all namings of a column's classes, each with the first file that has it."""
    first: dict[tuple[str, ...], str] = {}
    for file, footer in zip(files, footers, strict=True):
        if not footer.fault:
            first.setdefault(_class_names(footer.schema, column), file.name)
    return first


def _class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """Return the names of a ``ClassLabel`` column, as Hugging Face's libraries write them.

    None are given where they would not tell one number from another.
    """
    try:
        written = json.loads((schema.metadata or {})[_FEATURES])["info"]["features"][column]
        names = as_json(written["names"]) if written["_type"] == "ClassLabel" else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()
    if not isinstance(names, list) or not types.is_integer(schema.field(column).type):
        return ()
    whole = all(isinstance(name, str) and name.strip() for name in names)
    return tuple(names) if whole and 1 < len(names) == len(set(names)) else ()


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


def _footer(file: SourceFile, text: str) -> _Footer:
    try:
        with file.open() as handle, pq.ParquetFile(handle) as parquet:
            schema, found = parquet.schema_arrow, parquet.metadata
            rows = int(found.num_rows)
            groups = [_group_rows(found.row_group(at), text) for at in range(found.num_row_groups)]
        ", ".join(schema.names).encode()  # names that are no text are found here
    except Exception as error:
        if not _is_damage(error):
            raise
        return _Footer(described(error))
    if min([rows, *groups]) < 0 or max(rows, sum(groups)) > _MOST_PER_BYTE * _size(file):
        return _Footer(f"its footer announces {rows} rows in {_size(file)} bytes")
    return _Footer("", schema, rows, groups)


def _group_rows(group: Any, text: str) -> int:
    """Return the rows of a row group; if its footer contradicts itself, the larger number."""
    columns = (group.column(index) for index in range(group.num_columns))
    values = (column.num_values for column in columns if column.path_in_schema == text)
    return max(int(group.num_rows), *map(int, values), 0)


def _lost(file: SourceFile, row: int, detail: str, lost: int) -> Shard:
    """Return the shard of what cannot be read."""
    broken = Rejection(f"{file.name}#{row}", "broken_shard", detail, lost)
    return Shard(f"{file.name}#{row}", file.stamp, partial(iter, (broken,)), rows=lost)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_damage(error: Exception) -> bool:
    """Tell damaged content from a failing disk or network, which must stop the run."""
    if isinstance(error, OSError):
        return error.errno is None and not isinstance(error, FileNotFoundError | PermissionError)
    if isinstance(error, BadInput) or is_failing(error):
        return False
    return isinstance(error, _DAMAGE)


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
    file: SourceFile, config: ParquetConfig, groups: dict[int, int], first_row: int
) -> Iterator[Item]:
    # By default every column of a row group is first read as a whole; so, page by page.
    paged = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
    with file.open() as handle, pq.ParquetFile(handle, **paged) as parquet:
        for group, rows in groups.items():
            yield from _read_group(parquet, group, file, range(first_row, first_row + rows), config)
            first_row += rows


def _read_group(
    parquet: pq.ParquetFile, group: int, file: SourceFile, rows: range, config: ParquetConfig
) -> Iterator[Item]:
    """Yield the rows of a row group; where it is damaged, a rejection of all that are lost."""
    position, said = rows.start, "the rows end before"
    try:
        for batch in parquet.iter_batches(_batch_rows(parquet, group), [group], config.columns):
            for items in _items(batch, file, position, config):
                yield from items
                position += 1
    except Exception as error:
        if not _is_damage(error):
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


def _items(
    batch: pa.RecordBatch, file: SourceFile, position: int, config: ParquetConfig
) -> Iterator[list[Item]]:
    texts = batch.column(config.text)
    files = paths = pa.nulls(batch.num_rows)
    if config.media is not None:
        files = batch.column(config.media[1])
    if types.is_struct(files.type):
        if files.type.get_field_index("path") >= 0:
            paths = pc.struct_field(files, "path")
        files = pc.struct_field(files, "bytes")
    if types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    texts = texts.cast(pa.large_binary())
    for index in range(batch.num_rows):
        source = f"{file.name}#{position + index}"
        data, path, text = files[index], paths[index], texts[index]
        meta = {name: batch.column(name)[index] for name in config.meta_columns}
        yield attempt(source, partial(_row, source, file, config, data, path, text, meta))


def _row(
    source: str,
    file: SourceFile,
    config: ParquetConfig,
    data: pa.Scalar,
    path: pa.Scalar,
    text: pa.Scalar,
    meta: dict[str, pa.Scalar],
) -> list[Item]:
    content = data.as_py()
    if content is None and config.media is not None:
        content = _beside(file, *config.media, path.as_py())
    if not text.is_valid:
        raise Unusable("bad_text", f"column {config.text!r} is null")
    try:
        caption = text.as_py().decode()
    except UnicodeDecodeError as error:
        raise Unusable("bad_text", f"column {config.text!r}: {error}") from None
    kept, faults = {}, []
    for name, value in meta.items():
        try:
            kept[name] = as_json(value.as_py())
        except Exception as error:  # a date after the year 9999, bytes in a list, ...
            kept[name] = None
            faults.append(f"column {name!r}: {described(error)}")
    remarks: list[Item] = [Remark(source, META_LEFT_OUT, "; ".join(faults))] if faults else []
    if config.content == "pairs":
        return [Sample(content, caption, source, kept), *remarks]
    media = (Media(config.media[0], content),) if config.media is not None else ()
    return [Sample(b"", caption, source, kept, media), *remarks]


def _beside(file: SourceFile, kind: Kind, column: str, path: Any) -> bytes:
    if not isinstance(path, str) or not path:
        raise Unusable(f"missing_{kind}", f"column {column!r} is null")
    try:
        return read_beside(file, path, kind)
    except Unusable as error:
        said = f"column {column!r}: bytes is null and path is {shown(path)}: {error.detail}"
        raise Unusable(error.reason, said) from None
