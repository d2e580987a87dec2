"""Source to sample table: shards are read in Ray Data tasks, the driver puts them in order.

Work in progress lies in a folder of its own with a lease in it, so that what killed runs left
behind is known and removed; a finished dataset appears in its place at once, and runs that read the
same put it there one after the other: the second finds it.
"""

from __future__ import annotations

import json
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import lance
import pyarrow.parquet as pq
import ray.data

from djsandbox_ray import records
from djsandbox_ray.dataset.complete import complete_dataset, mark_complete, told_of
from djsandbox_ray.dataset.faults import described, printable
from djsandbox_ray.dataset.fragments import (
    REJECTED_SCHEMA,
    Manifest,
    add_row_ids,
    commit,
    commit_row_ids,
    split_shard,
    write_shard,
)
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.sample_table import lance_options
from djsandbox_ray.dataset.source import Shard, Source
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import chain, content_id
from djsandbox_ray.nodes.connection import check_placeable
from djsandbox_ray.nodes.kinds import NodeKind, bundle
from djsandbox_ray.nodes.waiting import AwaitRoom
from djsandbox_ray.storage.lease import dead, take
from djsandbox_ray.storage.store import Storage

_PREFIX, _LEASE = ".staging-", "lease"

FOLDER = "datasets"
_MAX_BLOCKS = 1024
_SHOWN = 300
"""Characters of an example on the terminal; all of it is in ``rejected.parquet``."""
_CPUS_PER_TASK = 1
_ANY = NodeKind()

OnProgress = Callable[[int, int], None]


def ingest(
    source: Source,
    storage: Storage,
    *,
    max_rejected: float,
    workers: int | None = None,
    resources: NodeKind = _ANY,
    await_room: AwaitRoom = check_placeable,
    progress: OnProgress | None = None,
    spent: Callable[[records.Cost], None] | None = None,
) -> records.Dataset:
    """Read a source into a table in ``datasets/<dataset id>``; Ray must be connected.

    A sample's ``row_id`` is its position among the accepted samples of the source, in its order,
    whatever the number of workers. A dataset that is there already is kept. ``rejected.parquet``
    (source, reason, detail, samples lost) and ``dataset.json``, which marks the dataset as complete
    and names its table, lie beside the table.

    Args:
        source: what to read.
        storage: where to write.
        max_rejected: share of the samples read that may be rejected, from 0 to 1.
        workers: shards that are read at a time; None for as many as there are CPUs.
        resources: which nodes read.
        await_room: waits until there are such nodes.
        progress: called with the number of finished shards and of all shards.
        spent: called at the end with what it cost.

    Raises:
        BadInput: no samples, more than ``max_rejected`` of them are rejected, or no such nodes.
    """
    await_room([bundle(_CPUS_PER_TASK, 0, resources)], "ingest.resources")
    start = time.perf_counter()
    tasks = _Tasks(workers, resources)
    shards = prepared(source, tasks.split)
    with staging(storage, FOLDER) as folder:
        manifests = _write(shards, storage, folder, tasks, progress)
        found = _Found.of(manifests)
        rows, rejected = found.accepted, found.reasons.total()
        _refuse_if_bad(found, max_rejected, shards, storage, folder)
        digests = [bytes.fromhex(manifest.digest) for manifest in manifests if manifest.accepted]
        dataset_id = content_id("dataset", chain(digests).hex())
        home = f"{FOLDER}/{dataset_id}"
        with take(storage, f"{home}/{_LEASE}", f"dataset {dataset_id}", wait=True):
            table = placed(
                storage,
                f"{folder}/samples.lance",
                home,
                lambda uri: _build_table(uri, manifests, tasks),
            )
            _collect_rejections(storage, folder, f"{home}/rejected.parquet")
            dataset = records.Dataset(dataset_id, table, rows, rejected)
            told = {"reasons": found.reasons, "remarks": found.remarks, "first": found.first}
            mark_complete(storage, dataset, told)
    if spent is not None:
        spent(tasks.cost(rows + rejected, time.perf_counter() - start))
    return dataset


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


def placed(storage: Storage, staged: str, home: str, build: Callable[[str], None]) -> str:
    """Return the path of a dataset's table, built and put there unless it is there already.

    Who calls it holds the lease of the dataset. Should two believe that they do, as one was asleep,
    that whose table is named by ``dataset.json`` first has it read by both; where a folder is not
    moved at once, each has a path of its own.

    Args:
        storage: where the dataset lies.
        staged: path at which the table is built.
        home: folder of the dataset.
        build: writes the table to a URI.
    """
    if (found := _named_table(storage, home)) is None:
        build(storage.uri(staged))
        found = _named_table(storage, home)  # somebody may have been faster
    if found is not None:
        return found
    if storage.is_local:
        own = f"{home}/samples.lance"
        storage.remove(own)  # a killed run's: statistics beside it stay
    else:
        own = f"{home}/samples-{uuid4().hex[:8]}.lance"
    storage.move(staged, own)
    found = _named_table(storage, home) or own
    if found != own:
        storage.remove(own)
    return found


def _named_table(storage: Storage, home: str) -> str | None:
    """Return the path of the table of a complete dataset."""
    found = complete_dataset(storage, home)
    return found.table if found else None


