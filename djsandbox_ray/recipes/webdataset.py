"""WebDataset tars: of every sample an image, a caption and its meta data, one after the other."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

from djsandbox_ray.dataset.webdataset import IMAGE_EXTENSIONS
from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.shards import Row, ShardFormat
from djsandbox_ray.storage import Storage


class WebDataset(ShardFormat):
    """Members ``<row id>.jpg`` (or png, webp), ``.txt`` and ``.json``."""

    suffix = "tar"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write a tar whose bytes depend on the rows alone: no times, no owners.

        Raises:
            BadInput: an image of a kind that readers of WebDataset do not look for.
        """
        with (
            output.open_write(name) as file,
            tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for row in rows:
                extension = row.image_extension
                if extension not in IMAGE_EXTENSIONS:
                    raise BadInput(
                        f"row {row.row_id}: webdataset holds images of the kinds "
                        f"{', '.join(IMAGE_EXTENSIONS)}, not {extension}; jsonl and parquet hold it"
                    )
                for kind, data in (
                    (extension, row.image),
                    ("txt", row.text.encode()),
                    ("json", row.meta.encode()),
                ):
                    member = tarfile.TarInfo(f"{row.name}.{kind}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
