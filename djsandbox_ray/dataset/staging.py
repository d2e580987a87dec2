"""The folder of an ingest that is under way, and what a killed one has left of it.

``datasets/.staging-<source>-<random>`` holds what was read of a source so far, shard by shard, and
a lease. Who ingests the same source goes on in the folder of one that has ended too early; while
that one lives, in a folder of its own. Nothing is left of an ingest that came to its end: its
dataset, or the news that the data are not good enough. What nobody goes on with is removed when it
is a week old.

On a disk the table is written in this folder and moved to its dataset, which is done at once; who
goes on with an ingest that was killed behind that, moves it back. An object store can only copy, so
there a table is written where it stays: ``tables/<source>-<random>.lance``. One that no dataset
names any more, as it was damaged and another has taken its place, is removed when it is a week old,
too: until then, runs that read it may come to their end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from djsandbox_ray.dataset.complete import FOLDER, used_tables, whole_table
from djsandbox_ray.errors import BadInput, Damaged, uncovered
from djsandbox_ray.storage.lease import Held, Lease, Lost, renewed, take
from djsandbox_ray.storage.store import Storage

KEPT = timedelta(days=7)
"""So long what was read waits for somebody to go on. Clocks that differ do no more than end that
early: of what is old, too, the lease tells whether its owner lives."""
_PREFIX, _LEASE, _PARTS, _PLACED = ".staging-", "lease", "parts", "placed.json"
_THREADS = 16
_TABLES, _TABLE = "tables", re.compile(r".+-[0-9a-f]{32}\.lance")


@dataclass(frozen=True)
class Staging:
    """What one ingest works in, and holds."""

    storage: Storage
    folder: str
    lease: Lease

    @property
    def table(self) -> str:
        """Path at which the table is written."""
        if self.storage.is_local:
            return f"{self.folder}/samples.lance"
        return f"{_TABLES}/{self.folder.rpartition(_PREFIX)[2]}.lance"

    @property
    def parts(self) -> set[str]:
        """The names of the markers of shards that were read."""
        return {*self.storage.names(f"{self.folder}/{_PARTS}")}

    def reopen(self) -> None:
        """Make the table one that shards can be written to, as it was before it was put together.

        What was written stays; Lance writes no fragments for a table that is there already.
        """
        for name in self.storage.names(self.table):
            if name != "data":
                self.storage.remove(f"{self.table}/{name}")

    def discard(self) -> None:
        """Remove the folder, and the table unless a dataset has it.

        Not if somebody else goes on here, as this process was asleep for long. The lease goes last:
        without one, nobody would know whose the rest is.
        """
        try:
            self.lease.check()
        except Lost:
            return
        for name in self.storage.names(self.folder):
            if name != _LEASE:
                self.storage.remove(f"{self.folder}/{name}")
        if not self.is_placed:
            self.storage.remove(self.table)
        self.lease.vanish()
        self.storage.remove_empty(self.folder)

    @property
    def is_placed(self) -> bool:
        """Whether the table is that of a dataset, where it lies."""
        return not self.storage.is_local and self.table in used_tables(self.storage)

    def place(self, home: str, build: Callable[[str], None]) -> str:
        """Return the path of a dataset's table, built and put there unless it is there already.

        Who calls it holds the lease of the dataset. Should two believe that they do, as one was
        asleep, each has a table of its own or, on a disk, one that holds the same.

        Args:
            home: folder of the dataset.
            build: writes the table to a URI.
        """
        storage = self.storage
        if (there := whole_table(storage, home)) is not None:
            return there
        build(storage.uri(self.table))
        if (there := whole_table(storage, home)) is not None:
            return there  # somebody was faster
        if not storage.is_local:
            return self.table
        own = _table_of(home)
        storage.remove(own)  # a killed run's: statistics beside it stay
        # What is left to be done may take long, and without the table no shard would be known.
        storage.write_sealed(f"{self.folder}/{_PLACED}", {"home": home})
        storage.move(self.table, own)
        return own

    def take_back(self) -> None:
        """Move the table back that a killed ingest has put in its place and not marked.

        Else nobody would know of it any more, whether this folder is gone on with or removed.
        """
        storage, note = self.storage, f"{self.folder}/{_PLACED}"
        try:
            home = str(storage.read_sealed(note)["home"])
        except (Damaged, KeyError):
            return
        with take(storage, f"{home}/{_LEASE}", home, wait=True):
            if (
                not storage.exists(self.table)
                and whole_table(storage, home) is None
                and self._is_at(_table_of(home))
            ):
                storage.move(_table_of(home), self.table)
        storage.remove(note)

    def _is_at(self, table: str) -> bool:
        """Say whether a table holds a file that was written here; others bear other names."""
        there = {*self.storage.names(f"{table}/data")}
        for name in sorted(self.parts):
            with suppress(Damaged, KeyError, TypeError):
                files = self.storage.read_sealed(f"{self.folder}/{_PARTS}/{name}")["files"]
                if there & {file.rpartition("/")[2] for file in files}:
                    return True
        return False


@contextmanager
def staging(storage: Storage, source: str) -> Iterator[Staging]:
    """Give a folder to read a source in: the one that a killed ingest of it has left, or a new one.

    It is kept if the block is broken off and something was read, and removed otherwise.

    Args:
        storage: where datasets lie.
        source: an id of what is read, and by which code.
    """
    staged = _begun(storage, source)
    try:
        try:
            yield staged
        except BaseException as error:
            with uncovered(f"{staged.folder} is removed"):
                # After bad input, the same command would end in the same way; what is damaged here
                # is read again by it, and nothing else.
                refused = isinstance(error, BadInput) and not isinstance(error, Damaged)
                if refused or not staged.parts:
                    staged.discard()
            raise
        staged.discard()
    finally:
        staged.lease.release()


def _begun(storage: Storage, source: str) -> Staging:
    prefix = f"{FOLDER}/{_PREFIX}{source}-"
    left = _left(storage, prefix)
    fit = [one for one in left if one.folder.startswith(prefix) and not one.is_placed]
    chosen = max(fit, key=lambda one: len(one.parts), default=None)
    for one in left:
        one.take_back()
        if one is not chosen:
            one.discard()
    if not storage.is_local:
        _clear_tables(storage)
    if chosen is not None:
        chosen.reopen()
        return chosen
    folder = f"{prefix}{uuid4().hex}"
    return Staging(storage, folder, take(storage, f"{folder}/{_LEASE}", folder))


def _left(storage: Storage, prefix: str) -> list[Staging]:
    """Take the folders that killed ingests have left: all below a prefix, of others the old ones.

    Only what bears a lease is ours, whatever its name.
    """
    now = datetime.now(UTC)

    def taken(folder: str) -> Staging | None:
        since = renewed(storage, f"{folder}/{_LEASE}")
        if since is None or not (folder.startswith(prefix) or now - since > KEPT):
            return None
        try:
            return Staging(storage, folder, take(storage, f"{folder}/{_LEASE}", folder))
        except Held:
            return None

    names = [name for name in storage.names(FOLDER) if name.startswith(_PREFIX)]
    with ThreadPoolExecutor(_THREADS) as threads:  # to see whether one lives takes a while
        found = threads.map(taken, [f"{FOLDER}/{name}" for name in names])
        return [one for one in found if one is not None]


def _clear_tables(storage: Storage) -> None:
    """Remove the tables that neither a dataset nor an ingest has, and nobody has written to lately.

    Whoever writes one has its folder first, and names it in a dataset before that goes: looked at
    in this order, none of these is missed.
    """
    tables = [name for name in storage.names(_TABLES) if _TABLE.fullmatch(name)]
    if not tables:
        return
    begun = {name.removeprefix(_PREFIX) for name in storage.names(FOLDER)}
    try:
        used = used_tables(storage, all_known=True)
    except Damaged:  # one of them may be that dataset's
        return
    now = datetime.now(UTC)
    for name in tables:
        path = f"{_TABLES}/{name}"
        if path not in used and name.removesuffix(".lance") not in begun:
            versions = [f"{path}/_versions/{one}" for one in storage.names(f"{path}/_versions")]
            with suppress(FileNotFoundError):  # another ingest removes it just now
                if all(now - storage.modified(version) > KEPT for version in versions):
                    storage.remove(path)


def _table_of(home: str) -> str:
    """Return where the table of a dataset lies on a disk."""
    return f"{home}/samples.lance"
