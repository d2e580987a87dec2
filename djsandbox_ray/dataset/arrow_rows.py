"""Rows of Arrow tables, however they are stored, as samples; Hugging Face's kinds of columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

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
    VIDEO,
    What,
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
    kept_meta,
)
from djsandbox_ray.dataset.media import Content, Kind, Media
from djsandbox_ray.dataset.source import Item, Remark, Sample, SourceConfig
from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage.filesystems import refuses

_DAMAGE = (
    *(pa.ArrowException, ValueError, OverflowError, MemoryError),
    *(TypeError, LookupError, SystemError, RecursionError),
)
"""What Arrow raises on damaged files; a client of an object store has others."""
_MEDIA: dict[Content, Kind] = {"pairs": IMAGE, "videos": VIDEO}
"""What is read beside texts, by content."""
_HELD = ("bytes", "path")
"""Fields of Hugging Face's images and videos: one of them is filled."""
_FEATURES = b"huggingface"
"""Where the metadata of a schema say of what kind the columns are, as JSON."""


class ColumnsConfig(SourceConfig):
    """Which columns to read."""

    FOR_KIND: ClassVar[dict[Kind, frozenset[str]]] = {
        IMAGE: frozenset({"image"}),
        VIDEO: frozenset({"video"}),
    }

    image: str = "image"
    """Column of encoded images, if it has not one of the usual names.

    It holds bytes, or a struct with a field ``bytes`` (Hugging Face); where ``bytes`` is null, the
    field ``path`` names a file beside the one with the column. A column of texts holds such paths.
    """
    video: str = "video"
    """Column of whole video files, in the same forms; read for ``content: videos``."""
    text: str = "text"
    """Column of captions, if it has not one of the usual names."""
    turns: str | None = None
    """Column of a conversation's turns, if it has not one of the usual names."""
    meta_columns: tuple[str, ...] = ()
    """Columns to keep as ``meta``. Where one is a ``ClassLabel`` of Hugging Face, an evaluator that
    is told no names takes those that the file's schema holds."""

    def chosen(self, field: str) -> str | None:
        """Return the column that a user chose; None for the default, as one not named at all.

        The configuration that a run writes down names every field.
        """
        named: str = getattr(self, field)
        return None if named == type(self).model_fields[field].default else named


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    kind: Kind | None
    """Of the media; None where only texts are read."""
    media: str
    """The column of their files; empty where there are none."""
    text: str
    meta: tuple[str, ...]
    found: bool
    """Whether media or text are not what the configuration says."""
    has_status: bool
    """Whether the file is img2dataset's."""
    own: tuple[str, ...] = ()
    """The column of meta data, JSON objects, of a file that was materialised."""

    @property
    def read(self) -> list[str]:
        """All of them, each once."""
        more = (STATUS, ERROR) if self.has_status else ()
        media = [self.media] if self.media else []
        return list(dict.fromkeys([*media, self.text, *self.meta, *self.own, *more]))

    @property
    def said(self) -> str:
        """What a user is told of them."""
        by = " (written by img2dataset)" if self.has_status else ""
        if self.kind is None:
            return f"texts from the column {self.text!r}"
        return f"captions from the column {self.text!r}, {self.kind}s from {self.media!r}{by}"


def columns_of(file: SourceFile, names: list[str], config: ColumnsConfig) -> Columns:
    """Choose the columns of a file: those of the configuration, or of usual names.

    Raises:
        BadInput: names could mean two.
    """
    kind = _MEDIA.get(config.content)
    wanted: dict[What, str] = {TEXT: config.text}
    if kind is not None:
        wanted[kind] = config.image if kind == IMAGE else config.video
    chosen = {
        what: named
        if config.chosen(what) or named in names
        else choose(what, names, None, file.name, key=what)
        for what, named in wanted.items()
    }
    written = kind is not None and is_img2dataset(names)
    meta = tuple(dict.fromkeys([*config.meta_columns, *(DOWNLOADED if written else ())]))
    media = chosen[kind] if kind is not None else ""
    return Columns(kind, media, chosen[TEXT], meta, chosen != wanted, written)


