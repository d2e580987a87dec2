"""Parquet files with a column of image bytes and a column of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.recipes.shards import Row, ShardFormat
from djsandbox_ray.storage import Storage

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
