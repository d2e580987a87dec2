"""What a page is made of: tables, pictures, samples, lists and texts, in chapters.

``report`` shows them.
"""

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
    data: bytes
    kind: str = "image/png"
    """Its media type."""

    @property
    def source(self) -> str:
        """The figure as an address that holds all of it."""
        return data_address(self.data, self.kind)


@dataclass(frozen=True)
class Pictures:
    """Small figures side by side, as many as there is room for."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Card:
    """A sample: its picture, or why there is none, and what belongs to it."""

    caption: str
    note: str = ""
    """Such as its value of a statistic."""
    source: str = ""
    """Its picture, as an address that holds all of it; empty for none."""
    instead: str = ""
    """What stands in place of a picture."""


@dataclass(frozen=True)
class Gallery:
    """Samples in named groups, which a reader may fold away."""

    title: str
    groups: Sequence[tuple[str, Sequence[Card]]]
    picture: Picture | None = None
    """Shown before them."""
    is_open: bool = True


@dataclass(frozen=True)
class Listing:
    """A file, word for word."""

    title: str
    text: str
    is_long: bool = False
    """Whether it is folded away at first."""


@dataclass(frozen=True)
class Sentences:
    """A list of sentences."""

    title: str
    lines: Sequence[str]


Block = ReportTable | Picture | Pictures | Gallery | Listing | Sentences


@dataclass(frozen=True)
class Chapter:
    """What belongs together on the page, with what to say of it first."""

    title: str
    lines: Sequence[str]
    blocks: Sequence[Block]
    headline: str = ""
    """What the page says of it at its very beginning; empty for nothing."""


def data_address(data: bytes, kind: str) -> str:
    """Return an address that holds a file of a media type: nothing is loaded from elsewhere."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
