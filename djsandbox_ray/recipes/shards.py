"""The extension point: a format in which rows are written, one shard file at a time."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from djsandbox_ray.dataset.images import FORMATS as IMAGE_FORMATS
from djsandbox_ray.registry import Registry
from djsandbox_ray.storage import Storage

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
        """Extension of the image by its content: jpg, png, webp, gif, bmp, tif or ppm."""
        with Image.open(io.BytesIO(self.image), formats=IMAGE_FORMATS) as image:
            kind = str(image.format)
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
        "jsonl": "djsandbox_ray.recipes.jsonl:Jsonl",
        "parquet": "djsandbox_ray.recipes.parquet:Parquet",
        "webdataset": "djsandbox_ray.recipes.webdataset:WebDataset",
    },
)
