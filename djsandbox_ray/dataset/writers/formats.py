"""The extension point for files that others read: how rows are written, one shard at a time.

Built in are JSON Lines in Data-Juicer's layout, Parquet and WebDataset, and Hugging Face's folders,
which have a module of their own.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.dataset.columns import META, OWN_META
from djsandbox_ray.dataset.images import format_of
from djsandbox_ray.dataset.media import (
    PAIR_TOKENS,
    TAGGED_KEY,
    Kind,
    Media,
    Turn,
    plain_text,
    tagged_text,
    tokens_in,
    without_tokens,
)
from djsandbox_ray.dataset.webdataset import IMAGE_EXTENSIONS
from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.records import Dataset
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.storage.store import Storage

_logger = logging.getLogger(__name__)

_EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif"}
_VIDEO_SIGNS = ((4, b"ftypqt", "mov"), (4, b"ftyp", "mp4"), (0, b"GIF8", "gif"), (0, b"G", "ts"))
"""Where a video's file has which bytes, and its extension then; a Matroska says more."""
_MATROSKA, _HEAD = b"\x1a\x45\xdf\xa3", 64


@dataclass(frozen=True)
class Row:
    """A row of the sample table, as it is written."""

    row_id: int
    media: tuple[Media, ...]
    """In order; of a pair the one image."""
    text: str
    """As it is stored: of a document with tokens where its media belong."""
    meta: str
    """A JSON object."""
    turns: tuple[Turn, ...] = ()
    """Of a conversation, with tokens where its media belong."""
    is_pair: bool = True
    """Whether it is of a table of pairs: then tokens in its text are no part of it."""

    @property
    def name(self) -> str:
        """Name of the sample's files, without extension: leads back to the row."""
        return f"{self.row_id:09d}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What its media are, in order."""
        return tuple(medium.kind for medium in self.media)

    @property
    def is_in_order(self) -> bool:
        """Whether its text or turns say where media belong, or images come before videos."""
        return bool(self.turns) or self.kinds == tuple(sorted(self.kinds))

    @property
    def files(self) -> Iterator[tuple[str, Media]]:
        """The names of its files, which differ by a number if there are several, and the files.

        Raises:
            Damaged: an image is not the one that was ingested.
        """
        for place, medium in enumerate(self.media):
            number = f"-{place}" if len(self.media) > 1 else ""
            yield f"{self.name}{number}.{self._extension(medium)}", medium

    @property
    def plain_text(self) -> str:
        """The text without tokens, as operators see it that do not look for media."""
        return self.text if self.is_pair else plain_text(self.text)

    @property
    def tagged_text(self) -> str:
        """The text with a token for every medium, as operators need it that look for media.

        Where it has none of its own they stand in front.
        """
        text = without_tokens(self.text, PAIR_TOKENS) if self.is_pair else self.text
        return tagged_text(text, self.kinds)

    def _extension(self, medium: Media) -> str:
        """Return the extension by content: jpg, png, webp, gif, bmp, tif, ppm; mp4, webm, ..."""
        if medium.kind == "video":
            return _video_extension(medium.data)
        try:
            kind = format_of(medium.data)
        except MemoryError:
            raise  # of this machine: the table is not damaged
        except Exception as error:
            raise Damaged(
                f"row {self.row_id} of the sample table is damaged: its image cannot be read",
                "remove dataset.json beside the table and run the configuration again "
                "(djsandbox run): the data is read anew",
            ) from error
        return _EXTENSIONS.get(kind, kind.lower())

    @property
    def meta_object(self) -> dict[str, Any]:
        """The meta data."""
        found: dict[str, Any] = json.loads(self.meta)
        return found


def _video_extension(data: bytes) -> str:
    if data.startswith(_MATROSKA):
        return "webm" if b"webm" in data[:_HEAD] else "mkv"
    if data.startswith(b"RIFF"):
        return "avi"
    for start, sign, extension in _VIDEO_SIGNS:
        if data.startswith(sign, start):
            return extension
    return "mp4"  # its first box need not be the one that names it


@dataclass(frozen=True)
class Written:
    """What the shards of a folder hold."""

    rows: int
    about: tuple[str, ...] = ()
    """Which rows these are, in sentences of Markdown."""


