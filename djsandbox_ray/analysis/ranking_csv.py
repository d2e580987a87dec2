"""``ranking.csv``: the ranking as text, one line per pool, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from djsandbox_ray.analysis.rows_csv import read_rows, write_rows
from djsandbox_ray.records import RankingRow

COLUMNS = tuple(field.name for field in fields(RankingRow))
"""What a table holds, beside the numbers per metric: one of other columns cannot be read."""


def write_csv(rows: Sequence[RankingRow]) -> str:
    """Write the fields of :class:`RankingRow`, then ``metric:<name>`` for every metric."""
    return write_rows(RankingRow, rows)


def read_csv(text: str) -> list[RankingRow]:
    """Read what :func:`write_csv` wrote.

    Raises:
        BadInput: other columns, or a cell that cannot be read; says which.
    """
    return read_rows(RankingRow, text, "ranking")
