"""CSV and TSV files with a column of captions and one of paths, as CC3M's and WebVid's lists.

WebVid's own list has no paths: who fetches its videos puts them in ``<page_dir>/<videoid>.mp4``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from pydantic import Field, field_validator

from djsandbox_ray.dataset.beside import medium_beside, placed
from djsandbox_ray.dataset.columns import IMAGE, TEXT, VIDEO, choose
from djsandbox_ray.dataset.faults import Unusable, attempt, kept_meta
from djsandbox_ray.dataset.media import Content, Kind, Media
from djsandbox_ray.dataset.source import Item, Sample, Shard, SourceConfig
from djsandbox_ray.dataset.source_files import FileSource, SourceFile
from djsandbox_ray.dataset.tables import Dialect, TextRow, csv_rows, header

_SHARD_ROWS = 1024
_TAB = ".tsv"
_MEDIA: dict[Content, Kind] = {"pairs": IMAGE, "videos": VIDEO}
_WEBVID = frozenset({"videoid", "name", "page_dir", "contentUrl"})
"""Columns by which WebVid's list is known."""
_WEBVID_TEXT, _WEBVID_PATH = "name", ("page_dir", "videoid")


class DelimitedConfig(SourceConfig):
    """Where the files are, and what their columns hold."""

    FOR_KIND: ClassVar[dict[Kind, frozenset[str]]] = {
        IMAGE: frozenset({"images", "image_column"}),
        VIDEO: frozenset({"videos", "video_column"}),
    }
    LOCATION: ClassVar[frozenset[str]] = frozenset({"path", "images", "videos"})

    path: str | tuple[str, ...]
    """A file, a folder or a glob, local or a URL; or a list of these."""
    images: str | None = None
    """The folder that paths are relative to; if left out, that of the file."""
    videos: str | None = None
    """The same for ``content: videos``."""
    text_column: str | None = None
    """If left out, the one with a usual name."""
    image_column: str | None = None
    """Of paths. If left out, the one with a usual name."""
    video_column: str | None = None
    """Of paths, for ``content: videos``. If left out, the one with a usual name; of WebVid's list
    its columns ``page_dir`` and ``videoid`` give them."""
    columns: tuple[str, ...] = ()
    """Names of the columns of files whose first line does not name them."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """If left out, a comma, and a tab in files that end in ``.tsv``."""
    quotes: bool = True
    """Whether a value in double quotes may hold separators and ends of lines."""

    @field_validator("columns")
    @classmethod
    def _different(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(columns)) < len(columns):
            raise ValueError("each column needs a name of its own")
        return columns

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str | None) -> str | None:
        if separator in ('"', "\n", "\r", "\0"):
            raise ValueError("no quote, end of line or zero byte can separate values")
        return separator


class DelimitedSource(FileSource):
    """A shard is a file, split into 1024 rows each; other columns become ``meta``.

    The stamp is that of the file with the rows: a medium changed in place goes unnoticed.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".csv", _TAB)
    Config = DelimitedConfig
    VERSION: ClassVar[int | None] = 2
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos", "texts")
    HAS_PLACES: ClassVar[bool] = True
    config: DelimitedConfig

    def shards(self) -> list[Shard]:
        """Look at the first line of each file; where rows begin is for tasks to find out."""
        tables = [_table(file, self.config) for file in self.files()]
        self._said = tuple(dict.fromkeys(table.said for table in tables))
        return [
            Shard(
                table.file.name,
                table.file.stamp,
                partial(_read_whole, table),
                split=partial(_split, table),
            )
            for table in tables
        ]