class ShardFormat(ABC):
    """How a shard is written; equal rows give equal bytes."""

    suffix: ClassVar[str]
    """Ending of a shard's file, without the dot."""

    def begin(self, dataset: Dataset) -> None:  # noqa: B027 - optional
        """Take of what dataset all rows are, before the first is written.

        Not called where they are given to a program: those are pairs.
        """

    def finish(self, output: Storage, written: Written) -> None:  # noqa: B027 - optional
        """Write what stands beside the shards, once all of them are there."""

    @abstractmethod
    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write the file ``name`` of ``output``; it must not appear before it is whole.

        Args:
            output: the folder.
            name: of the shard's file, with the suffix.
            rows: to be written as they come: all of them may be more than memory holds.

        Raises:
            BadInput: the format cannot hold a row: says which and why.
        """


SHARD_FORMATS: Registry[ShardFormat] = Registry(
    "format",
    ShardFormat,  # type: ignore[type-abstract]
    {
        "huggingface": "djsandbox_ray.dataset.writers.huggingface:HuggingFaceShards",
        "jsonl": "djsandbox_ray.dataset.writers.formats:Jsonl",
        "parquet": "djsandbox_ray.dataset.writers.formats:Parquet",
        "webdataset": "djsandbox_ray.dataset.writers.formats:WebDataset",
    },
)


class Jsonl(ShardFormat):
    """A line has ``text``, ``images`` (paths relative to the file) and ``meta``.

    The images of ``000000.jsonl`` lie in ``images/000000/``. Of pairs, the text has tokens around
    the caption, so that blanks at its ends do not survive, nor do tokens that stood inside it.

    Of other contents, a line has ``videos``, too, which lie in ``videos/000000/``; ``turns``, if it
    is a conversation; ``text`` as it was ingested, and ``text_with_tokens`` beside it, if there are
    media whose places it does not say. Only where images come after videos is ``text`` given
    tokens, since their order would be lost.
    """

    suffix = "jsonl"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write the media as they come; the file with the lines appears last."""
        shard = name.removesuffix(".jsonl")
        with output.open_write(name) as file:
            for row in rows:
                paths: dict[Kind, list[str]] = {"image": [], "video": []}
                for file_name, medium in row.files:
                    path = f"{medium.kind}s/{shard}/{file_name}"
                    output.write_bytes(path, medium.data)
                    paths[medium.kind].append(path)
                line = _line(row, paths)
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _line(row: Row, paths: dict[Kind, list[str]]) -> dict[str, Any]:
    if row.is_pair:
        return {"text": row.tagged_text, "images": paths["image"], "meta": row.meta_object}
    line: dict[str, Any] = {"text": row.text if row.is_in_order else row.tagged_text}
    if row.media and line["text"] != row.tagged_text:
        line[TAGGED_KEY] = row.tagged_text
    line |= {"images": paths["image"], "videos": paths["video"]}
    if row.turns:
        line["turns"] = [turn.plain() for turn in row.turns]
    return {**line, "meta": row.meta_object}


def _sole(row: Row, form: str, others: tuple[Kind, ...] | None = None) -> tuple[Kind, ...]:
    """Return the kind of a sample's one medium, or nothing where it is a text alone.

    Args:
        row: the sample.
        form: the format, which holds no more than that.
        others: what the samples before it have.

    Raises:
        BadInput: it is something else.
    """
    said = ""
    if row.turns:
        said = "is a conversation"
    elif len(row.media) > 1:
        said = f"has {len(row.media)} media"
    elif not row.is_pair and tokens_in(row.text):
        said = "is a document with a medium inside of its text"
    elif others is not None and row.kinds != others:
        said = f"has {_named(row.kinds)}, where those before it have {_named(others)}"
    if said:
        raise BadInput(
            f"row {row.row_id} {said}: {form} holds texts with one image each, or one video each, "
            "or none; jsonl holds any samples"
        )
    return row.kinds


def _named(kinds: tuple[Kind, ...]) -> str:
    return f"one {kinds[0]}" if kinds else "no media"


_GROUP_ROWS, _VIDEO_ROWS = 256, 8


class Parquet(ShardFormat):
    """Columns ``row_id``, ``image`` (an encoded file), ``text`` and ``meta`` (JSON text).

    Of videos, ``video`` stands in the place of ``image``; of texts alone, neither. The schema says
    that ``meta`` is what our own source reads as such.
    """

    suffix = "parquet"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write row groups of 256 rows; of videos, of 8.

        Raises:
            BadInput: a sample that is more than a text with one medium, or not like the first one.
        """
        first = next(rows)
        kinds = _sole(first, "parquet")
        rows = chain([first], rows)
        schema = pa.schema(
            [
                ("row_id", pa.int64()),
                *((kind, pa.binary()) for kind in kinds),
                ("text", pa.string()),
                (META, pa.string()),
            ],
            {OWN_META: b"json"},
        )
        # Media are compressed already.
        codecs = {name: "none" if name in kinds else "zstd" for name in schema.names}
        size = _VIDEO_ROWS if "video" in kinds else _GROUP_ROWS
        with (
            output.open_write(name) as file,
            pq.ParquetWriter(file, schema, compression=codecs) as writer,
        ):
            while group := [_columns(row, kinds) for row in islice(rows, size)]:
                writer.write_table(pa.Table.from_pylist(group, schema))


def _columns(row: Row, kinds: tuple[Kind, ...]) -> dict[str, Any]:
    media = zip(_sole(row, "parquet", kinds), row.media, strict=True)
    values = {"row_id": row.row_id, "text": row.text, "meta": row.meta}
    return values | {kind: medium.data for kind, medium in media}


class WebDataset(ShardFormat):
    """Members ``<row id>.jpg`` (or png, webp, ...; of a video mp4, webm, ...), ``.txt``, ``.json``.

    Images of other kinds (gif, bmp, tif, ppm) are written as they are, with a warning: many readers
    pass over them.
    """

    suffix = "tar"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write a tar whose bytes depend on the rows alone: no times, no owners.

        Raises:
            BadInput: a sample that is more than a text with one medium, or not like the first one.
        """
        unusual: Counter[str] = Counter()
        kinds = None
        with (
            output.open_write(name) as file,
            tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for row in rows:
                kinds = _sole(row, "webdataset", kinds)
                members = [(file_name, medium.data) for file_name, medium in row.files]
                extension = members[0][0].rpartition(".")[2] if kinds == ("image",) else ""
                if extension and extension not in IMAGE_EXTENSIONS:
                    unusual[extension] += 1
                for member_name, data in (
                    *members,
                    (f"{row.name}.txt", row.text.encode()),
                    (f"{row.name}.json", row.meta.encode()),
                ):
                    member = tarfile.TarInfo(member_name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        if unusual:
            found = ", ".join(f"{count} {kind}" for kind, count in unusual.items())
            _logger.warning(
                "%s holds images of other kinds than %s (%s): readers that do not ask for them "
                "pass over them",
                *(name, ", ".join(IMAGE_EXTENSIONS), found),
            )
