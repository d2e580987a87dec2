"""Folders of images or videos: captions from a file beside them, labels from names of folders.

As Hugging Face's ``imagefolder`` and ``videofolder``: ``metadata.csv`` or ``metadata.jsonl`` names
the media by ``file_name``, relative to itself. Without one, ``x.txt`` beside ``x.jpg`` is its
caption.
"""

from __future__ import annotations

import hashlib
import posixpath
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, ClassVar

from pydantic import field_validator

from djsandbox_ray.dataset.beside import joined, refuse_large
from djsandbox_ray.dataset.columns import TEXT, choose
from djsandbox_ray.dataset.debris import PassedOver
from djsandbox_ray.dataset.faults import Unusable, attempt, kept_meta, shown
from djsandbox_ray.dataset.media import VIDEO_EXTENSIONS, Content, Kind, Media, Place
from djsandbox_ray.dataset.source import Item, Rejection, Sample, Shard, SourceConfig
from djsandbox_ray.dataset.source_files import FileSource, SourceFile, uri_of
from djsandbox_ray.dataset.tables import Dialect, TextRow, csv_rows, header, json_rows
from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import canonical

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
VIDEOS = tuple(f".{extension}" for extension in VIDEO_EXTENSIONS)
METADATA = ("metadata.csv", "metadata.jsonl")
KEY, LABEL = "file_name", "label"
"""The first as Hugging Face calls it; the second is where the name of the folder is kept."""
_LABEL = "{label}"
_SHARD_MEDIA = 1024
_MOST_CAPTION = 64 << 20
"""Bytes of the text beside a medium."""
_CSV = Dialect(",")
_ENDINGS: dict[Kind, tuple[str, ...]] = {"image": IMAGES, "video": VIDEOS}


class FolderConfig(SourceConfig):
    """Where the media are and where their captions come from."""

    path: str | tuple[str, ...]
    """A folder or a glob, local or a URL; or a list of these."""
    text_column: str | None = None
    """Of ``metadata.csv`` or ``metadata.jsonl``; if left out, the one with a usual name."""
    caption: str | None = None
    """The caption of a medium that has none, such as ``a photo of a {label}``."""

    @property
    def kind(self) -> Kind:
        """What the media are."""
        return "video" if self.content == "videos" else "image"

    @field_validator("caption")
    @classmethod
    def _filled(cls, caption: str | None) -> str | None:
        if caption is not None and not caption.strip():
            raise ValueError("a text is needed, such as 'a photo of a {label}'")
        return caption


class FolderSource(FileSource):
    """A shard is 1024 images or videos that follow each other.

    Those that lie in several folders have the last folder's name as ``meta["label"]``.
    """

    Config = FolderConfig
    VERSION: ClassVar[int | None] = 2
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos")
    HAS_PLACES: ClassVar[bool] = True
    config: FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        super().__init__(config)
        self._unused: list[str] = []
        """Texts that belong to no medium."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the media, and of what there may be beside them."""
        return (*_ENDINGS[self.config.kind], ".txt", *METADATA)

    def shards(self) -> list[Shard]:
        """List the files and look at the columns of those with captions."""
        kind, path = self.config.kind, self.config.path
        files = sorted(self.files(), key=lambda file: file.path)
        media = [file for file in files if file.path.lower().endswith(_ENDINGS[kind])]
        if not media:
            raise BadInput(f"path: {path!r} holds no {kind}s ({', '.join(_ENDINGS[kind])})")
        tables = [file for file in files if posixpath.basename(file.path).lower() in METADATA]
        texts = {_stem(file.path): file for file in files if file.path.lower().endswith(".txt")}
        has_medium = {_stem(file.path) for file in media}
        self._unused = [file.name for stem, file in texts.items() if stem not in has_medium]
        captions = _tables(tables, self.config.text_column, kind)
        self._said = tuple(table.said for table in captions)
        labelled = len({posixpath.dirname(file.path) for file in media}) > 1
        if not labelled and _LABEL in (self.config.caption or ""):
            raise BadInput(
                f"caption: {{label}} stands for the name of the {kind}'s folder, and all {kind}s "
                f"of path {path!r} lie in one"
            )
        starts = range(0, len(media), _SHARD_MEDIA)
        parts = [media[start : start + _SHARD_MEDIA] for start in starts]
        firsts = ["", *(part[0].path for part in parts[1:])]
        return [
            _part(
                _Part(
                    kind,
                    tuple(part),
                    {stem: texts[stem] for stem in map(_stem_of, part) if stem in texts},
                    captions,
                    (first, after),
                    labelled,
                    self.config.caption,
                )
            )
            for part, first, after in zip(parts, firsts, [*firsts[1:], None], strict=True)
        ]

    def passed_over(self) -> PassedOver:
        """Return what is not read, texts that belong to no medium among it."""
        passed, what = super().passed_over(), f"text beside no {self.config.kind}"
        return {**passed, what: self._unused} if self._unused else passed


