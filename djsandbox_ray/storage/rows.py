"""Records as CSV and back: one column per field, read by the type that the record declares."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import fields
from enum import StrEnum
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from djsandbox_ray.errors import BadInput

Row = TypeVar("Row")
Reader = Callable[[str], Any]

_PREFIX = ":"
"""Between the singular of a field that holds a number per name and the name: ``metric:recall``."""


def to_csv(kind: type[Row], rows: Sequence[Row]) -> str:
    """Write records as CSV (RFC 4180, lines end in a line feed).

    The columns are the fields of the dataclass; a field that holds a number per name
    (``metrics``) comes last, as one column ``metric:<name>`` per name. Numbers have all their
    digits; NaN is ``nan``; truth is yes or no; None and a number that a record lacks are empty.

    Args:
        kind: the dataclass; its fields are texts, numbers, truths, enums, one of these or None,
            and at most one ``dict[str, float]`` whose name ends in "s".
        rows: its instances.
    """
    fixed, by_name = _columns(kind)
    names = dict.fromkeys(n for row in rows for n in getattr(row, by_name)) if by_name else {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fixed, *(by_name[:-1] + _PREFIX + name for name in names)])
    for row in rows:
        cells = [getattr(row, name) for name in fixed]
        cells += [getattr(row, by_name).get(name) for name in names]
        writer.writerow([_cell(value) for value in cells])
    return text.getvalue()


def from_csv(kind: type[Row], text: str, what: str = "table") -> list[Row]:
    """Read what :func:`to_csv` wrote.

    Args:
        kind: the dataclass.
        text: the CSV.
        what: names the table in messages.

    Raises:
        BadInput: other columns, or a cell that cannot be read; says which.
    """
    fixed, by_name = _columns(kind)
    prefix = by_name[:-1] + _PREFIX
    lines = csv.reader(io.StringIO(text, newline=""))
    header = next(lines, [])
    extra = header[len(fixed) :]
    others = not by_name or not all(name.startswith(prefix) for name in extra)
    if header[: len(fixed)] != list(fixed) or (extra and others):
        then = f", then {prefix}<name>" if by_name else ""
        raise BadInput(f"not a {what}: columns {header}; needed are {list(fixed)}{then}")
    readers = {**fixed, **dict.fromkeys(extra, float)}
    rows = []
    for cells in lines:
        where = f"{what}, line {lines.line_num}"
        values = _read(where, header, readers, cells)
        if by_name:
            found = ((name.removeprefix(prefix), values.pop(name, None)) for name in extra)
            values[by_name] = {name: value for name, value in found if value is not None}
        rows.append(kind(**values))
    return rows


def columns_of(kind: type[Any]) -> list[str]:
    """Return what a table of such records holds, beside the numbers per name."""
    return list(_columns(kind)[0])


def _read(
    where: str, header: Sequence[str], readers: dict[str, Reader], cells: Sequence[str]
) -> dict[str, Any]:
    """Read the cells of a line; a number per name that is not there is left out."""
    if len(cells) != len(header):
        raise BadInput(f"{where}: {len(cells)} cells; {len(header)} are needed")
    values = {}
    for name, cell in zip(header, cells, strict=True):
        if not cell and _PREFIX in name:
            continue
        try:
            values[name] = readers[name](cell)
        except ValueError as error:
            raise BadInput(f"{where}, column {name!r}: {error}") from error
    return values


def _columns(kind: type[Any]) -> tuple[dict[str, Reader], str]:
    """Return how to read each plain field, and the field that holds a number per name or ''."""
    hints = get_type_hints(kind)
    by_name = [field.name for field in fields(kind) if hints[field.name] == dict[str, float]]
    fixed = {
        field.name: _reader(hints[field.name])
        for field in fields(kind)
        if field.name not in by_name
    }
    return fixed, by_name[0] if by_name else ""


def _reader(hint: Any) -> Reader:
    options = get_args(hint) or (hint,)
    read = next(option for option in options if option is not NoneType)
    if read is bool:
        return _truth
    if not (read in (int, float, str) or issubclass(read, StrEnum)):
        raise TypeError(f"{hint} has no form in CSV")
    if NoneType not in options:
        return read  # type: ignore[no-any-return]
    return lambda cell: read(cell) if cell else None


def _truth(cell: str) -> bool:
    if cell not in ("yes", "no"):
        raise ValueError(f"yes or no is needed, not {cell!r}")
    return cell == "yes"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(float(value)) if isinstance(value, float) else str(value)
