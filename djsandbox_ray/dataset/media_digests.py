"""Digests of images and videos, in a file beside the table: by them equal media are known.

No column of a table tells which image a pair has, but for the image itself. Ingest, which has all
media in hand, writes 16 bytes of each into a file of its own, so that datasets are compared without
a look at their media. A table that lacks the file is read once, in Ray tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from djsandbox_ray import records
from djsandbox_ray.dataset.complete import home_of
from djsandbox_ray.dataset.media import Kind
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.tasks import Tasks
from djsandbox_ray.storage.store import Storage

SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("digest", pa.binary(16), nullable=False),
    ]
)
"""A row per medium of a sample: of what kind, and a hash of its file, wherever that lies. In no
order."""

_GROUP_ROWS = 1 << 20
_TASK_ROWS = 1 << 14
_READ_ROWS = 64
"""Samples whose images are in memory at a time."""


def digest_table(found: Iterable[tuple[int, Kind, bytes]]) -> pa.Table:
    """Return row id, kind and digest of media as a table of :data:`SCHEMA`."""
    rows = [dict(zip(SCHEMA.names, row, strict=True)) for row in found]
    return pa.Table.from_pylist(rows, SCHEMA)


def join_media_digests(
    storage: Storage, folder: str, starts: Sequence[int], dataset_id: str
) -> None:
    """Write the file of a dataset from those of its shards, a million media in memory at a time.

    Args:
        storage: where both lie.
        folder: a file per shard that has media, named by its number; ids of rows begin at 0.
        starts: (shards,) the row id of the first sample of each.
        dataset_id: of the dataset.
    """

    def groups() -> Iterator[pa.Table]:
        held: list[pa.Table] = []
        for name in storage.names(folder):
            part = storage.read_table(f"{folder}/{name}", SCHEMA.names)
            start = starts[int(name.partition(".")[0])]
            ids = pc.add(part["row_id"], start)
            held.append(part.set_column(0, SCHEMA.field("row_id"), ids))
            if sum(table.num_rows for table in held) >= _GROUP_ROWS:
                yield pa.concat_tables(held)
                held = []
        if held:
            yield pa.concat_tables(held)

    storage.write_groups(_path(dataset_id), SCHEMA, groups())


def write_media_digests(storage: Storage, dataset: records.Dataset, tasks: Tasks) -> None:
    """Write the file of a dataset from its table, which is read in tasks.

    Raises:
        Damaged: the table cannot be read, or a video that stays where it lies has changed.
    """
    ranges = [
        {"start": start, "stop": min(start + _TASK_ROWS, dataset.rows)}
        for start in range(0, dataset.rows, _TASK_ROWS)
    ]
    uri = storage.uri(dataset.table)
    groups = (found["media"] for found in tasks.map(digest_media, ranges, uri=uri))
    storage.write_groups(_path(dataset.id), SCHEMA, groups)


def digest_media(row: dict[str, Any], *, uri: str) -> dict[str, Any]:
    """Digest the media of some rows of a table.

    Args:
        row: ``start`` and ``stop``, ids of rows.
        uri: of the table.

    Returns:
        Under ``media`` a table of :data:`SCHEMA`.
    """
    table, stop = SampleTable(uri), row["stop"]
    found: list[tuple[int, Kind, bytes]] = []
    for start in range(row["start"], stop, _READ_ROWS):
        found += table.media_digests(start, min(start + _READ_ROWS, stop))
    return {"media": digest_table(found)}


def media_digests(storage: Storage, dataset: records.Dataset) -> Iterator[pa.Table]:
    """Read the file of a dataset, a million media at a time.

    Raises:
        Missing: there is none; :func:`write_media_digests` makes it.
        Damaged: it is not what was written; likewise.
    """
    path = _path(dataset.id)
    for batch in storage.read_batches(path, SCHEMA.names):
        if not batch.schema.equals(SCHEMA):
            raise storage.damaged(path, "its columns are of other types")
        yield pa.Table.from_batches([batch])


def _path(dataset_id: str) -> str:
    return f"{home_of(dataset_id)}/media_digests.parquet"
