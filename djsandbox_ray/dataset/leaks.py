"""Evaluation samples that the training samples also hold, by exact hash of image and text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from djsandbox_ray import records
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.identity import content_id
from djsandbox_ray.storage.store import Storage

_SCAN_ROWS = 1 << 20


def find_leaks(
    storage: Storage, train: records.Dataset, evaluation: records.Dataset, remove: bool
) -> records.Leak:
    """Write ``datasets/<train id>/leaks/<evaluation id>.parquet``.

    It has ``row_id`` (of the training table) and ``evaluation_row_id``, one row per pair of equal
    samples, sorted. Only digests are read, the training table's a million at a time.
    """
    wanted = _digests(storage, evaluation, 0, evaluation.rows, "evaluation_row_id")
    found = [
        _digests(storage, train, start, start + _SCAN_ROWS, "row_id").join(
            wanted, "digest", join_type="inner"
        )
        for start in range(0, train.rows, _SCAN_ROWS)
    ]
    pairs = pa.concat_tables(found).select(["row_id", "evaluation_row_id"])
    pairs = pairs.sort_by([("row_id", "ascending"), ("evaluation_row_id", "ascending")])
    path = f"datasets/{train.id}/leaks/{evaluation.id}.parquet"
    storage.write_table(path, pairs)
    return records.Leak(
        id=content_id("leak", train.id, evaluation.id, remove),
        path=path,
        rows=pc.count_distinct(pairs["row_id"]).as_py(),
        removed=remove,
    )


def _digests(
    storage: Storage, dataset: records.Dataset, start: int, stop: int, name: str
) -> pa.Table:
    table = SampleTable(storage.uri(dataset.table)).scan(start, stop, ["digest"])
    ids = pa.array(np.arange(start, start + table.num_rows))
    return table.append_column(name, ids)
