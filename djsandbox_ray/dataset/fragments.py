"""The part of ingest that runs in workers: shards to Lance fragments, and their row ids.

Only a small manifest of each shard travels to the driver; samples go straight to the table. The
manifest stays beside it as well, with seals of the files that the shard became, written when these
are: what a killed ingest has read is known by it, and known to be whole.

Lance is imported where something is written: a plan writes nothing, and is to answer at once.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from djsandbox_ray.dataset.faults import described, printable
from djsandbox_ray.dataset.media import Kind
from djsandbox_ray.dataset.media_digests import digest_table
from djsandbox_ray.dataset.prepare import split
from djsandbox_ray.dataset.sample_table import MEDIA_DATA, lance_options
from djsandbox_ray.dataset.source import Item, Rejection, Remark, Sample, Shard
from djsandbox_ray.errors import Damaged, SandboxError
from djsandbox_ray.identity import canonical, chain, document_digest, sample_digest
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.seals import DIGESTED_BYTES, broken, seals_from_json, seals_to_json
from djsandbox_ray.storage.store import Storage

SCHEMA = pa.schema(
    [
        ("image", pa.large_binary()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("digest", pa.binary(16)),
        ("meta", pa.string()),
    ]
)
"""Columns of a table of pairs, before ``row_id`` (int64) is added."""

WIDE_SCHEMA = pa.schema(
    [
        *SCHEMA,
        ("media", pa.string()),
        ("turns", pa.string()),
        pa.field(
            MEDIA_DATA, pa.large_binary(), metadata={"lance-encoding:blob": "true"}
        ),  # last: later versions of Lance give blobs further fields, which would move others
    ]
)
"""Columns of a table of anything else. A sole image lies in ``image``, as that of a pair does.
Other media lie one behind the other in a blob, which is read for itself, and ``media`` (JSON) says
of each its kind, size in bytes and digest, in order; one that stays where it lies has no bytes
there, and a ``place``. ``turns`` are JSON, too."""

REJECTED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("lost", pa.int64()),
    ]
)
"""What was set aside; ``lost`` samples each, 0 for what only was to be said."""

VERSION = 4
"""Raised when a shard becomes other rows or files: what was read so far is then read again."""
_BLOB_FORMAT = "2.1"
"""Of Lance's files. In later ones blobs lie in files that a fragment does not name: what a killed
ingest has left of them would not be known to be whole."""
_ROW_ID = pa.schema([("row_id", pa.int64())])
_BATCH_ROWS = 512
_BATCH_BYTES = 8 << 20
_ROW_ID_BATCH = 1 << 16


@dataclass(frozen=True)
class Manifest:
    """What a worker reports of a shard."""

    index: int
    fragments: list[str]
    """Metadata of the Lance fragments, in order, as JSON."""
    accepted: int
    reasons: dict[str, int]
    """Rejected samples by reason."""
    remarks: dict[str, int]
    """What cost no sample, counted."""
    first: dict[str, str]
    """Per reason and remark: where it was found first, and what it was."""
    digest: str
    """Chain of the accepted samples, media, text and meta data; hex."""
    modalities: list[str]
    """What the accepted samples have beside text: ``image``, ``video``, ``turns``; sorted."""
    pairs: bool
    """Whether all of them are pairs."""


@dataclass
class _Tally:
    """What has come by while a shard was written."""

    accepted: int = 0
    digest: Any = field(default_factory=partial(hashlib.blake2b, digest_size=16))
    """As :func:`~djsandbox_ray.identity.chain` makes it, without keeping what is chained."""
    reasons: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """Rows of :data:`REJECTED_SCHEMA`."""
    media: list[tuple[int, Kind, bytes]] = field(default_factory=list)
    """Position of the sample, kind and digest of the content of every medium."""
    modalities: set[str] = field(default_factory=set)
    pairs: bool = True
    error: BaseException | None = None

    def batches(
        self, items: Iterable[Item], schema: pa.Schema = SCHEMA
    ) -> Iterator[pa.RecordBatch]:
        """Yield the samples as record batches of a schema."""
        rows: list[dict[str, Any]] = []
        size = 0
        try:
            for item in items:
                if not isinstance(item, Sample):
                    self._set_aside(item)
                    continue
                rows.append(self._row(item))
                size += len(item.text) + sum(len(turn.text) for turn in item.turns)
                size += sum(len(one.data) for one in item.all_media)
                if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                    yield pa.RecordBatch.from_pylist(rows, schema)
                    rows, size = [], 0
            if rows:
                yield pa.RecordBatch.from_pylist(rows, schema)
        except Exception as error:
            # Lance would only pass on its text.
            self.error = error
            raise

    def _set_aside(self, item: Rejection | Remark) -> None:
        source, detail = printable(item.source), printable(without_secrets(item.detail))
        if isinstance(item, Rejection):
            reason, lost = item.reason, item.lost
            self.reasons[reason] += lost
        else:
            reason, lost = item.what, 0
            self.remarks[reason] += item.count
        self.first.setdefault(reason, f"{source}: {detail}")
        row = {"source": source, "reason": reason, "detail": detail, "lost": lost}
        self.rejected.append(row)

    def _row(self, sample: Sample) -> dict[str, Any]:
        media, turns = sample.all_media, [turn.plain() for turn in sample.turns]
        kinds = [one.kind for one in media]
        sole = media[0].data if kinds == ["image"] else b""
        beside = () if sole else media
        digest = (
            sample_digest(sole, sample.text)
            if sample.is_pair
            else document_digest(sample.text, (one.digest for one in media), turns)
        )
        meta = canonical(sample.meta)
        self.digest.update(digest + chain([meta]))
        self.media += ((self.accepted, one.kind, one.content_digest) for one in media)
        self.accepted += 1
        self.modalities.update(kinds, ["turns"] if turns else [])
        self.pairs = self.pairs and sample.is_pair
        listed = [
            {
                "kind": one.kind,
                "size": len(one.data),
                "digest": one.digest.hex(),
                **({"place": asdict(one.place)} if one.is_reference and one.place else {}),
            }
            for one in beside
        ]
        return {
            "image": sole,
            "text": sample.text,
            "source": printable(str(sample.source)),
            "digest": digest,
            "meta": meta.decode(),
            "media": canonical(listed).decode(),
            "turns": canonical(turns).decode(),
            MEDIA_DATA: b"".join(one.data for one in beside) or None,
        }


def split_shard(row: dict[str, Any]) -> dict[str, Any]:
    """Read through a shard for what it is made of.

    Args:
        row: ``index`` of the shard and ``shard``, pickled.

    Returns:
        ``index``, and ``shards``: a list, pickled.
    """
    return {"index": row["index"], "shards": pickle.dumps(split(pickle.loads(row["shard"])))}


def part_name(index: int) -> str:
    """Return the name of the file that tells of a shard that was read."""
    return f"{index:08d}.json"


def known_part(row: dict[str, Any], *, storage: Storage, folder: str) -> dict[str, str]:
    """See whether all is there and whole that a former ingest has made of a shard.

    Args:
        row: ``index`` and ``name`` of the shard.
        storage: where ``folder`` lies.
        folder: staging folder.

    Returns:
        The manifest as JSON, under ``manifest``; empty where the shard is to be read again.
    """
    try:
        told = storage.read_sealed(f"{folder}/parts/{part_name(row['index'])}")
        manifest = Manifest(**told["manifest"])
        is_whole = told["shard"] == row["name"] and not broken(
            storage, seals_from_json(told["files"])
        )
    except (Damaged, KeyError, TypeError, ValueError):
        is_whole = False
    return {"manifest": json.dumps(asdict(manifest)) if is_whole else ""}


def write_shard(
    row: dict[str, Any], *, storage: Storage, folder: str, table: str
) -> dict[str, str]:
    """Write what a shard holds, and last what :func:`known_part` reads.

    Args:
        row: ``index`` of the shard, ``shard``, pickled, and ``wide``: whether there may be more
            than pairs.
        storage: where ``folder`` and ``table`` lie.
        folder: staging folder.
        table: the fragments lie here, and are not part of it until they are committed.

    Returns:
        The manifest as JSON, under ``manifest``.
    """
    from lance.fragment import write_fragments

    shard: Shard = pickle.loads(row["shard"])
    tally = _Tally()
    schema = WIDE_SCHEMA if row["wide"] else SCHEMA
    reader = pa.RecordBatchReader.from_batches(schema, tally.batches(shard.read(), schema))
    uri = storage.uri(table)
    try:
        written = write_fragments(
            reader,
            uri,
            schema=schema,
            mode="create",
            storage_options=lance_options(uri),
            data_storage_version=_BLOB_FORMAT if row["wide"] else None,
        )
    except OSError as error:
        if tally.error is not None:
            raise tally.error from None
        place = without_secrets(uri)
        raise SandboxError(
            f"shard {shard.name}: its samples cannot be written to {place}: {described(error)}"
        ) from error
    files = [f"{table}/data/{file.path}" for fragment in written for file in fragment.files]
    if tally.rejected:
        rejected = pa.Table.from_pylist(tally.rejected, REJECTED_SCHEMA)
        files.append(f"{folder}/rejected/{row['index']:08d}.parquet")
        storage.write_table(files[-1], rejected)
    if tally.media:
        files.append(f"{folder}/media/{row['index']:08d}.parquet")
        storage.write_table(files[-1], digest_table(tally.media))
    manifest = Manifest(
        index=row["index"],
        fragments=[json.dumps(fragment.to_json()) for fragment in written],
        accepted=tally.accepted,
        reasons=dict(tally.reasons),
        remarks=dict(tally.remarks),
        first=tally.first,
        digest=tally.digest.hexdigest(),
        modalities=sorted(tally.modalities),
        pairs=tally.pairs,
    )
    told = {"shard": shard.name, "manifest": asdict(manifest), "files": _seals(storage, files)}
    storage.write_sealed(f"{folder}/parts/{part_name(row['index'])}", told)
    return {"manifest": json.dumps(asdict(manifest))}


def _seals(storage: Storage, files: list[str]) -> dict[str, Any]:
    """Return the seals of files that were just written.

    A disk may lose what it has taken, when it is switched off; an object store does not, and to
    read there what was written a moment ago would cost as much again as to write it.
    """
    most = DIGESTED_BYTES if storage.is_local else -1
    seals = {}
    for file in files:
        if (seal := storage.seal(file, most)) is None:
            raise storage.damaged(file, "it was written a moment ago and is gone")
        seals[file] = seal
    return seals_to_json(seals)


def commit(uri: str, manifests: list[Manifest], wide: bool) -> list[dict[str, int]]:
    """Make a table of the fragments, in the order of ``manifests``.

    Args:
        uri: of the table.
        manifests: of its shards.
        wide: whether they were written with the columns for more than pairs.

    Returns:
        ``fragment`` (id) and ``start`` (its first row id) for :func:`add_row_ids`.
    """
    import lance
    from lance.fragment import FragmentMetadata

    fragments = [
        FragmentMetadata.from_json(text) for manifest in manifests for text in manifest.fragments
    ]
    schema = WIDE_SCHEMA if wide else SCHEMA
    operation = lance.LanceOperation.Overwrite(schema, fragments)
    table = lance.LanceDataset.commit(uri, operation, storage_options=lance_options(uri))
    places, start = [], 0
    for fragment in table.get_fragments():
        places.append({"fragment": fragment.fragment_id, "start": start})
        start += fragment.count_rows()
    return places


def add_row_ids(row: dict[str, Any], *, uri: str) -> dict[str, Any]:
    """Write the column ``row_id`` of one fragment.

    Returns:
        ``fragment``, its new ``metadata`` (JSON) and the new ``schema`` of the table (pickled).
    """
    import lance

    options = lance_options(uri)
    fragment = lance.dataset(uri, storage_options=options).get_fragment(row["fragment"])
    end = row["start"] + fragment.count_rows()
    batches = (
        pa.record_batch([np.arange(at, min(at + _ROW_ID_BATCH, end))], schema=_ROW_ID)
        for at in range(row["start"], end, _ROW_ID_BATCH)
    )
    # A reader, not a function of batches: Lance calls a function once more, on a sample of rows.
    metadata, schema = fragment.merge_columns(pa.RecordBatchReader.from_batches(_ROW_ID, batches))
    return {
        "fragment": row["fragment"],
        "metadata": json.dumps(metadata.to_json()),
        "schema": pickle.dumps(schema),
    }


def commit_row_ids(uri: str, written: list[dict[str, Any]]) -> None:
    """Add the column that :func:`add_row_ids` has written to the table."""
    import lance
    from lance.fragment import FragmentMetadata

    written = sorted(written, key=lambda row: int(row["fragment"]))
    fragments = [FragmentMetadata.from_json(row["metadata"]) for row in written]
    operation = lance.LanceOperation.Merge(fragments, pickle.loads(written[0]["schema"]))
    options = lance_options(uri)
    version = lance.dataset(uri, storage_options=options).version
    lance.LanceDataset.commit(uri, operation, read_version=version, storage_options=options)
