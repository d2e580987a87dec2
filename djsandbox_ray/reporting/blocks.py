"""What a page is made of: tables, pictures, lists and texts, in chapters; ``report`` shows them."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ReportTable:
    """A table of the page, or of the terminal.

    Raises:
        ValueError: a row is not as long as the header.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] = ()
    """Places of the columns that are set flush right."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"table {self.title!r}: {row!r} is not as long as {self.header!r}")


@dataclass(frozen=True)
class Picture:
    """A figure."""

    title: str
    png: bytes

    @property
    def source(self) -> str:
        """The figure as an address that holds all of it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Listing:
    """A file, word for word."""

    title: str
    text: str


@dataclass(frozen=True)
class Sentences:
    """A list of sentences."""

    title: str
    lines: Sequence[str]


Block = ReportTable | Picture | Listing | Sentences


@dataclass(frozen=True)
class Chapter:
    """What belongs together on the page, with what to say of it first."""

    title: str
    lines: Sequence[str]
    blocks: Sequence[Block]
    headline: str = ""
    """What the page says of it at its very beginning; empty for nothing."""
