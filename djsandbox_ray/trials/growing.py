"""Tables that grow: what a frozen part of a model makes of samples, computed once for all trials.

A table is one of Lance's, below a folder of its own in the storage, and has what is known by a key
once. Actors write fragments; whoever holds the lease adds those that are reported to the table,
every few seconds, so that a kill loses what was computed since, and no reader sees half of
anything. The next who wants more finds what is there, leaves out fragments whose files are not as
large as they were, and has the rest computed.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.faults import described
from djsandbox_ray.dataset.sample_table import lance_options
from djsandbox_ray.dataset.sample_table import readable as lance_readable
from djsandbox_ray.errors import BadInput, SandboxError, uncovered
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.actors import PassWorker, run_pass
from djsandbox_ray.nodes.kinds import NodeKind, bundle
from djsandbox_ray.nodes.waiting import AwaitRoom
from djsandbox_ray.storage.lease import Lease, take
from djsandbox_ray.storage.store import Storage

_TABLE = "table.lance"
_MANIFEST = ".manifest"
"""What Lance writes last of a version."""
_TASK = 128
"""Keys that an actor computes at a time: what a kill loses of it."""
_MOST_TASKS = 2048
_TASKS_OF_AN_ACTOR = 4
"""Fewer are sooner done than one more process has loaded what computes them."""
_ADDED = 10.0
"""Seconds between two additions to a table: each writes a list of all fragments."""
_AGAIN = (
    "where it is damaged, remove the folder that it lies in, and the same command computes it again"
)
_CPU_SHARE = 0.5
"""Of the CPUs that an actor keeps busy, the share that Ray reserves: on a cluster that is reserved
whole, Ray Data's own tasks would wait forever."""

Keys = NDArray[np.int64]
"""What is known of a table by, each once, in rising order; shape (n,)."""


@dataclass(frozen=True)
class Growth:
    """Who computes what a table lacks, and who is told of it."""

    cpus: float
    """That an actor keeps busy; there are as many actors as have room."""
    gpus: float
    """Of an actor, or the share of one."""
    nodes: NodeKind
    """Where they run."""
    where: str
    """The section of the configuration that says all that."""
    await_room: AwaitRoom
    note: Callable[[str], None]
    """Told what is being done, in lines."""
    update: Callable[[str], None]
    """Told how far it is, again and again, and "" at the end."""

    @property
    def actor(self) -> dict[str, float]:
        """What Ray reserves for an actor."""
        return bundle(self.cpus * _CPU_SHARE, self.gpus, self.nodes)


class GrowingTable:
    """A table of the storage that grows.

    Args:
        storage: where it lies.
        folder: of this table alone.
        schema: its columns.
        key: the column of keys, of 64-bit whole numbers.
    """

    def __init__(self, storage: Storage, folder: str, schema: pa.Schema, key: str) -> None:
        self.folder, self.schema = folder, schema
        self._storage, self._key = storage, key
        self._path = f"{folder}/{_TABLE}"

    @property
    def uri(self) -> str:
        """Of the table, for readers."""
        return self._storage.uri(self._path)

    def keys(self) -> Keys:
        """Return what it has.

        Raises:
            Damaged: it cannot be read.
        """
        if not self._is_there:
            return np.zeros(0, np.int64)
        with readable(self.uri):
            column = self._open().to_table(columns=[self._key])[self._key]
            return np.unique(column.to_numpy())

    def lacks(self, wanted: Keys) -> bool:
        """Say whether some of it is not there, or not whole."""
        return bool(self._broken()) or not np.isin(wanted, self.keys()).all()

    def take(self, what: str, note: Callable[[str], None]) -> Lease:
        """Take the lease of it, once nobody else has it; see :func:`storage.lease.take`."""
        return take(self._storage, f"{self.folder}/lease", what, wait=True, note=note)

    def begin(self, wanted: Keys, what: str, note: Callable[[str], None]) -> Keys:
        """Make the table, or leave out what is damaged, and return what is to be computed."""
        import lance  # where something is written or read: a plan is to answer at once

        if not self._is_there:
            self._storage.remove(self._path)  # what was killed before it was a table
            empty = self.schema.empty_table()
            lance.write_dataset(empty, self.uri, storage_options=lance_options(self.uri))
        elif broken := self._broken():
            note(f"{what}: {len(broken)} parts are damaged, and are computed again")
            self._commit(lance.LanceOperation.Delete([], broken, "damaged"))
        return np.setdiff1d(wanted, self.keys())

    def append(self, fragments: Sequence[str]) -> None:
        """Add what :func:`write_rows` has returned."""
        import lance
        from lance.fragment import FragmentMetadata

        self._commit(lance.LanceOperation.Append([*map(FragmentMetadata.from_json, fragments)]))

    def tidy(self) -> None:
        """Drop what was before, and what killed processes have written and nobody has added."""
        self._open().cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)

    @property
    def _is_there(self) -> bool:
        return any(
            name.endswith(_MANIFEST) for name in self._storage.names(f"{self._path}/_versions")
        )

    def _open(self) -> Any:
        import lance

        return lance.dataset(self.uri, storage_options=lance_options(self.uri))

    def _broken(self) -> list[int]:
        """Return the ids of fragments with a file that is gone or has another size."""
        if not self._is_there:
            return []
        stamps = self._storage.stamps(f"{self._path}/data")
        with readable(self.uri):
            return [
                fragment.fragment_id
                for fragment in self._open().get_fragments()
                if any(
                    file.path not in stamps
                    or file.file_size_bytes not in (None, int(stamps[file.path]["size"]))
                    for file in fragment.metadata.files
                )
            ]

    def _commit(self, operation: Any) -> None:
        import lance

        version = self._open().version
        options = lance_options(self.uri)
        lance.LanceDataset.commit(
            self.uri, operation, read_version=version, storage_options=options
        )