@dataclass(frozen=True)
class _Table:
    """A file with captions of media below its folder."""

    file: SourceFile
    text: str
    kind: Kind
    names: tuple[str, ...] = ()
    """Of the columns; only CSV has the same in all rows."""

    @property
    def said(self) -> str:
        return f"{self.file.name}: captions from {self.text!r}, {self.kind}s by {KEY!r}"

    @property
    def folder(self) -> str:
        return posixpath.dirname(self.file.path)

    def rows(self) -> Iterator[TextRow]:
        if not self.names:
            yield from json_rows(self.file)
            return
        rows = csv_rows(self.file, _CSV, list(self.names))
        next(rows, None)  # the names
        yield from rows


def _tables(files: list[SourceFile], asked: str | None, kind: Kind) -> tuple[_Table, ...]:
    found: dict[str, _Table] = {}
    for file in files:
        is_csv = file.path.lower().endswith(".csv")
        if is_csv:
            names = header(file, _CSV)
        else:
            first = next((row for row in json_rows(file) if not row.fault), None)
            names = list(first.values) if first else []
        if KEY not in names:
            raise BadInput(
                f"{file.name} has no column {KEY!r}, which names the {kind}s "
                f"(it has {', '.join(names) or 'none'})"
            )
        text = choose(TEXT, names, asked, file.name)
        table = _Table(file, text, kind, tuple(names) if is_csv else ())
        if (other := found.setdefault(table.folder, table)) is not table:
            raise BadInput(f"{other.file.name} and {file.name} lie in one folder: leave one there")
    return tuple(found.values())


@dataclass(frozen=True)
class _Part:
    """What a shard is made of."""

    kind: Kind
    media: tuple[SourceFile, ...]
    texts: dict[str, SourceFile]
    """By path without its ending."""
    tables: tuple[_Table, ...]
    bounds: tuple[str, str | None]
    """Paths from the first up to the second: what rows name between them is for this shard."""
    labelled: bool
    caption: str | None

    def stamp(self) -> str:
        files = (*self.media, *self.texts.values(), *(table.file for table in self.tables))
        return hashlib.sha256(canonical([[file.name, file.stamp] for file in files])).hexdigest()


def _part(part: _Part) -> Shard:
    # With a metadata file nobody knows, unread, how many rows name no medium, or one twice.
    rows = None if part.tables else len(part.media)
    return Shard(part.media[0].name, part.stamp(), partial(_read, part), rows)


def _read(part: _Part) -> Iterator[Item]:
    rows, faults = _rows(part)
    yield from faults
    for file in part.media:
        named = rows.pop(file.path, None)
        for source, text, meta in named or [(file.name, None, {})]:
            yield from attempt(source, partial(_sample, part, file, source, text, meta))
    for path, named in rows.items():
        for source, _, _ in named:
            said = f"{KEY} names {shown(posixpath.basename(path))}: there is no such {part.kind}"
            yield Rejection(source, f"missing_{part.kind}", said)


_Named = tuple[str, Any, dict[str, Any]]
"""A row for a medium: source, text, and its other columns."""


