"""Rows of Arrow tables, however they are stored, as samples; Hugging Face's kinds of columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from djsandbox_ray.dataset.beside import read_beside
from djsandbox_ray.dataset.columns import (
    DOWNLOADED,
    ERROR,
    IMAGE,
    STATUS,
    TEXT,
    choose,
    is_img2dataset,
    require_downloaded,
)
from djsandbox_ray.dataset.faults import (
    META_LEFT_OUT,
    Unusable,
    as_json,
    attempt,
    described,
    is_failing,
    shown,
)
from djsandbox_ray.dataset.files import SourceFile
from djsandbox_ray.dataset.source import Item, Remark, Sample, SourceConfig
from djsandbox_ray.errors import BadInput

_DAMAGE = (
    *(pa.ArrowException, ValueError, OverflowError, MemoryError),
    *(TypeError, LookupError, SystemError, RecursionError),
)
"""What Arrow raises on damaged files; a client of an object store has others."""
_FEATURES = b"huggingface"
"""Where the metadata of a schema say of what kind the columns are, as JSON."""


class ColumnsConfig(SourceConfig):
    """Which columns to read."""

    image: str = "image"
    """Column of encoded images, if it has not one of the usual names.

    It holds bytes, or a struct with a field ``bytes`` (Hugging Face); where ``bytes`` is null, the
    field ``path`` names a file beside the one with the column."""
    text: str = "text"
    """Column of captions, if it has not one of the usual names."""
    turns: str | None = None
    """Column of a conversation's turns, if it has not one of the usual names."""
    meta_columns: tuple[str, ...] = ()
    """Columns to keep as ``meta``. Where one is a ``ClassLabel`` of Hugging Face, an evaluator that
    is told no names takes those that the file's schema holds."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    image: str
    text: str
    meta: tuple[str, ...]
    found: bool
    """Whether image or text are not what the configuration says."""
    has_status: bool
    """Whether the file is img2dataset's."""

    @property
    def read(self) -> list[str]:
        """All of them, each once."""
        more = (STATUS, ERROR) if self.has_status else ()
        return list(dict.fromkeys([self.image, self.text, *self.meta, *more]))

    @property
    def said(self) -> str:
        """What a user is told of them."""
        by = " (written by img2dataset)" if self.has_status else ""
        return f"captions from the column {self.text!r}, images from {self.image!r}{by}"


def columns_of(file: SourceFile, names: list[str], config: ColumnsConfig) -> Columns:
    """Choose the columns of a file: those of the configuration, or of usual names.

    Raises:
        BadInput: names could mean two.
    """
    chosen = {
        what: named
        if what in config.model_fields_set or named in names
        else choose(what, names, None, file.name, key=what)
        for what, named in ((IMAGE, config.image), (TEXT, config.text))
    }
    found = (chosen[IMAGE], chosen[TEXT]) != (config.image, config.text)
    written = is_img2dataset(names)
    meta = tuple(dict.fromkeys([*config.meta_columns, *(DOWNLOADED if written else ())]))
    return Columns(chosen[IMAGE], chosen[TEXT], meta, found, written)


def check(name: str, schema: pa.Schema, columns: Columns) -> None:
    """Refuse columns that hold no images, no texts or nothing that could be meta data.

    Raises:
        BadInput: says which of a file, by its name.
    """
    for column in columns.read:
        times = schema.names.count(column)
        if times != 1:
            fault = f"has {times} columns" if times else "has no column"
            raise BadInput(f"{name} {fault} {column!r} (it has {', '.join(schema.names)})")
    image = schema.field(columns.image).type
    if types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not _is_binary(image):
        raise BadInput(
            f"{name}: the image column {columns.image!r} is of type {image}; "
            "bytes, or a struct with a field 'bytes', are needed"
        )
    text = schema.field(columns.text).type
    text = text.value_type if types.is_dictionary(text) else text
    if not (types.is_string(text) or types.is_large_string(text) or _is_binary(text)):
        raise BadInput(f"{name}: the text column {columns.text!r} is of type {text}, not string")
    for column in columns.meta:
        if _is_binary(schema.field(column).type):
            raise BadInput(
                f"{name}: the column {column!r} holds bytes, which cannot be kept as meta data"
            )


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
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


def is_damage(error: Exception) -> bool:
    """Tell damaged content from a failing disk or network, which must stop the run."""
    if isinstance(error, OSError):
        return error.errno is None and not isinstance(error, FileNotFoundError | PermissionError)
    if isinstance(error, BadInput) or is_failing(error):
        return False
    return isinstance(error, _DAMAGE)


def items_of(
    batch: pa.RecordBatch, file: SourceFile, position: int, chosen: Columns
) -> Iterator[list[Item]]:
    """Yield what each row of a batch is: a sample, or why it cannot be used.

    Args:
        batch: with the columns that were chosen.
        file: that holds it.
        position: of its first row in the file.
        chosen: by :func:`columns_of`.
    """
    images, texts = batch.column(chosen.image), batch.column(chosen.text)
    paths = pa.nulls(batch.num_rows)
    if types.is_struct(images.type):
        if images.type.get_field_index("path") >= 0:
            paths = pc.struct_field(images, "path")
        images = pc.struct_field(images, "bytes")
    if types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    texts = texts.cast(pa.large_binary())
    for index in range(batch.num_rows):
        source = f"{file.name}#{position + index}"
        image, path, text = images[index], paths[index], texts[index]
        meta = {name: batch.column(name)[index] for name in chosen.meta}
        status = {}
        if chosen.has_status:
            status = {name: batch.column(name)[index].as_py() for name in (STATUS, ERROR)}
        make = partial(_row, source, file, chosen, image, path, text, meta, status)
        yield attempt(source, make)


def _row(
    source: str,
    file: SourceFile,
    chosen: Columns,
    image: pa.Scalar,
    path: pa.Scalar,
    text: pa.Scalar,
    meta: dict[str, pa.Scalar],
    status: dict[str, Any],
) -> list[Item]:
    if status:
        require_downloaded(status)
    content = image.as_py()
    if content is None:
        content = _beside(file, chosen.image, path.as_py())
    if not text.is_valid:
        raise Unusable("bad_text", f"column {chosen.text!r} is null")
    try:
        caption = text.as_py().decode()
    except UnicodeDecodeError as error:
        raise Unusable("bad_text", f"column {chosen.text!r}: {error}") from None
    kept, faults = {}, []
    for name, value in meta.items():
        try:
            kept[name] = as_json(value.as_py())
        except MemoryError:
            raise
        except Exception as error:  # a date after the year 9999, bytes in a list, ...
            kept[name] = None
            faults.append(f"column {name!r}: {described(error)}")
    remarks: list[Item] = [Remark(source, META_LEFT_OUT, "; ".join(faults))] if faults else []
    return [Sample(content, caption, source, kept), *remarks]


def _beside(file: SourceFile, column: str, path: Any) -> bytes:
    if not isinstance(path, str) or not path:
        raise Unusable("missing_image", f"column {column!r} is null")
    try:
        return read_beside(file, path)
    except Unusable as error:
        said = f"column {column!r}: bytes is null and path is {shown(path)}: {error.detail}"
        raise Unusable(error.reason, said) from None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))
