"""Which source reads a file, and what its samples are: by the keys, or columns, it begins with.

A line, an entry of a list or a row of a table may be a pair, a video, a text, a conversation or a
document. Where nothing tells, it is left to be a pair, and the source says what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from djsandbox_ray.dataset.arrow_rows import is_damage
from djsandbox_ray.dataset.columns import content_of_names, is_text_name
from djsandbox_ray.dataset.conversation import turn_marks
from djsandbox_ray.dataset.folder import IMAGES, VIDEOS
from djsandbox_ray.dataset.interleaved import DOCUMENT_MARKS
from djsandbox_ray.dataset.json_files import PEEKED, first_object, is_list
from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.dataset.tables import Dialect, csv_rows, header
from djsandbox_ray.dataset.tars import Broken, read_tar
from djsandbox_ray.dataset.webdataset import IMAGE_EXTENSIONS

_COCO = re.compile(rb'"(images|annotations)"\s*:\s*\[')
_MEMBERS = 100
"""Of a tar, so many are looked at."""


def of_lines(file: SourceFile) -> dict[str, Any]:
    """Return what is known of JSON Lines beside their path: type and content."""
    keys = first_object(file) or {}
    return _of_objects(keys) or _section("jsonl", _of_entry(keys))


def of_list(file: SourceFile) -> dict[str, Any] | None:
    """Return the type of a ``.json`` file; None where nothing here reads it."""
    if is_list(file):
        found = _of_objects(first_object(file) or {})
        return found if found and found["type"] == "llava" else None
    with file.open() as handle:
        start = handle.read(PEEKED)
    return {"type": "coco"} if start.lstrip().startswith(b"{") and _COCO.search(start) else None


def of_delimited(file: SourceFile) -> dict[str, Any]:
    """Return type and content of CSV and TSV files."""
    dialect = Dialect("\t" if file.path.lower().endswith(".tsv") else ",")
    names = header(file, dialect)
    rows = islice(csv_rows(file, dialect, names), 1, 2)
    return _section("csv", _content(names, next((row.values for row in rows), {})))


def of_table(file: SourceFile) -> dict[str, Any]:
    """Return type and content of Parquet files."""

    def look(handle: IO[bytes]) -> _Table:
        parquet = pq.ParquetFile(handle)
        schema = parquet.schema_arrow
        batches = parquet.iter_batches(1, columns=_telling(schema))
        return schema, next(batches, None)

    found = _of_columns("parquet", file, look)
    return found if found["type"] == "interleaved" else {**found, "type": "parquet"}


def of_saved(file: SourceFile) -> dict[str, Any]:
    """Return type and content of what ``save_to_disk`` has written."""

    def look(handle: IO[bytes]) -> _Table:
        stream = pa.ipc.open_stream(handle)
        batch = next(iter(stream), None)
        return stream.schema, batch and batch.select(_telling(stream.schema))

    return {**_of_columns("huggingface", file, look), "type": "huggingface"}


def of_tar(file: SourceFile) -> dict[str, Any]:
    """Return type and content of tars, by the endings of their first members."""
    members = islice(read_tar(file, lambda name: None), _MEMBERS)
    try:
        names = [member.name.lower() for member in members]
    except Broken:
        names = []  # the source says what is wrong with it
    images = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
    telling: dict[Content, tuple[str, ...]] = {
        "pairs": images,
        "videos": VIDEOS,
        "texts": (".txt",),
    }
    held = (key for key, ends in telling.items() if any(name.endswith(ends) for name in names))
    return _section("webdataset", next(held, None))


_Table: TypeAlias = tuple[pa.Schema, pa.RecordBatch | None]
"""What is known of a table: its columns, and some of its first rows."""


def _of_columns(kind: str, file: SourceFile, look: Callable[[IO[bytes]], _Table]) -> dict[str, Any]:
    """Return the section for a table, with the type of what its rows are where they are objects."""
    try:
        with file.open() as handle:
            schema, batch = look(handle)
    except Exception as error:
        if not is_damage(error):
            raise
        return {"type": kind}  # the source says what is wrong with it
    if found := _of_objects(schema.names):
        return found if found["type"] != "llava" else _section(kind, "conversations")
    first = batch.slice(0, 1).to_pylist() if batch is not None else []
    content = _content(schema.names, first[0] if first else {})
    held = any(map(_holds_bytes, schema.types))
    return _section(kind, None if content == "texts" and held else content)


def _telling(schema: pa.Schema) -> list[str]:
    """Return the columns whose values may be paths."""
    return [field.name for field in schema if _is_text(field.type)]


def _is_text(kind: pa.DataType) -> bool:
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _holds_bytes(kind: pa.DataType) -> bool:
    if types.is_list(kind) or types.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    if types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _of_objects(keys: Collection[str]) -> dict[str, Any] | None:
    """Tell by their keys what objects are; None where they may be pairs."""
    if any(set(held) <= set(keys) for held in DOCUMENT_MARKS):
        return {"type": "interleaved"}
    if "text" not in keys and any(set(held) <= set(keys) for held in turn_marks(None)):
        return {"type": "llava"}
    return None


def _of_entry(entry: Mapping[str, Any]) -> Content | None:
    """Tell what a line of Data-Juicer's layout is; None where that cannot be said."""
    images, videos = (_listed(entry.get(key)) for key in ("images", "videos"))
    if images or videos:
        sole: dict[tuple[int, int], Content] = {(1, 0): "pairs", (0, 1): "videos"}
        return sole.get((len(images), len(videos)), "any")
    content: Content | None = "texts" if isinstance(entry.get("text"), str) else None
    return _by_endings(entry, content)


def _content(names: Collection[str], first: Mapping[str, Any]) -> Content | None:
    """Tell what a table holds by the names of its columns, and by its first row where they do not.

    Args:
        names: of all columns.
        first: values of the first row by column.
    """
    content = content_of_names(names)
    return _by_endings(first, content) if content in (None, "texts") else content


def _by_endings(values: Mapping[str, Any], content: Content | None) -> Content | None:
    """Tell by the names of files among some values; texts may end in anything."""
    for key, value in values.items():
        named = [one.lower() for one in _listed(value) if isinstance(one, str)]
        if is_text_name(key) or not named:
            continue
        if named[0].endswith(IMAGES):
            return "pairs"
        if named[0].endswith(VIDEOS):
            return "videos"
    return content


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def _section(kind: str, content: Content | None) -> dict[str, Any]:
    """Return a section of a configuration, as short as it can be."""
    return {"type": kind} if content in (None, "pairs") else {"type": kind, "content": content}