class _Tasks:
    """Runs functions in Ray tasks and adds up how long they took.

    Starting a process for them, a few seconds each on a fresh cluster, is not among it.

    Args:
        workers: tasks at a time; None for as many as there are CPUs.
        resources: which nodes they run on.
    """

    def __init__(self, workers: int | None, resources: NodeKind) -> None:
        self._workers = workers
        self._resources = resources
        self._seconds = 0.0

    def map(
        self, function: Callable[..., dict[str, Any]], rows: list[dict[str, Any]], **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        """Run a function on rows; results come as they are ready.

        Raises:
            SandboxError: what the function raises, in words. It comes as a value: an exception
                would come with Ray's tracebacks.
        """
        if not rows:
            return
        call: Callable[..., dict[str, Any]] = _timed
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map(
            call,
            fn_kwargs={"function": function, **arguments},
            compute=ray.data.TaskPoolStrategy(size=self._workers),
            num_cpus=_CPUS_PER_TASK,
            resources=self._resources.demand(),
        )
        data.set_name(function.__name__)  # on the dashboard, where all of them are `_timed`
        for row in data.iter_rows():
            self._seconds += row["seconds"]
            result = pickle.loads(row["result"])
            if isinstance(result, SandboxError):
                raise result
            yield result

    def split(self, shards: list[Shard]) -> list[list[Shard]]:
        """Split those shards that are to be, each in a task of its own; in their order."""
        found = [[shard] for shard in shards]
        rows = [_row(index, shard) for index, shard in enumerate(shards) if shard.split]
        for row in self.map(split_shard, rows):
            found[row["index"]] = pickle.loads(row["shards"])
        return found

    def cost(self, samples: int, wall_seconds: float) -> records.Cost:
        """Return what all tasks so far cost; reading is no arithmetic."""
        return records.Cost(
            stage="ingest",
            samples=samples,
            flops=0.0,
            cpu_seconds=self._seconds * _CPUS_PER_TASK,
            gpu_seconds=0.0,
            wall_seconds=wall_seconds,
        )


def _row(index: int, shard: Shard) -> dict[str, Any]:
    return {"index": index, "shard": pickle.dumps(shard)}


def _timed(
    row: dict[str, Any], *, function: Callable[..., dict[str, Any]], **arguments: Any
) -> dict[str, Any]:
    start = time.perf_counter()
    result: dict[str, Any] | SandboxError
    try:
        result = function(row, **arguments)
    except SandboxError as error:
        result = error
    except Exception as error:
        result = SandboxError(f"{function.__name__}: {described(error)}")
    return {"result": pickle.dumps(result), "seconds": time.perf_counter() - start}


def _write(
    shards: list[Shard],
    storage: Storage,
    folder: str,
    tasks: _Tasks,
    progress: OnProgress | None,
) -> list[Manifest]:
    rows = [_row(index, shard) for index, shard in enumerate(shards)]
    manifests = []
    for row in tasks.map(write_shard, rows, storage=storage, folder=folder):
        manifests.append(Manifest(**json.loads(row["manifest"])))
        if progress is not None:
            progress(len(manifests), len(shards))
    return sorted(manifests, key=lambda manifest: manifest.index)


def _build_table(uri: str, manifests: list[Manifest], tasks: _Tasks) -> None:
    places: list[dict[str, Any]] = [*commit(uri, manifests)]
    commit_row_ids(uri, list(tasks.map(add_row_ids, places, uri=uri)))
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

    @classmethod
    def of(cls, manifests: list[Manifest]) -> _Found:
        first: dict[str, str] = {}
        reasons, remarks = Counter[str](), Counter[str]()
        for manifest in manifests:
            reasons.update(manifest.reasons)
            remarks.update(manifest.remarks)
            first = {**manifest.first, **first}
        return cls(sum(manifest.accepted for manifest in manifests), reasons, remarks, first)


def _refuse_if_bad(
    found: _Found,
    max_rejected: float,
    shards: list[Shard],
    storage: Storage,
    folder: str,
) -> None:
    rows, rejected = found.accepted, found.reasons.total()
    if rows + rejected == 0:
        seen = f": {_counted(found.remarks, found.first)}" if found.remarks else ""
        raise BadInput(f"the source holds no samples{seen}")
    if rows and rejected <= max_rejected * (rows + rejected):
        return
    stamp = [[shard.name, shard.stamp] for shard in shards]
    path = f"rejected/{content_id('rejected', stamp)}.parquet"
    _collect_rejections(storage, folder, path)
    raise BadInput(
        f"{rejected} of {rows + rejected} samples were rejected, more than "
        f"max_rejected: {max_rejected:g} allows: {_counted(found.reasons, found.first)}; each with "
        f"its reason in {storage.uri(path)}"
    )


def _collect_rejections(storage: Storage, folder: str, path: str) -> None:
    """Join the rejections of all shards in one file, in order, one shard in memory at a time."""
    with (
        storage.open_write(path) as file,
        pq.ParquetWriter(file, REJECTED_SCHEMA, write_page_checksum=True) as writer,
    ):
        for name in storage.names(f"{folder}/rejected"):
            writer.write_table(storage.read_table(f"{folder}/rejected/{name}"))


@contextmanager
def staging(storage: Storage, parent: str) -> Iterator[str]:
    """Give a new folder below ``parent``, removed when the block ends, however it ends.

    What killed runs have left behind is removed first: what bears our lease, and whose owner is
    dead. Nothing else is, whatever its name.
    """
    present = [f"{parent}/{name}" for name in storage.names(parent) if name.startswith(_PREFIX)]
    for lease in dead(storage, [f"{folder}/{_LEASE}" for folder in present]):
        storage.remove(lease.removesuffix(f"/{_LEASE}"))
    folder = f"{parent}/{_PREFIX}{uuid4().hex}"
    try:
        with take(storage, f"{folder}/{_LEASE}", folder):
            yield folder
    finally:
        storage.remove(folder)
