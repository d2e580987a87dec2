"""Source to sample table: shards are read in Ray Data tasks, the driver puts them in order.

Work in progress lies in a folder of its own (``staging``), where the same command goes on with the
shards that are not read yet. A finished dataset appears in its place at once, and runs that read
the same put it there one after the other: the second finds it.
"""

from __future__ import annotations

import json
import logging
import pickle
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import accumulate
from typing import Any

import pyarrow.parquet as pq

from djsandbox_ray import __version__, records
from djsandbox_ray.dataset.complete import home_of, mark_complete, told_of
from djsandbox_ray.dataset.faults import printable
from djsandbox_ray.dataset.fragments import (
    REJECTED_SCHEMA,
    VERSION,
    Manifest,
    add_row_ids,
    commit,
    commit_row_ids,
    known_part,
    part_name,
    split_shard,
    write_shard,
)
from djsandbox_ray.dataset.media import VideosConfig
from djsandbox_ray.dataset.media_digests import join_media_digests
from djsandbox_ray.dataset.prepare import ANY_VIDEO, named_classes, prepared
from djsandbox_ray.dataset.sample_table import lance_options
from djsandbox_ray.dataset.source import Shard, Source
from djsandbox_ray.dataset.staging import Staging, staging
from djsandbox_ray.dataset.tasks import CPUS_PER_TASK, Tasks
from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import chain, content_id
from djsandbox_ray.nodes.connection import check_placeable
from djsandbox_ray.nodes.kinds import NodeKind, bundle
from djsandbox_ray.nodes.waiting import AwaitRoom
from djsandbox_ray.settings.code import version_of
from djsandbox_ray.storage.lease import take
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

_SHOWN = 300
"""Characters of an example on the terminal; all of it is in ``rejected.parquet``."""
_ANY = NodeKind()

OnProgress = Callable[[int, int], None]


def ingest(
    source: Source,
    storage: Storage,
    *,
    max_rejected: float,
    labels: Collection[str] = (),
    videos: VideosConfig = ANY_VIDEO,
    workers: int | None = None,
    resources: NodeKind = _ANY,
    await_room: AwaitRoom = check_placeable,
    progress: OnProgress | None = None,
    note: Callable[[str], None] = logger.info,
    spent: Callable[[records.Cost], None] | None = None,
) -> records.Dataset:
    """Read a source into a table in ``datasets/<dataset id>``; Ray must be connected.

    A sample's ``row_id`` is its position among the accepted samples of the source, in its order,
    whatever the number of workers. A dataset that is there already is kept. ``rejected.parquet``
    (source, reason, detail, samples lost), ``media_digests.parquet`` and ``dataset.json``, which
    marks the dataset as complete and names its table, lie in the same folder.

    What is read of a source stays when this ends early: the next call for the same source reads the
    shards that are missing.

    Args:
        source: what to read.
        storage: where to write.
        max_rejected: share of the samples read that may be rejected, from 0 to 1.
        labels: keys of the meta data whose numbers get the names that the source has for them;
            a sample with a number that has none is rejected.
        videos: which of them can be used.
        workers: shards that are read at a time; None for as many as there are CPUs.
        resources: which nodes read.
        await_room: waits until there are such nodes.
        progress: called with the number of finished shards and of all shards.
        note: told how many shards an earlier call has read.
        spent: called at the end with what it cost.

    Raises:
        BadInput: no samples, more than ``max_rejected`` of them are rejected, no such nodes, or
            parts of the source that name classes differently.
    """
    await_room([bundle(CPUS_PER_TASK, 0, resources)], "ingest.resources")
    start = time.perf_counter()
    tasks = Tasks(workers, resources)
    shards = prepared(source, labels, partial(_split, tasks), videos)
    wide = source.config.content != "pairs"
    classes = named_classes(source, labels)
    with staging(storage, _identity(source, shards, classes, videos)) as at:
        manifests, samples = _write(shards, wide, at, tasks, progress, note)
        found = _Found.of(manifests)
        rows, rejected = found.accepted, found.reasons.total()
        _refuse_if_bad(found, max_rejected, shards, at)
        digests = [bytes.fromhex(manifest.digest) for manifest in manifests if manifest.accepted]
        dataset_id = content_id("dataset", chain(digests).hex(), *([classes] if classes else []))
        home = home_of(dataset_id)
        with take(storage, f"{home}/lease", f"dataset {dataset_id}", wait=True) as lease:
            at.lease.check()
            table = at.place(home, lambda uri: _build_table(uri, manifests, wide, tasks))
            _collect_rejections(at, f"{home}/rejected.parquet")
            starts = accumulate((manifest.accepted for manifest in manifests), initial=0)
            join_media_digests(storage, f"{at.folder}/media", [*starts], dataset_id)
            dataset = records.Dataset(
                dataset_id,
                table,
                rows,
                rejected,
                classes=classes,
                modalities=found.modalities,
                pairs=found.pairs,
            )
            told = {"reasons": found.reasons, "remarks": found.remarks, "first": found.first}
            # Where either was lost meanwhile, what was put together may be another's, or in part.
            at.lease.check()
            lease.check()
            mark_complete(storage, dataset, told)
    if spent is not None:
        spent(tasks.cost("ingest", samples, time.perf_counter() - start))
    return dataset


def _identity(
    source: Source,
    shards: list[Shard],
    classes: dict[str, tuple[str, ...]],
    videos: VideosConfig,
) -> str:
    """Return an id of what is read, where, and by which code."""
    import lance

    config = source.config.model_dump(mode="json")
    read = [[shard.name, shard.stamp] for shard in shards]
    code = [VERSION, version_of(type(source)), __version__, lance.__version__]
    checked = videos.model_dump(mode="json")
    return content_id("source", config, read, code, classes, checked)