@dataclass(frozen=True)
class _Table:
    """A file, and how to read it."""

    file: SourceFile
    base: SourceFile
    """What paths are beside."""
    dialect: Dialect
    names: tuple[str, ...]
    has_header: bool
    text: str
    kind: Kind | None
    """Of the media; None where only texts are read."""
    places: tuple[str, ...]
    """The column of their paths, or WebVid's two that make one."""

    @property
    def said(self) -> str:
        if self.kind is None:
            return f"texts from the column {self.text!r}"
        places = " and ".join(map(repr, self.places))
        by = " (a list of WebVid's)" if self.places == _WEBVID_PATH else ""
        return f"captions from the column {self.text!r}, {self.kind}s from {places}{by}"

    def path(self, values: dict[str, str]) -> str:
        """Return where the medium of a row lies, relative to ``base``.

        Raises:
            Unusable: the row does not say.
        """
        for column in self.places:
            if not values[column]:
                raise Unusable(f"missing_{self.kind}", f"column {column!r} is empty")
        path = "/".join(values[column] for column in self.places)
        return f"{path}.mp4" if self.places == _WEBVID_PATH else path

    def rows(self, offset: int = 0, line: int = 0) -> Iterator[TextRow]:
        rows = csv_rows(self.file, self.dialect, list(self.names), offset, line)
        if offset == 0 and self.has_header:
            next(rows, None)
        return rows


def _table(file: SourceFile, config: DelimitedConfig) -> _Table:
    separator = config.separator or ("\t" if file.path.lower().endswith(_TAB) else ",")
    dialect = Dialect(separator, config.quotes)
    names = list(config.columns) or header(file, dialect)
    kind = _MEDIA.get(config.content)
    text, folder = config.text_column, None
    places: tuple[str, ...] = ()
    if kind is not None:
        asked = config.image_column if kind == IMAGE else config.video_column
        folder = config.images if kind == IMAGE else config.videos
        if kind == VIDEO and asked is None and set(names) >= _WEBVID:
            text, places = text or _WEBVID_TEXT, _WEBVID_PATH
        else:
            places = (choose(kind, names, asked, file.name),)
    return _Table(
        file,
        placed(file, folder, f"{kind}s") if folder is not None else file,
        dialect,
        tuple(names),
        not config.columns,
        choose(TEXT, names, text, file.name),
        kind,
        places,
    )


def _split(table: _Table) -> list[Shard]:
    """Read through a file for the byte offsets of its rows."""
    return [
        Shard(
            f"{table.file.name}#{line}",
            table.file.stamp,
            partial(_read, table, offset, line, rows),
        )
        for offset, line, rows in _chunks(table)
    ]


def _chunks(table: _Table) -> Iterator[tuple[int, int, int]]:
    """Yield (byte offset, first line, number of rows) of each shard; the first has the header."""
    offset = line = count = 0
    end = after = 0
    for row in table.rows():
        end, after, count = row.end, row.line + row.lines, count + 1
        if count == _SHARD_ROWS:
            yield offset, line, count
            offset, line, count = end, after, 0
    if count:
        yield offset, line, count


def _read_whole(table: _Table) -> Iterator[Item]:
    for shard in _split(table):
        yield from shard.read()


def _read(table: _Table, offset: int, line: int, count: int) -> Iterator[Item]:
    for _, row in zip(range(count), table.rows(offset, line), strict=False):
        source = f"{table.file.name}#{row.line}"
        yield from attempt(source, partial(_items, table, source, row))


def _items(table: _Table, source: str, row: TextRow) -> list[Item]:
    if row.fault:
        raise Unusable("bad_row", row.fault, row.lost)
    media: tuple[Media, ...] = ()
    if table.kind is not None:
        media = (medium_beside(table.base, table.path(row.values), table.kind),)
    text = row.values[table.text]
    told = {table.text, *(table.places if len(table.places) == 1 else ())}
    rest = {name: value for name, value in row.values.items() if name not in told}
    meta, remarks = kept_meta(source, lambda: rest)
    if table.kind == IMAGE:
        return [Sample(media[0].data, text, source, meta), *remarks]
    return [Sample(b"", text, source, meta, media), *remarks]
