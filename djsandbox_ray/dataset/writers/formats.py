"""The extension point for files that others read: how rows are written, one shard at a time.

Built in are JSON Lines in Data-Juicer's layout, Parquet and WebDataset.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.dataset.images import format_of
from djsandbox_ray.dataset.media import PAIR_TOKENS
from djsandbox_ray.dataset.webdataset import IMAGE_EXTENSIONS
from djsandbox_ray.errors import Damaged
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.storage.store import Storage

_logger = logging.getLogger(__name__)

_EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif"}


@dataclass(frozen=True)
class Row:
    """A row of the sample table, as it is written."""

    row_id: int
    image: bytes
    """The encoded image file."""
    text: str
    meta: str
    """A JSON object."""

    @property
    def name(self) -> str:
        """Name of the sample's files, without extension: leads back to the row."""
        return f"{self.row_id:09d}"

    @property
    def image_extension(self) -> str:
        """Extension of the image by its content: jpg, png, webp, gif, bmp, tif or ppm.

        Raises:
            Damaged: it is not the one that was ingested, of which the first picture could be read.
        """
        try:
            kind = format_of(self.image)
        except MemoryError:
            raise  # of this machine: the table is not damaged
        except Exception:
            raise Damaged(
                f"row {self.row_id} of the sample table is damaged: its image cannot be read",
                "remove dataset.json beside the table and run the configuration again "
                "(djsandbox run): the data is read anew",
            ) from None
        return _EXTENSIONS.get(kind, kind.lower())

    @property
    def meta_object(self) -> dict[str, Any]:
        """The meta data."""
        found: dict[str, Any] = json.loads(self.meta)
        return found


class ShardFormat(ABC):
    """How a shard is written; equal rows give equal bytes."""

    suffix: ClassVar[str]
    """Ending of a shard's file, without the dot."""

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
        "jsonl": "djsandbox_ray.dataset.writers.formats:Jsonl",
        "parquet": "djsandbox_ray.dataset.writers.formats:Parquet",
        "webdataset": "djsandbox_ray.dataset.writers.formats:WebDataset",
    },
)


def tagged(text: str) -> str:
    """Return a caption as an operator that looks for images needs it: one image, then the text.

    The statistics are computed of the same (:mod:`djsandbox_ray.stats.fused`).
    """
    image, end = PAIR_TOKENS
    for token in PAIR_TOKENS:
        text = text.replace(token, "").strip()
    return f"{image} {text} {end}"


class Jsonl(ShardFormat):
    """A line has ``text``, ``images`` (one path, relative to the file) and ``meta``.

    The images of ``000000.jsonl`` lie in ``images/000000/``. Tokens stand around the caption, so
    that blanks at its ends do not survive, nor do tokens that stood inside it.
    """

    suffix = "jsonl"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write the images as they come; the file with the lines appears last."""
        folder = f"images/{name.removesuffix('.jsonl')}"
        with output.open_write(name) as file:
            for row in rows:
                path = f"{folder}/{row.name}.{row.image_extension}"
                output.write_bytes(path, row.image)
                line = {"text": tagged(row.text), "images": [path], "meta": row.meta_object}
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("image", pa.binary()),
        ("text", pa.string()),
        ("meta", pa.string()),
    ]
)
_GROUP_ROWS = 256


class Parquet(ShardFormat):
    """Columns ``row_id``, ``image`` (an encoded file), ``text`` and ``meta`` (JSON text)."""

    suffix = "parquet"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write row groups of 256 rows."""
        # Images are compressed already.
        codecs = {"row_id": "zstd", "image": "none", "text": "zstd", "meta": "zstd"}
        with (
            output.open_write(name) as file,
            pq.ParquetWriter(file, SCHEMA, compression=codecs) as writer,
        ):
            while group := [asdict(row) for row in islice(rows, _GROUP_ROWS)]:
                writer.write_table(pa.Table.from_pylist(group, SCHEMA))


class WebDataset(ShardFormat):
    """Members ``<row id>.jpg`` (or png, webp, ...), ``.txt`` and ``.json``.

    Images of other kinds (gif, bmp, tif, ppm) are written as they are, with a warning: many readers
    pass over them.
    """

    suffix = "tar"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write a tar whose bytes depend on the rows alone: no times, no owners."""
        unusual: Counter[str] = Counter()
        with (
            output.open_write(name) as file,
            tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for row in rows:
                extension = row.image_extension
                if extension not in IMAGE_EXTENSIONS:
                    unusual[extension] += 1
                for kind, data in (
                    (extension, row.image),
                    ("txt", row.text.encode()),
                    ("json", row.meta.encode()),
                ):
                    member = tarfile.TarInfo(f"{row.name}.{kind}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        if unusual:
            found = ", ".join(f"{count} {kind}" for kind, count in unusual.items())
            _logger.warning(
                "%s holds images of other kinds than %s (%s): readers that do not ask for them "
                "pass over them",
                *(name, ", ".join(IMAGE_EXTENSIONS), found),
            )