def require_columns(name: str, schema: pa.Schema, columns: Iterable[str]) -> None:
    """Refuse columns that a file does not have, or has more than once.

    Raises:
        BadInput: says which of a file, by its name.
    """
    for column in columns:
        times = schema.names.count(column)
        if times != 1:
            fault = f"has {times} columns" if times else "has no column"
            raise BadInput(f"{name} {fault} {column!r} (it has {', '.join(schema.names)})")


def check(name: str, schema: pa.Schema, columns: Columns) -> None:
    """Refuse columns that hold no media, no texts or nothing that could be meta data.

    Raises:
        BadInput: says which of a file, by its name.
    """
    require_columns(name, schema, columns.read)
    if columns.kind is not None:
        files = _decoded(schema.field(columns.media).type)
        held = [files]
        if types.is_struct(files):
            held = [files.field(at).type for at in _HELD if files.get_field_index(at) >= 0]
        if not any(map(_may_be_held, held)):
            raise BadInput(
                f"{name}: the {columns.kind} column {columns.media!r} is of type {files}; "
                "bytes, paths, or a struct with a field 'bytes' or 'path', are needed"
            )
    text = _decoded(schema.field(columns.text).type)
    if not _may_be_held(text):
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
    """Tell damaged content from a failing disk or network, which must stop the run.

    So does a whole file that may not be read, where one medium would be set aside.
    """
    if refuses(error):
        return False
    if isinstance(error, OSError):
        return error.errno is None and not isinstance(error, FileNotFoundError)
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
    texts = _column(batch, chosen.text).cast(pa.large_binary())
    files, paths = _files(batch, chosen)
    for index in range(batch.num_rows):
        source = f"{file.name}#{position + index}"
        data, path, text = files[index], paths[index], texts[index]
        meta = {name: batch.column(name)[index] for name in chosen.meta}
        own = [batch.column(name)[index].as_py() for name in chosen.own]
        status = {}
        if chosen.has_status:
            status = {name: batch.column(name)[index].as_py() for name in (STATUS, ERROR)}
        make = partial(_row, source, file, chosen, data, path, text, meta, own, status)
        yield attempt(source, make)


def _files(batch: pa.RecordBatch, chosen: Columns) -> tuple[pa.Array, pa.Array]:
    """Return the media of a batch, and the paths of those that lie elsewhere."""
    nothing = pa.nulls(batch.num_rows)
    if chosen.kind is None:
        return nothing, nothing
    files = _column(batch, chosen.media)
    if _is_text(files.type):
        return nothing, files
    if not types.is_struct(files.type):
        return files, nothing
    data, paths = (
        pc.struct_field(files, at) if files.type.get_field_index(at) >= 0 else nothing
        for at in _HELD
    )
    return data, paths


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def _row(
    source: str,
    file: SourceFile,
    chosen: Columns,
    data: pa.Scalar,
    path: pa.Scalar,
    text: pa.Scalar,
    meta: dict[str, pa.Scalar],
    own: list[str],
    status: dict[str, Any],
) -> list[Item]:
    if status:
        require_downloaded(status)
    content = data.as_py()
    if content is None and chosen.kind is not None:
        content = _beside(file, chosen.kind, chosen.media, path.as_py())
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
    for text_of_own in own:
        written, more = kept_meta(source, partial(json.loads, text_of_own))
        kept, remarks = {**written, **kept}, [*remarks, *more][:1]
    if chosen.kind == IMAGE:
        return [Sample(content, caption, source, kept), *remarks]
    media = (Media(chosen.kind, content),) if chosen.kind is not None else ()
    return [Sample(b"", caption, source, kept, media), *remarks]


def _beside(file: SourceFile, kind: Kind, column: str, path: Any) -> bytes:
    if not isinstance(path, str) or not path:
        raise Unusable(f"missing_{kind}", f"column {column!r} is null")
    try:
        return read_beside(file, path, kind)
    except Unusable as error:
        said = f"column {column!r}: there are no bytes, and {error.detail}"
        raise Unusable(error.reason, said) from None


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if types.is_dictionary(kind) else kind


def _may_be_held(kind: pa.DataType) -> bool:
    """Say whether values may be texts or bytes; where all are null, their type may be so, too."""
    return _is_text(kind) or _is_binary(kind) or bool(types.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))
