"""Cuts the statistics into pools and makes controls and self-tests."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.plans import spoils_of
from djsandbox_ray.hooks.writing import assignments_of, note_broken, write_pools
from djsandbox_ray.nodes.kinds import bundle
from djsandbox_ray.pools.build import SPOILS, Layout, check_rows, construct, lay_out
from djsandbox_ray.pools.contrast import Probe
from djsandbox_ray.pools.eligible import outside
from djsandbox_ray.pools.filling import Column, filled
from djsandbox_ray.recipes.policy import marked
from djsandbox_ray.records import Dataset, Leak, Pool, Pools, Statistics
from djsandbox_ray.settings.code import codes_in
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.stats.stored_rows import StoredRows
from djsandbox_ray.storage.store import Storage

MANY_ROWS = 1 << 21
"""From so many on, tasks cut and fill columns; of fewer, starting them would take longer."""
_CPUS = 1
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's ``mallopt``: from how many free bytes on they are given back, and from what
size on each array has pages of its own."""
_LARGE = 32 << 20
"""As much as the second may be."""


class BuildPools(Hook):
    """Writes ``assignments.parquet`` and ``pools.json``."""

    VERSION = 2

    def identity(self) -> Any:
        """The sections ``pools`` and ``policies``, and the code of a user's builders."""
        policies = [policy.model_dump(mode="json") for policy in self.config.policies]
        codes = codes_in(self.config.pools.model_dump(mode="json"))
        spoils = spoils_of(self.config)
        more = [] if spoils == SPOILS else [list(spoils)]
        return [self.config.pools.model_dump(mode="json"), policies, *codes, *more]

    def run(self, dataset: Dataset, statistics: Statistics, leaks: Leak) -> Pools:
        """Build pools of one size from all statistics that are testable."""
        self.context.progress.stage("pools")
        columns = StatisticColumns(self.storage, statistics.statistics, dataset.rows)
        excluded = np.union1d(self._leaked(leaks), self._outside(dataset.rows, columns))
        layout: Layout
        assignments: Mapping[str, NDArray[np.int8]]
        written: dict[str, NDArray[Any]] | None
        if dataset.rows < MANY_ROWS or self.config.pools.extra:
            row_ids = np.arange(dataset.rows, dtype=np.int64)
            built = construct(row_ids, columns, self.config.pools, excluded, spoils_of(self.config))
            layout, found, assignments = built, built.pools, built.assignments
            written = {"row_id": row_ids, **built.assignments}
        else:
            rows = StoredRows(self.storage, statistics.statistics, dataset.rows, excluded)
            layout, found = self._in_tasks(rows, tuple(columns), len(excluded))
            assignments, written = _Written(self.storage, assignments_of(self)), None
        operators = {item.name: item.operator for item in statistics.statistics}
        named = [replace(p, operator=operators.get(p.statistic or "")) for p in found]
        made = Pools(
            id="",
            assignments="",
            pools=marked(named, assignments, self.config.policies, columns),
            size=layout.size,
            draw_size=layout.draw_size,
            eligible=layout.eligible,
            seed=self.config.pools.seed,
            not_testable=layout.not_testable,
            contrast=layout.contrast,
            missing=layout.missing,
        )
        pools = write_pools(self, made, written, of=dataset.id)
        note_broken(self, pools, "pools")
        for item in pools.not_testable:
            self.note(f"pools: {item.statistic} is not testable: {item.reason}")
        self.note(
            f"pools: {len(pools.pools)} of {pools.size} rows; a trial draws {pools.draw_size}"
        )
        return pools

    def _in_tasks(
        self, rows: StoredRows, names: tuple[str, ...], excluded: int
    ) -> tuple[Layout, tuple[Pool, ...]]:
        """Cut every statistic in a Ray task, and fill every column in one; write the assignments.

        The codes come through the object store a part at a time; of all of them the driver holds
        one part.
        """
        config, nodes = self.config.pools, self.config.statistics.resources
        check_rows(len(rows), excluded, config)
        self.context.await_room([bundle(_CPUS, 0, nodes)], "statistics.resources")

        def each(look: Callable[[str], Probe], names: Sequence[str]) -> list[Probe]:
            shared = ray.put(look)
            cut = ray.remote(num_cpus=_CPUS)(_look).options(
                name="cut a statistic", resources=nodes.demand()
            )
            found: list[Probe] = ray.get([cut.remote(shared, name) for name in names])
            return found

        layout = lay_out(rows, names, config, each, {}, (), spoils_of(self.config))
        columns: list[Column] = [*layout.buckets, *layout.random]
        fill = ray.remote(num_cpus=_CPUS)(_fill).options(
            name="fill a column", resources=nodes.demand(), num_returns="streaming"
        )
        shared = ray.put(rows)
        streams: list[Any] = [fill.remote(shared, column) for column in columns]
        ids = pa.field("row_id", pa.int64())
        schema = pa.schema([ids, *(pa.field(column.name, pa.int8()) for column in columns)])

        def groups() -> Iterator[pa.Table]:
            for row_ids in rows.every_id():
                parts = ray.get([next(stream) for stream in streams])
                yield pa.table([row_ids, *parts], schema)

        self.storage.write_groups(assignments_of(self), schema, groups())
        pools = ray.get([next(stream) for stream in streams])
        return layout, tuple(chain.from_iterable(pools))

    def _leaked(self, leaks: Leak) -> NDArray[np.int64]:
        """Return the ids of the rows that are evaluation samples, too."""
        if not (leaks.removed and leaks.rows):
            return np.empty(0, np.int64)
        table = self.storage.read_table(leaks.path, ["row_id"])
        rows: NDArray[np.int64] = table["row_id"].to_numpy()
        return rows

    def _outside(self, rows: int, columns: StatisticColumns) -> NDArray[np.int64]:
        """Return the ids of the rows that ``within`` keeps out."""
        ranges = self.config.pools.ranges
        if not ranges:
            return np.empty(0, np.int64)
        found = outside(np.arange(rows, dtype=np.int64), columns, ranges)
        self.note(
            f"pools: {len(found)} of {rows} rows are not within "
            f"{', '.join(item.text for item in ranges)}"
        )
        return found


