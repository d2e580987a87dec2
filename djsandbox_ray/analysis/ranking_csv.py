"""``ranking.csv``: the ranking as text, one line per pool, best first."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import PoolKind, RankingRow

_METRIC = "metric:"


def _text_or_none(text: str) -> str | None:
    return text or None


_READ: dict[str, Callable[[str], object]] = {
    "rank": int,
    "pool": str,
    "kind": PoolKind,
    "statistic": _text_or_none,
    "bucket": _text_or_none,
    "change": float,
    "std": float,
    "low": float,
    "high": float,
    "p": float,
    "q": float,
    "verdict": str,
    "seeds": int,
    "failed": int,
    "expected": _text_or_none,
}
"""The fixed columns, fields of RankingRow in their order, and how each is read."""


def write_csv(rows: Sequence[RankingRow]) -> str:
    """Write the rows as CSV (RFC 4180, lines end in a line feed).

    The columns are the fields of :class:`RankingRow`, then ``metric:<name>`` for every metric.
    Numbers have all their digits; NaN is ``nan``; None and a metric that a row lacks are empty.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_READ, *(_METRIC + name for name in names)])
    for row in rows:
        fields = [getattr(row, column) for column in _READ]
        metrics = [row.metrics.get(name) for name in names]
        writer.writerow([_cell(value) for value in (*fields, *metrics)])
    return text.getvalue()


def read_csv(text: str) -> list[RankingRow]:
    """Read what :func:`write_csv` wrote.

    Raises:
        BadInput: other columns, or a cell that cannot be read; says which.
    """
    lines = csv.reader(io.StringIO(text, newline=""))
    header = next(lines, [])
    fixed, extra = header[: len(_READ)], header[len(_READ) :]
    if fixed != list(_READ) or not all(name.startswith(_METRIC) for name in extra):
        raise BadInput(
            f"not a ranking: columns {header}; needed are {list(_READ)}, then {_METRIC}<name>"
        )
    return [_row(cells, extra, lines.line_num) for cells in lines]


def _row(cells: list[str], extra: list[str], line: int) -> RankingRow:
    if len(cells) != len(_READ) + len(extra):
        raise BadInput(
            f"ranking, line {line}: {len(cells)} cells; {len(_READ) + len(extra)} are needed"
        )

    def read(column: str, cell: str, how: Callable[[str], object]) -> object:
        try:
            return how(cell)
        except ValueError as error:
            raise BadInput(f"ranking, line {line}, column {column!r}: {error}") from error

    fields = {c: read(c, cell, how) for (c, how), cell in zip(_READ.items(), cells, strict=False)}
    fields["metrics"] = {
        column.removeprefix(_METRIC): read(column, cell, float)
        for column, cell in zip(extra, cells[len(_READ) :], strict=True)
        if cell
    }
    return RankingRow(**fields)  # type: ignore[arg-type]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
