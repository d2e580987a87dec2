"""What the page is made of beside the ranking: tables, pictures, lists and texts, in chapters.

Every text is escaped here, where it becomes HTML, and nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLOURED = ("better", "worse", "undecided", "stopped", "failed", "helps", "hurts")
"""Words that have a colour of their own in a table."""

_SHORT = 28
"""Cells of up to as many characters stay on one line, whatever stands beside them."""


@dataclass(frozen=True)
class ReportTable:
    """A table of the page."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure."""

    title: str
    png: bytes


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


def chapter_html(chapter: Chapter, anchor: str) -> str:
    """Return a chapter; ``anchor`` is what links point to.

    Raises:
        ValueError: a row of a table is not as long as its header.
    """
    parts = [f'<h2 id="{escape(anchor)}">{escape(chapter.title)}</h2>']
    parts += [f"<p>{escape(line)}</p>" for line in chapter.lines]
    return "\n".join([*parts, *map(_block_html, chapter.blocks)])


def table_html(table: ReportTable, heading: str = "h2") -> str:
    """Return a table under its title.

    Raises:
        ValueError: a row is not as long as the header.
    """
    lines = []
    for row in table.rows:
        if len(row) != len(table.header):
            raise ValueError(f"table {table.title!r}: {row!r} is not as long as {table.header!r}")
        lines.append("".join(cell_html(cell, _css(cell)) for cell in row))
    names = table.header if any(table.header) else ()
    head = "".join(cell_html(name, _css(name), tag="th") for name in names)
    return f"<{heading}>{escape(table.title)}</{heading}>\n{grid_html(head, lines)}"


def picture_html(picture: Picture) -> str:
    """Return a figure that is part of the page itself."""
    data = base64.b64encode(picture.png).decode()
    return f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'


def cell_html(text: str, css: str = "", tag: str = "td") -> str:
    """Return one cell of a table."""
    name = f' class="{escape(css)}"' if css else ""
    return f"<{tag}{name}>{escape(text)}</{tag}>"


def grid_html(head: str, lines: Sequence[str]) -> str:
    """Return a table of rows of cells."""
    rows = "\n".join(f"<tr>{line}</tr>" for line in (head, *lines))
    return f'<div class="wide"><table>{rows}</table></div>'


def _css(cell: str) -> str:
    if cell in _COLOURED:
        return cell
    return "short" if len(cell) <= _SHORT else ""


def _block_html(block: Block) -> str:
    if isinstance(block, ReportTable):
        return table_html(block, "h3")
    if isinstance(block, Picture):
        return picture_html(block)
    heading = f"<h3>{escape(block.title)}</h3>\n"
    if isinstance(block, Listing):
        return f"{heading}<pre>{escape(block.text)}</pre>"
    items = "\n".join(f"<li>{escape(line)}</li>" for line in block.lines)
    return f"{heading}<ul>{items}</ul>"