def outcome(storage: Storage, dataset: records.Dataset) -> str:
    """Say in a line how many samples there are, and what was set aside, with an example of each."""
    marker = told_of(storage, dataset)
    said = [f"{dataset.rows} samples", f"{dataset.rejected} rejected"]
    if dataset.rejected:
        said[-1] += f" ({_counted(Counter(marker['reasons']), marker['first'])})"
    if remarks := marker["remarks"]:
        said.append(_counted(Counter(remarks), marker["first"]))
    return ", ".join(said)


def _counted(counts: Counter[str], first: dict[str, str]) -> str:
    """Name all counts, and an example of the most frequent."""
    said = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    ((name, _),) = counts.most_common(1)
    example = f"first {name}" if len(counts) > 1 else "first"
    return f"{said}; {example}: {printable(first[name], _SHOWN)}"


def _row(index: int, shard: Shard) -> dict[str, Any]:
    return {"index": index, "name": shard.name, "shard": pickle.dumps(shard)}


def _split(tasks: Tasks, shards: list[Shard]) -> list[list[Shard]]:
    """Split those shards that are to be, each in a task of its own; in their order."""
    found = [[shard] for shard in shards]
    rows = [_row(index, shard) for index, shard in enumerate(shards) if shard.split]
    for row in tasks.map(split_shard, rows):
        found[row["index"]] = pickle.loads(row["shards"])
    return found


def _write(
    shards: list[Shard],
    wide: bool,
    at: Staging,
    tasks: Tasks,
    progress: OnProgress | None,
    note: Callable[[str], None],
) -> tuple[list[Manifest], int]:
    """Read all shards that are not known; return all manifests, in order, and the samples read."""
    rows = [_row(index, shard) for index, shard in enumerate(shards)]
    place = {"storage": at.storage, "folder": at.folder}
    left = at.parts
    begun = [row for row in rows if part_name(row["index"]) in left]
    manifests: dict[int, Manifest] = {}

    def known(row: dict[str, str]) -> Manifest:
        manifest = Manifest(**json.loads(row["manifest"]))
        manifests[manifest.index] = manifest
        return manifest

    for row in tasks.map(known_part, begun, **place):
        if row["manifest"]:
            known(row)
    if begun:
        note(f"{len(manifests)} of {len(shards)} shards were read before")
        if progress is not None:
            progress(len(manifests), len(shards))
    missing = [{**row, "wide": wide} for row in rows if row["index"] not in manifests]
    samples = 0
    for row in tasks.map(write_shard, missing, table=at.table, **place):
        at.lease.check()
        manifest = known(row)
        samples += manifest.accepted + sum(manifest.reasons.values())
        if progress is not None:
            progress(len(manifests), len(shards))
    return [manifests[index] for index in range(len(shards))], samples


def _build_table(uri: str, manifests: list[Manifest], wide: bool, tasks: Tasks) -> None:
    places: list[dict[str, Any]] = [*commit(uri, manifests, wide)]
    commit_row_ids(uri, list(tasks.map(add_row_ids, places, uri=uri)))
    import lance

    # Also drops what retried tasks have written and nobody has committed.
    table = lance.dataset(uri, storage_options=lance_options(uri))
    table.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


@dataclass(frozen=True)
class _Found:
    """What all shards held."""

    accepted: int
    reasons: Counter[str]
    remarks: Counter[str]
    first: dict[str, str]
    modalities: tuple[str, ...]
    pairs: bool

    @classmethod
    def of(cls, manifests: list[Manifest]) -> _Found:
        first: dict[str, str] = {}
        reasons, remarks = Counter[str](), Counter[str]()
        for manifest in manifests:
            reasons.update(manifest.reasons)
            remarks.update(manifest.remarks)
            first = {**manifest.first, **first}
        return cls(
            accepted=sum(manifest.accepted for manifest in manifests),
            reasons=reasons,
            remarks=remarks,
            first=first,
            modalities=("text", *sorted({one for each in manifests for one in each.modalities})),
            pairs=all(manifest.pairs for manifest in manifests),
        )


def _refuse_if_bad(
    found: _Found,
    max_rejected: float,
    shards: list[Shard],
    at: Staging,
) -> None:
    rows, rejected = found.accepted, found.reasons.total()
    if rows + rejected == 0:
        seen = f": {_counted(found.remarks, found.first)}" if found.remarks else ""
        raise BadInput(f"the source holds no samples{seen}")
    if rows and rejected <= max_rejected * (rows + rejected):
        return
    stamp = [[shard.name, shard.stamp] for shard in shards]
    path = f"rejected/{content_id('rejected', stamp)}.parquet"
    _collect_rejections(at, path)
    raise BadInput(
        f"{rejected} of {rows + rejected} samples were rejected, more than "
        f"max_rejected: {max_rejected:g} allows: {_counted(found.reasons, found.first)}; each with "
        f"its reason in {at.storage.uri(path)}"
    )


def _collect_rejections(at: Staging, path: str) -> None:
    """Join the rejections of all shards in one file, in order, one shard in memory at a time."""
    storage, folder = at.storage, at.folder
    with (
        storage.open_write(path) as file,
        pq.ParquetWriter(file, REJECTED_SCHEMA, write_page_checksum=True) as writer,
    ):
        for name in storage.names(f"{folder}/rejected"):
            writer.write_table(storage.read_table(f"{folder}/rejected/{name}"))
