"""Parquet files with a column of image bytes and a column of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from djsandbox_ray.dataset.files import FileSource, SourceFile
from djsandbox_ray.dataset.source import Rejection, Sample, Shard, SourceConfig
from djsandbox_ray.errors import BadInput

_SHARD_ROWS = 2048
_BATCH_ROWS = 256
_BATCH_BYTES = 8 << 20
_BUFFER_BYTES = 4 << 20


class ParquetConfig(SourceConfig):
    """Where the files are and which columns to read."""

    path: str | tuple[str, ...]
    """A file, a folder or a glob, local or a URL; or a list of these."""
    image: str = "image"
    """Column of encoded images: bytes, or a struct with a field ``bytes`` (Hugging Face)."""
    text: str = "text"
    meta_columns: tuple[str, ...] = ()
    """Columns to keep as ``meta``."""


class ParquetSource(FileSource):
    """A shard is a few row groups of a file: at least one, at most 2048 rows if there are more."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".parquet",)
    Config = ParquetConfig
    config: ParquetConfig

    def shards(self) -> list[Shard]:
        """Read the footers of all files and check their columns."""
        files = self.files()
        with ThreadPoolExecutor(16) as threads:
            return [shard for some in threads.map(self._file_shards, files) for shard in some]

    def _file_shards(self, file: SourceFile) -> list[Shard]:
        try:
            with file.open() as handle, pq.ParquetFile(handle) as parquet:
                schema, footer = parquet.schema_arrow, parquet.metadata
        except (pa.ArrowException, OSError) as error:
            if not _is_damage(error):
                raise
            broken = Rejection(f"{file.name}#0", "broken_shard", str(error))
            return [Shard(file.name, file.stamp, partial(iter, (broken,)), rows=1)]
        self._check(file.name, schema)
        shards, first_row = [], 0
        for groups in _grouped(
            [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        ):
            rows = sum(footer.row_group(i).num_rows for i in groups)
            read = partial(_read, file, self.config, groups, first_row)
            shards.append(Shard(f"{file.name}#{first_row}", file.stamp, read, rows))
            first_row += rows
        return shards

    def _check(self, name: str, schema: pa.Schema) -> None:
        for column in (self.config.image, self.config.text, *self.config.meta_columns):
            if column not in schema.names:
                raise BadInput(
                    f"{name} has no column {column!r} (it has {', '.join(schema.names)})"
                )
        image = schema.field(self.config.image).type
        if types.is_struct(image) and image.get_field_index("bytes") >= 0:
            image = image.field("bytes").type
        if not _is_binary(image):
            raise BadInput(
                f"{name}: the image column {self.config.image!r} is of type {image}; "
                "bytes, or a struct with a field 'bytes', are needed"
            )
        text = schema.field(self.config.text).type
        text = text.value_type if types.is_dictionary(text) else text
        if not (types.is_string(text) or types.is_large_string(text) or _is_binary(text)):
            raise BadInput(
                f"{name}: the text column {self.config.text!r} is of type {text}, not string"
            )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_damage(error: Exception) -> bool:
    """Tell damaged content from a failing disk or network, which must stop the run."""
    if isinstance(error, FileNotFoundError | PermissionError | ConnectionError | TimeoutError):
        return False
    return not (isinstance(error, OSError) and error.errno is not None)


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
    file: SourceFile, config: ParquetConfig, groups: range, first_row: int
) -> Iterator[Sample | Rejection]:
    # By default every column of a row group is first read as a whole; so, page by page.
    paged = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
    with file.open() as handle, pq.ParquetFile(handle, **paged) as parquet:
        for group in groups:
            yield from _read_group(parquet, group, file.name, first_row, config)
            first_row += parquet.metadata.row_group(group).num_rows


def _read_group(
    parquet: pq.ParquetFile, group: int, name: str, first_row: int, config: ParquetConfig
) -> Iterator[Sample | Rejection]:
    """Yield the rows of a row group; where it is damaged, a rejection for each row that is lost."""
    columns = list(dict.fromkeys([config.image, config.text, *config.meta_columns]))
    position, end = first_row, first_row + parquet.metadata.row_group(group).num_rows
    try:
        for batch in parquet.iter_batches(_batch_rows(parquet, group), [group], columns):
            yield from _items(batch, f"{name}#", position, config)
            position += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        if not _is_damage(error):
            raise
        for lost in range(position, end):
            yield Rejection(f"{name}#{lost}", "broken_shard", str(error))


def _batch_rows(parquet: pq.ParquetFile, group: int) -> int:
    """Return how many rows of a row group are decoded at once, by their mean size."""
    footer = parquet.metadata.row_group(group)
    mean = int(footer.total_byte_size) // max(1, int(footer.num_rows))
    return min(_BATCH_ROWS, max(1, _BATCH_BYTES // max(1, mean)))


def _items(
    batch: pa.RecordBatch, prefix: str, position: int, config: ParquetConfig
) -> Iterator[Sample | Rejection]:
    images, texts = batch.column(config.image), batch.column(config.text)
    if types.is_struct(images.type):
        images = pc.struct_field(images, "bytes")
    if types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    pairs = zip(images.to_pylist(), texts.cast(pa.large_binary()).to_pylist(), strict=True)
    for index, (image, raw) in enumerate(pairs):
        source = f"{prefix}{position + index}"
        if image is None or raw is None:
            reason, column = ("bad_text", config.text) if image else ("missing_image", config.image)
            yield Rejection(source, reason, f"column {column!r} is null")
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            yield Rejection(source, "bad_text", f"column {config.text!r}: {error}")
            continue
        try:
            meta = {
                name: as_json(batch.column(name)[index].as_py()) for name in config.meta_columns
            }
        except (TypeError, UnicodeDecodeError) as error:
            yield Rejection(source, "bad_meta", str(error))
            continue
        yield Sample(image, text, source, meta)


def as_json(value: Any) -> Any:
    """Turn a Parquet value into plain JSON data; NaN and infinities become None.

    Raises:
        TypeError: it has no JSON form (bytes).
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be kept as meta data")
