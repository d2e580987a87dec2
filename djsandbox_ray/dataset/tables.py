"""Rows of text files, CSV and JSON Lines, one by one: a bad row is told, and the next is read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from djsandbox_ray.dataset.faults import described, shown
from djsandbox_ray.dataset.json_files import Decoder
from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.errors import BadInput

_LONGEST = 1 << 20
"""Characters of one value; a quote that is never closed is found out after so many."""


@dataclass(frozen=True)
class TextRow:
    """A row of a file."""

    line: int
    """Its first, from 0."""
    end: int
    """Bytes of the file up to its end."""
    values: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    """Why it cannot be used; empty if it can."""
    lines: int = 1
    lost: int = 1
    """How many rows it stands for where it cannot be used."""


@dataclass(frozen=True)
class Dialect:
    """How the values of a row are told apart."""

    separator: str
    quotes: bool = True
    """Whether a value in double quotes may hold separators and ends of lines."""
    longest: int | None = None
    """Characters of one value, where it may hold more than a text: an image."""

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Return a reader of lines.

        It is strict: a quote that is closed in the midst of a value, or never, is an error. Else
        one quote too much could make a value of all the rows up to the next one.
        """
        csv.field_size_limit(self.longest or _LONGEST)
        if self.quotes:
            return csv.reader(lines, delimiter=self.separator, strict=True)
        return csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE)


class _Lines(Iterator[str]):
    """The lines of a file, with what was read of it.

    Bytes that are no Unicode stay as they are, by Python's ``surrogateescape``: the text is
    rejected later, and its row named.
    """

    def __init__(self, handle: IO[bytes], offset: int) -> None:
        handle.seek(offset)
        self._handle, self._first = handle, offset == 0
        self.read, self.offset = 0, offset

    def __next__(self) -> str:
        content = self._handle.readline()
        if not content:
            raise StopIteration
        self.read, self.offset = self.read + 1, self.offset + len(content)
        if self._first:
            content, self._first = content.removeprefix(b"\xef\xbb\xbf"), False
        return content.decode(errors="surrogateescape")


def header(file: SourceFile, dialect: Dialect) -> list[str]:
    """Return the names in the first row of a file.

    Raises:
        BadInput: there is none, or a name stands there twice.
    """
    with file.open() as handle:
        try:
            names = next(dialect.reader(_Lines(handle, 0)), [])
        except csv.Error as error:
            raise BadInput(f"{file.name}: its first line names no columns: {error}") from None
    if not names:
        raise BadInput(f"{file.name} is empty: its first line is to name the columns")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"{file.name}: its first line names {', '.join(twice)} twice")
    return [name.encode(errors="backslashreplace").decode() for name in names]


def csv_rows(
    file: SourceFile, dialect: Dialect, names: list[str], offset: int = 0, line: int = 0
) -> Iterator[TextRow]:
    """Yield the rows of a file from a place on; blank lines are none.

    Args:
        file: to read.
        dialect: of it.
        names: of its columns.
        offset: in bytes, where a row begins.
        line: the number of that line.
    """
    with file.open() as handle:
        lines = _Lines(handle, offset)
        reader = dialect.reader(lines)
        while True:
            first, values, fault = lines.read, [], ""
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = f"{error}; a quote may not be closed, or too early"
            if not values and not fault:
                continue
            if not fault and len(values) != len(names):
                fault = f"{len(values)} values, where there are {len(names)} columns"
            read = lines.read - first
            kept = {} if fault else dict(zip(names, values, strict=True))
            lost = max(read, _rows_in(len(values), len(names)))
            yield TextRow(line + first, lines.offset, kept, fault, read, lost)


def _rows_in(values: int, columns: int) -> int:
    """Return of how many rows a row is made, if the ends of their lines are damaged.

    Where an end is missing, the last value of a row and the first of the next are one. Of two
    columns it cannot be told from a separator in a value.
    """
    return max(1, (values - 1) // (columns - 1)) if columns > 2 else 1


def json_rows(file: SourceFile) -> Iterator[TextRow]:
    """Yield the objects of a file of JSON Lines; blank lines are none."""
    offset, decoder = 0, Decoder()
    with file.open() as handle:
        for number, content in enumerate(handle):
            offset += len(content)
            if content.isspace():
                continue
            try:
                values = decoder.decode(content.decode("utf-8-sig"))
                if not isinstance(values, dict):
                    raise ValueError(f"an object is needed, not {type(values).__name__}")
                if twice := decoder.twice:
                    raise ValueError(f"keys that stand twice: {shown(', '.join(twice))}")
            except (ValueError, RecursionError) as error:
                yield TextRow(number, offset, fault=described(error))
            else:
                yield TextRow(number, offset, values)