class RowsJob(ABC):
    """Computes rows of one table; it is sent to actors, and loads there what it needs, once."""

    @abstractmethod
    def batches(self, schema: pa.Schema, keys: Keys) -> Iterator[pa.RecordBatch]:
        """Compute the rows of some keys, of which there is at least one."""


@dataclass(frozen=True)
class Wanted:
    """What a table is to have."""

    table: GrowingTable
    keys: Keys
    what: str
    """It is made of, in words: "latents of clips"."""
    job: Callable[[Keys], RowsJob]
    """Returns what computes some keys, given all that lack."""


@dataclass(frozen=True)
class Part:
    """Of a table, what actors compute."""

    uri: str
    schema: pa.Schema
    lacking: Keys
    job: RowsJob


class RowsWorker(PassWorker):
    """Computes rows of tables.

    Args:
        parts: of all tables that the pass is for.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self._parts = parts

    def compute(self, task: dict[str, Any]) -> dict[str, Any]:
        """Compute and write some of the rows of a part."""
        part = self._parts[task["part"]]
        keys = part.lacking[task["start"] : task["stop"]]
        fragments = write_rows(part.uri, part.schema, part.job.batches(part.schema, keys))
        return {"part": task["part"], "rows": len(keys), "fragments": fragments}


def grow(wanted: Sequence[Wanted], growth: Growth) -> float:
    """Have computed what lacks of tables, in one pass: what computes it is loaded once.

    One process at a time computes for a table, and others wait for it.

    Args:
        wanted: what tables are to have; the keys of those that are the same are put together.
        growth: who computes.

    Returns:
        Seconds that actors lived, all together; 0 where nothing lacks.

    Raises:
        Damaged: a table cannot be read.
        SandboxError: what an actor stumbled over.
        Lost: this process was not heard of for long, and another one does it now.
    """
    lacking = [one for one in _by_table(wanted) if one.table.lacks(one.keys)]
    with ExitStack() as leases:
        held = [
            (one, leases.enter_context(one.table.take(one.what, growth.note))) for one in lacking
        ]
        # Who was waited for may have computed some.
        parts = [_Growing(one, lease, growth) for one, lease in held]
        parts = [part for part in parts if len(part.lacking)]
        return _compute(parts, growth) if parts else 0.0


def _by_table(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Return each table once, in an order that is everybody's: else two wait for each other."""
    found: dict[str, Wanted] = {}
    for one in wanted:
        before = found.get(one.table.folder)
        keys = one.keys if before is None else np.union1d(before.keys, one.keys)
        found[one.table.folder] = replace(before or one, keys=keys)
    return [found[folder] for folder in sorted(found)]


def _compute(parts: Sequence[_Growing], growth: Growth) -> float:
    def on_report(report: dict[str, Any]) -> None:
        parts[report["part"]].add(report["fragments"], report["rows"])

    whats = ", ".join(part.wanted.what for part in parts)
    try:
        seconds = run_pass(
            [{"part": at, **task} for at, part in enumerate(parts) for task in part.tasks()],
            RowsWorker,
            [part.given() for part in parts],
            name=whats,
            where=growth.where,
            group=[growth.actor],
            fill=True,
            share=_TASKS_OF_AN_ACTOR,
            await_room=growth.await_room,
            on_report=on_report,
        )
        for part in parts:
            part.close()
    except BaseException:
        for part in parts:
            with uncovered(f"{part.wanted.what}: what is computed is added to its table"):
                part.close()
        raise
    finally:
        growth.update("")
    for part in parts:
        part.tidy()
    return seconds