def _rows(part: _Part) -> tuple[dict[str, list[_Named]], list[Item]]:
    """Return the rows that are for this shard, by the path of their medium.

    Rows that name no path at all are told by the first shard.
    """
    read = _all_rows(part.tables)
    first, after = part.bounds
    start = bisect_left(read.places, (first, 0))
    stop = len(read.places) if after is None else bisect_left(read.places, (after, 0))
    here = sorted(read.places[start:stop], key=itemgetter(1))
    return {path: read.named[path] for path, _ in here}, [] if first else read.faults


@dataclass(frozen=True)
class _Rows:
    """What stands in some tables, of which nothing may be changed."""

    named: dict[str, list[_Named]]
    """By the path of an image."""
    places: list[tuple[str, int]]
    """These paths, sorted, each with its place in the order of the rows."""
    faults: list[Item]


@lru_cache(maxsize=1)
def _all_rows(tables: tuple[_Table, ...]) -> _Rows:
    """Read tables, once in a process, which remembers the last ones; the nearest table counts."""
    named: defaultdict[str, list[_Named]] = defaultdict(list)
    faults: list[Item] = []
    folders = sorted(table.folder for table in tables)
    for table in tables:
        for row in table.rows():
            source = f"{table.file.name}#{row.line}"
            fault, path = _place(table, row, folders)
            if fault is None:
                values = {key: value for key, value in row.values.items() if key != KEY}
                text = values.pop(table.text, None)
                named[path].append((source, text, values))
            else:
                faults.append(Rejection(source, *fault))
    return _Rows(dict(named), sorted((path, place) for place, path in enumerate(named)), faults)


def _place(
    table: _Table, row: TextRow, folders: list[str]
) -> tuple[tuple[str, str, int] | None, str]:
    """Return what is wrong with a row (reason, detail, rows lost), and the path that it names."""
    name = row.values.get(KEY)
    if row.fault:
        return ("bad_row", row.fault, row.lost), ""
    if not isinstance(name, str) or not name:
        return (f"missing_{table.kind}", f"{KEY!r} is no path", 1), ""
    path = joined(table.folder, name)
    if not path.startswith(table.folder.rstrip("/") + "/"):
        return ("escaping_path", f"{shown(name)} leads out of the file's folder", 1), ""
    if _nearest(path, folders) != table.folder:
        said = f"{shown(name)} lies in a folder with captions of its own"
        return ("bad_row", said, 1), ""
    return None, path


def _nearest(path: str, folders: list[str]) -> str:
    """Return the deepest of some folders around a path."""
    return max((one for one in folders if path.startswith(f"{one}/")), key=len, default="")


def _sample(
    part: _Part, file: SourceFile, source: str, text: Any, values: dict[str, Any]
) -> list[Item]:
    label = posixpath.basename(posixpath.dirname(file.path))
    caption = text if isinstance(text, str) and text.strip() else _caption(part, file, label)
    meta, remarks = kept_meta(source, lambda: values)
    if part.labelled:
        meta = {LABEL: label.encode(errors="backslashreplace").decode(), **meta}
    refuse_large(file.name, int(file.stamp["size"] or 0), part.kind)
    with file.open() as handle:
        data = handle.read()
    if part.kind == "image":
        return [Sample(data, caption, source, meta), *remarks]
    place = Place(uri_of(file.fs, file.path), file.name)
    return [Sample(b"", caption, source, meta, (Media(part.kind, data, place),)), *remarks]


def _caption(part: _Part, file: SourceFile, label: str) -> str:
    """Return the caption of a medium that no row has one for.

    Raises:
        Unusable: there is none.
    """
    if (beside := part.texts.get(_stem_of(file))) is not None:
        if (size := int(beside.stamp["size"] or 0)) > _MOST_CAPTION:
            said = f"{beside.name} has {size} bytes; a caption has {_MOST_CAPTION} at most"
            raise Unusable("bad_text", said)
        with beside.open() as handle:
            try:
                return handle.read().decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise Unusable("bad_text", f"{beside.name}: {error}") from None
    if part.caption is None:
        raise Unusable(
            "bad_text",
            f"no caption: neither in {' nor in '.join(METADATA)} nor in {_stem(file.name)}.txt; "
            "'caption' gives one to all that have none",
        )
    return part.caption.replace(_LABEL, label)


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _stem_of(file: SourceFile) -> str:
    return _stem(file.path)
