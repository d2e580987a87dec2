"""Evaluation samples that the training samples also hold, whole or by an image or video alone.

Both are known by exact hashes: of the whole sample, and of a medium's file. An evaluation image
under another caption is a leak, too: so is a picture that stands for all that are missing.
Therefore it is told what is in many training rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from djsandbox_ray import records
from djsandbox_ray.dataset.media_digests import media_digests
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import Damaged, Missing
from djsandbox_ray.identity import content_id, rows_hash
from djsandbox_ray.storage.store import Storage

Found = TypeVar("Found")

SCHEMA = pa.schema(
    [("row_id", pa.int64()), ("evaluation_row_id", pa.int64()), ("shared", "string")]
)
"""A training row, an evaluation row, and what they have in common: the whole ``sample``, or only an
``image`` or a ``video``."""

_SCAN_ROWS = 1 << 20
_WIDESPREAD = 0.01
"""Share of the training rows above which one medium is named: it may stand for what is missing."""


def find_leaks(
    storage: Storage,
    train: records.Dataset,
    evaluation: records.Dataset,
    remove: bool,
    digest_again: Callable[[records.Dataset], None],
) -> records.Leak:
    """Write ``datasets/<train id>/leaks/<evaluation id>.parquet``, of :data:`SCHEMA`, sorted.

    It has a row per pair of equal samples. Of a training row that equals none, it has one per
    medium that an evaluation sample has too, with the first such sample: a picture that is
    everywhere ("not available") would else be found as often as both tables together have it.

    Only digests are read, the training table's a million at a time.

    Args:
        storage: where both tables lie.
        train: the training samples.
        evaluation: the evaluation samples.
        remove: whether leaked rows are kept out of every pool.
        digest_again: makes the file of a dataset's media digests, where that is missing or damaged.
    """
    samples = equal_samples(
        (
            _digests(storage, train, start, start + _SCAN_ROWS)
            for start in range(0, train.rows, _SCAN_ROWS)
        ),
        _digests(storage, evaluation, 0, evaluation.rows),
    )

    def read(dataset: records.Dataset, use: Callable[[Iterable[pa.Table]], Found]) -> Found:
        try:
            return use(media_digests(storage, dataset))
        except (Missing, Damaged):
            digest_again(dataset)
            return use(media_digests(storage, dataset))

    wanted = read(evaluation, first_rows)
    media = read(train, lambda found: shared_media(found, wanted, samples["row_id"]))
    found = pa.concat_tables([samples, media])
    found = found.sort_by([(name, "ascending") for name in SCHEMA.names])
    path = f"datasets/{train.id}/leaks/{evaluation.id}.parquet"
    storage.write_table(path, found)
    rows = pc.unique(found["row_id"])
    least = max(2, math.floor(_WIDESPREAD * train.rows) + 1)
    common = partial(widespread_media, wanted=wanted, least=least)
    return records.Leak(
        id=content_id("leak", train.id, evaluation.id, remove, rows_hash(rows.to_numpy())),
        path=path,
        rows=len(rows),
        removed=remove,
        by_medium=pc.count_distinct(media["row_id"]).as_py(),
        widespread=read(train, common) if len(rows) >= least else (),
    )


def find_all_leaks(
    storage: Storage,
    train: records.Dataset,
    evaluation: records.Evaluation,
    remove: bool,
    digest_again: Callable[[records.Dataset], None],
) -> records.Leak:
    """Look for the leaks of every evaluation set; see :func:`find_leaks`.

    Of several sets, ``datasets/<train id>/leaks/<evaluation id>.parquet`` has the rows of all, and
    in the column ``evaluation`` the id of the set that ``evaluation_row_id`` is of.
    """
    found = [find_leaks(storage, train, one, remove, digest_again) for one in evaluation.sets]
    if len(found) == 1:
        return found[0]
    schema = SCHEMA.append(pa.field("evaluation", pa.string()))
    tables = [schema.empty_table()]
    for leak, dataset in zip(found, evaluation.sets, strict=True):
        rows = storage.read_table(leak.path)
        name = pa.repeat(dataset.id, rows.num_rows)
        tables.append(rows.append_column("evaluation", name).cast(schema))
    together = pa.concat_tables(tables)
    path = f"datasets/{train.id}/leaks/{evaluation.id}.parquet"
    storage.write_table(path, together)
    leaked = pc.unique(together["row_id"])
    whole = pc.unique(together.filter(pc.equal(together["shared"], "sample"))["row_id"])
    return records.Leak(
        id=content_id("leak", train.id, evaluation.id, remove, rows_hash(leaked.to_numpy())),
        path=path,
        rows=len(leaked),
        removed=remove,
        by_medium=len(leaked) - len(whole),
    )


def equal_samples(train: Iterable[pa.Table], evaluation: pa.Table) -> pa.Table:
    """Return all pairs of rows with the same digest, as :data:`SCHEMA` has them.

    Args:
        train: ``row_id`` and ``digest`` of samples, piece by piece.
        evaluation: the same of the evaluation samples.
    """
    wanted = evaluation.rename_columns({"row_id": "evaluation_row_id"})
    joined = (piece.join(wanted, "digest", join_type="inner") for piece in train)
    return _leaks(
        rows.append_column("shared", pa.repeat("sample", rows.num_rows)) for rows in joined
    )


def first_rows(evaluation: Iterable[pa.Table]) -> pa.Table:
    """Return the least ``evaluation_row_id`` of every ``digest``.

    Args:
        evaluation: ``row_id`` and ``digest`` of media, piece by piece.
    """
    pieces = [piece.select(["row_id", "digest"]) for piece in evaluation]
    schema = pa.schema([("row_id", pa.int64()), ("digest", pa.binary(16))])
    found = pa.concat_tables([schema.empty_table(), *(piece.cast(schema) for piece in pieces)])
    least = found.group_by("digest").aggregate([("row_id", "min")])
    return least.select(["row_id_min", "digest"]).rename_columns(["evaluation_row_id", "digest"])


def shared_media(train: Iterable[pa.Table], wanted: pa.Table, known: pa.ChunkedArray) -> pa.Table:
    """Return training rows with one of the wanted media, as :data:`SCHEMA` has them.

    Args:
        train: ``row_id``, ``kind`` and ``digest`` of media, piece by piece.
        wanted: ``digest`` and ``evaluation_row_id``.
        known: training rows that are leaks already.
    """
    joined = (
        piece.rename_columns({"kind": "shared"}).join(wanted, "digest", join_type="inner")
        for piece in train
    )
    leaks = _leaks(rows.filter(pc.invert(pc.is_in(rows["row_id"], known))) for rows in joined)
    return leaks.group_by(SCHEMA.names).aggregate([])  # a sample may hold the same medium twice


def widespread_media(
    train: Iterable[pa.Table], wanted: pa.Table, least: int
) -> tuple[records.SharedMedium, ...]:
    """Return the media that many training rows have, whether these are leaks as a whole or not.

    Args:
        train: ``row_id``, ``kind`` and ``digest`` of media, piece by piece.
        wanted: ``digest`` and ``evaluation_row_id``.
        least: rows that make many.

    Returns:
        The most frequent first, then by the first training row.
    """
    medium = ["digest", "kind", "evaluation_row_id"]
    joined = [piece.join(wanted, "digest", join_type="inner") for piece in train]
    if not joined:
        return ()
    # A sample may hold the same medium twice.
    rows = pa.concat_tables(joined).group_by(["row_id", *medium]).aggregate([])
    each = rows.group_by(medium).aggregate([("row_id", "count"), ("row_id", "min")])
    many = each.filter(pc.greater_equal(each["row_id_count"], least))
    many = many.sort_by([("row_id_count", "descending"), ("row_id_min", "ascending")])
    return tuple(
        records.SharedMedium(
            row["kind"], row["row_id_count"], row["row_id_min"], row["evaluation_row_id"]
        )
        for row in many.to_pylist()
    )


def _leaks(found: Iterable[pa.Table]) -> pa.Table:
    tables = (rows.select(SCHEMA.names).cast(SCHEMA) for rows in found)
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def _digests(storage: Storage, dataset: records.Dataset, start: int, stop: int) -> pa.Table:
    table = SampleTable(storage.uri(dataset.table)).scan(start, stop, ["digest"])
    ids = pa.array(np.arange(start, start + table.num_rows))
    return table.append_column("row_id", ids)