class _Growing:
    """A table, while rows are computed for it; they are added every few seconds.

    Args:
        wanted: what it is to have.
        lease: of the table.
        growth: who computes.
    """

    def __init__(self, wanted: Wanted, lease: Lease, growth: Growth) -> None:
        self.wanted, self._lease, self._growth = wanted, lease, growth
        self.lacking = wanted.table.begin(wanted.keys, wanted.what, growth.note)
        if len(self.lacking):
            growth.note(
                f"{wanted.what}: {len(self.lacking):,} of {len(wanted.keys):,} are computed, "
                "once for all trials"
            )
        self._waiting: list[str] = []
        self._last = time.monotonic()
        self._done = 0

    def given(self) -> Part:
        """Return what actors are told."""
        table = self.wanted.table
        return Part(table.uri, table.schema, self.lacking, self.wanted.job(self.lacking))

    def tasks(self) -> Iterator[dict[str, int]]:
        """Yield what an actor computes at a time."""
        total = len(self.lacking)
        size = max(_TASK, -(-total // _MOST_TASKS))
        for start in range(0, total, size):
            yield {"start": start, "stop": min(start + size, total)}

    def add(self, fragments: Sequence[str], rows: int) -> None:
        """Take what an actor has written."""
        self._waiting += fragments
        self._done += rows
        self._growth.update(f"{self.wanted.what}, {self._done:,} of {len(self.lacking):,}")
        is_whole = self._done == len(self.lacking)  # others may wait for just this table
        if is_whole or time.monotonic() - self._last >= _ADDED:
            self.close()

    def close(self) -> None:
        """Add what is waiting to the table."""
        self._lease.check()
        if self._waiting:
            self.wanted.table.append(self._waiting)
        self._waiting, self._last = [], time.monotonic()

    def tidy(self) -> None:
        """Drop what nobody has added; whoever has taken the lease over may be about to add it."""
        self._lease.check()
        self.wanted.table.tidy()


class GrownRows:
    """Random access to what a table has by its keys. Opened on first use.

    Args:
        uri: of a table that has what is known by a key in one row.
        key: the column of keys.
    """

    def __init__(self, uri: str, key: str) -> None:
        self.uri, self._key = uri, key

    @cached_property
    def _table(self) -> Any:
        import lance

        with readable(self.uri):
            return lance.dataset(self.uri, storage_options=lance_options(self.uri))

    @cached_property
    def _held(self) -> tuple[Keys, NDArray[np.int64]]:
        """The keys that there are, rising, and where each is in the table."""
        with readable(self.uri):
            stored = self._table.to_table(columns=[self._key])[self._key].to_numpy()
        order = np.argsort(stored)
        return stored[order], order

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """What the schema says beside the columns."""
        return dict(self._table.schema.metadata or {})

    def holds(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some keys are there; shape (n,)."""
        stored, _ = self._held
        if not len(stored):
            return np.zeros(len(keys), dtype=np.bool_)
        found: NDArray[np.bool_] = stored[self._at(keys)] == keys
        return found

    def take(self, keys: NDArray[np.int64], column: str) -> pa.ChunkedArray:
        """Return what a column has under some keys, in order; they may repeat.

        Raises:
            BadInput: one of them is not there.
        """
        if not (held := self.holds(keys)).all():
            lacking = keys[~held]
            raise BadInput(
                f"{self.uri}: {len(lacking)} of {len(keys)} keys are not there, such as "
                f"{lacking[0]}"
            )
        with readable(self.uri):
            return self._table.take(self._held[1][self._at(keys)], columns=[column])[column]

    def _at(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where each of some keys is among the rising ones, if it is there."""
        stored, _ = self._held
        return np.minimum(np.searchsorted(stored, keys), len(stored) - 1)


def readable(uri: str) -> AbstractContextManager[None]:
    """Say in a sentence that a table cannot be read; see :func:`.sample_table.readable`.

    Args:
        uri: of the table.
    """
    return lance_readable(uri, "table", _AGAIN)


def write_rows(uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[str]:
    """Write rows beside a table, whose part they are when their fragments are added.

    Args:
        uri: of the table, which is there.
        schema: of the table.
        batches: at least one row.

    Returns:
        The fragments, as JSON.

    Raises:
        SandboxError: they cannot be written, or what making them raises.
    """
    from lance.fragment import write_fragments

    failure: list[Exception] = []
    reader = pa.RecordBatchReader.from_batches(schema, _noting(batches, failure))
    try:
        written = write_fragments(
            reader, uri, schema=schema, mode="append", storage_options=lance_options(uri)
        )
    except OSError as error:
        if failure:  # Lance would only pass on its text
            raise failure[0] from None
        raise SandboxError(
            f"{without_secrets(uri)} cannot be written: {described(error)}"
        ) from error
    return [json.dumps(fragment.to_json()) for fragment in written]


def _noting(
    batches: Iterable[pa.RecordBatch], failure: list[Exception]
) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except Exception as error:
        failure.append(error)
        raise