class _Written(Mapping[str, NDArray[np.int8]]):
    """Columns of codes that are written; one is read when it is asked for, and not kept."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path

    def __getitem__(self, name: str) -> NDArray[np.int8]:
        codes: NDArray[np.int8] = self._storage.read_table(self._path, [name])[name].to_numpy()
        return codes

    def __iter__(self) -> Iterator[str]:
        return iter(self._storage.read_table(self._path, []).schema.names)

    def __len__(self) -> int:
        return len(list(iter(self)))


@cache
def _keep_memory() -> None:
    """Have this process keep what arrays have freed for those to come.

    By default glibc gives it back to the system at once, and each array of a slice is brought in
    page by page: that takes longer than what is computed in it. Other C libraries stay as they are.
    """
    if (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        set_option(_MMAP_THRESHOLD, _LARGE)
        set_option(_TRIM_THRESHOLD, 4 * _LARGE)


def _look(look: Callable[[str], Probe], name: str) -> Probe:
    _keep_memory()
    return look(name)


def _fill(rows: StoredRows, column: Column) -> Iterator[NDArray[np.int8] | tuple[Pool, ...]]:
    """Yield the codes of all rows, a part at a time, and the pools of the column last."""
    _keep_memory()
    pools: list[tuple[Pool, ...]] = []

    def codes() -> Iterator[NDArray[np.int8]]:
        for made in filled(column, rows):
            if isinstance(made, tuple):
                pools.append(made)
            else:
                yield made

    yield from rows.expand(codes())
    yield from pools
