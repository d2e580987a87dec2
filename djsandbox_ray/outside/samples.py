"""Samples as files for a program: shards in one of the formats that ``materialise`` writes too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from djsandbox_ray.dataset.table import SampleTable
from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.shards import SHARD_FORMATS, Row
from djsandbox_ray.storage import Storage

_READ_ROWS = 256
"""Rows whose images are in memory at once."""


def _known(name: str) -> str:
    try:
        SHARD_FORMATS.get(name)
    except BadInput as error:
        raise ValueError(str(error)) from error
    return name


Format = Annotated[str, AfterValidator(_known)]
"""jsonl (Data-Juicer's layout), parquet, webdataset, or ``package.module:Class``."""


def write_samples(
    table: str,
    rows: NDArray[np.int64],
    captions: NDArray[np.int64],
    folder: Path,
    *,
    form: str,
    rows_per_shard: int,
) -> None:
    """Write ``000000.<suffix>``, ``000001.<suffix>``, ... in the order given.

    Args:
        table: URI of the Lance table.
        rows: row ids, shape (n,): image, meta data and name of every sample.
        captions: row ids, shape (n,), whose captions go with them.
        folder: a local one, made if need be.
        form: a registered format.
        rows_per_shard: samples of every file but the last.

    Raises:
        BadInput: a sample that the format cannot hold.
    """
    writer = SHARD_FORMATS.get(form)()
    output, source = Storage(str(folder)), SampleTable(table)
    for index, start in enumerate(range(0, len(rows), rows_per_shard)):
        part = slice(start, start + rows_per_shard)
        some = _read(source, rows[part], captions[part])
        writer.write(output, f"{index:06d}.{writer.suffix}", some)


def _read(
    table: SampleTable, rows: NDArray[np.int64], captions: NDArray[np.int64]
) -> Iterator[Row]:
    for start in range(0, len(rows), _READ_ROWS):
        some = rows[start : start + _READ_ROWS]
        own = table.take(some, ["image", "meta"])
        texts = table.take(captions[start : start + _READ_ROWS], ["text"])["text"]
        columns = (own["image"].to_pylist(), texts.to_pylist(), own["meta"].to_pylist())
        for row_id, image, text, meta in zip(some.tolist(), *columns, strict=True):
            yield Row(row_id, image, text, meta)
