"""Rows of Arrow tables that are read as objects are: conversations and documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyarrow import types

from djsandbox_ray.dataset.arrow_rows import (
    Columns,
    ColumnsConfig,
    check,
    columns_of,
    items_of,
    require_columns,
)
from djsandbox_ray.dataset.conversation import QUERY, RESPONSE, TURN_KEYS, UNNAMED
from djsandbox_ray.dataset.entries import Keys, read_entry
from djsandbox_ray.dataset.faults import attempt, kept_meta
from djsandbox_ray.dataset.json_files import Items
from djsandbox_ray.dataset.source import Item
from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.errors import BadInput


@dataclass(frozen=True)
class ObjectColumns:
    """Which columns of a file make an object of each row."""

    items: Items
    held: tuple[str, ...]
    """Those that ``items`` reads."""
    meta: tuple[str, ...]
    """Those that are kept."""
    said: str
    """What a user is told of them."""
    found: bool = True
    """Whether they are not what the configuration says."""
    text: str = ""
    """There is no column that has one text for each row."""

    @property
    def read(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.held, *self.meta]))

    def check(self, name: str, schema: pa.Schema) -> None:
        """Refuse columns that are not there, and bytes as meta data.

        Raises:
            BadInput: says which of a file, by its name.
        """
        require_columns(name, schema, self.read)
        for column in self.meta:
            kind = schema.field(column).type
            if types.is_binary(kind) or types.is_large_binary(kind):
                raise BadInput(
                    f"{name}: the column {column!r} holds bytes, which cannot be kept as meta data"
                )

    def items_of(
        self, batch: pa.RecordBatch, file: SourceFile, position: int
    ) -> Iterator[list[Item]]:
        """Yield what each row of a batch is: a sample, or why it cannot be used.

        Args:
            batch: with the columns of :attr:`read`.
            file: that holds it.
            position: of its first row in the file.
        """
        for index in range(batch.num_rows):
            source = f"{file.name}#{position + index}"
            yield attempt(source, partial(self._row, source, batch, index))

    def _row(self, source: str, batch: pa.RecordBatch, index: int) -> list[Item]:
        def values(names: tuple[str, ...]) -> dict[str, object]:
            return {name: batch.column(name)[index].as_py() for name in names}

        meta, remarks = kept_meta(source, lambda: values(self.meta))
        return [*self.items(source, {**meta, **values(self.held)}), *remarks]


def chosen_columns(
    file: SourceFile, names: list[str], config: ColumnsConfig
) -> Columns | ObjectColumns:
    """Choose the columns of a file: those of the configuration, or of usual names.

    Raises:
        BadInput: there are none, or names could mean two.
    """
    if config.content != "conversations":
        return columns_of(file, names, config)
    turns = _turn_columns(file, names, config.turns)
    image, video = config.chosen("image"), config.chosen("video")
    images = (image,) if image else _media_columns(file, names, ("image", "images"))
    videos = (video,) if video else _media_columns(file, names, ("video", "videos"))
    keys = Keys(images=images, videos=videos, turns=config.turns)
    held = (*turns, *images, *videos)
    said = f"conversations from the columns {', '.join(map(repr, held))}"
    items = partial(read_entry, file, keys, config.content)
    return ObjectColumns(items, held, config.meta_columns, said)


def check_columns(name: str, schema: pa.Schema, columns: Columns | ObjectColumns) -> None:
    """Refuse columns that are not there, or do not hold what they are read for.

    Raises:
        BadInput: says which of a file, by its name.
    """
    if isinstance(columns, ObjectColumns):
        columns.check(name, schema)
    else:
        check(name, schema, columns)


def rows_of(
    batch: pa.RecordBatch, file: SourceFile, position: int, columns: Columns | ObjectColumns
) -> Iterator[list[Item]]:
    """Yield what each row of a batch is; see :meth:`ObjectColumns.items_of`."""
    if isinstance(columns, ObjectColumns):
        return columns.items_of(batch, file, position)
    return items_of(batch, file, position, columns)


def _turn_columns(file: SourceFile, names: list[str], turns: str | None) -> tuple[str, ...]:
    """Return the columns that hold the turns: one, or Data-Juicer's two or three.

    Args:
        file: for messages.
        names: of its columns.
        turns: which one, if the user said so.

    Raises:
        BadInput: there are none, or names could mean two.
    """
    if turns is not None:
        return (turns,)
    found = [name for name in TURN_KEYS if name in names]
    if len(found) > 1:
        said = f"{' and '.join(map(repr, found))} may hold the turns: turns chooses one"
        raise BadInput(f"{file.name}: {said}")
    if found:
        return tuple(found)
    if {QUERY, RESPONSE} <= set(names):
        return tuple(name for name in UNNAMED if name in names)
    raise BadInput(
        f"{file.name} has no column of turns: none of {', '.join(TURN_KEYS)}, {QUERY} with "
        f"{RESPONSE} (it has {', '.join(names) or 'none'}); turns names one"
    )


def _media_columns(file: SourceFile, names: list[str], usual: tuple[str, ...]) -> tuple[str, ...]:
    """Return the column that holds images, or videos, if there is one.

    Raises:
        BadInput: there are several of a usual name.
    """
    found = tuple(name for name in usual if name in names)
    if len(found) > 1:
        said = f"{' and '.join(map(repr, found))} may hold the media of a conversation"
        raise BadInput(f"{file.name}: {said}: one of them is needed, or none")
    return found
