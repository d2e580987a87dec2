"""Cuts the statistics into pools and makes controls and self-tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.writing import note_broken, write_pools
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.eligible import outside
from djsandbox_ray.recipes.policy import marked
from djsandbox_ray.records import Dataset, Leak, Pools, Statistics
from djsandbox_ray.settings.code import codes_in
from djsandbox_ray.stats.parts import StatisticColumns


class BuildPools(Hook):
    """Writes ``assignments.parquet`` and ``pools.json``."""

    VERSION = 1

    def identity(self) -> Any:
        """The sections ``pools`` and ``policies``, and the code of a user's builders."""
        policies = [policy.model_dump(mode="json") for policy in self.config.policies]
        codes = codes_in(self.config.pools.model_dump(mode="json"))
        return [self.config.pools.model_dump(mode="json"), policies, *codes]

    def run(self, dataset: Dataset, statistics: Statistics, leaks: Leak) -> Pools:
        """Build pools of one size from all statistics that are testable."""
        self.context.progress.stage("pools")
        row_ids = np.arange(dataset.rows, dtype=np.int64)
        columns = StatisticColumns(self.storage, statistics.statistics, dataset.rows)
        excluded = np.union1d(self._leaked(leaks), self._outside(row_ids, columns))
        built = construct(row_ids, columns, self.config.pools, excluded)
        operators = {item.name: item.operator for item in statistics.statistics}
        named = [replace(p, operator=operators.get(p.statistic or "")) for p in built.pools]
        made = Pools(
            id="",
            assignments="",
            pools=marked(named, built.assignments, self.config.policies, columns),
            size=built.size,
            draw_size=built.draw_size,
            eligible=built.eligible,
            seed=self.config.pools.seed,
            not_testable=built.not_testable,
            contrast=built.contrast,
            missing=built.missing,
        )
        pools = write_pools(self, made, {"row_id": row_ids, **built.assignments}, of=dataset.id)
        note_broken(self, pools, "pools")
        for item in pools.not_testable:
            self.note(f"pools: {item.statistic} is not testable: {item.reason}")
        self.note(
            f"pools: {len(pools.pools)} of {pools.size} rows; a trial draws {pools.draw_size}"
        )
        return pools

    def _leaked(self, leaks: Leak) -> NDArray[np.int64]:
        """Return the ids of the rows that are evaluation samples, too."""
        if not (leaks.removed and leaks.rows):
            return np.empty(0, np.int64)
        table = self.storage.read_table(leaks.path, ["row_id"])
        rows: NDArray[np.int64] = table["row_id"].to_numpy()
        return rows

    def _outside(self, row_ids: NDArray[np.int64], columns: StatisticColumns) -> NDArray[np.int64]:
        """Return the ids of the rows that ``within`` keeps out."""
        ranges = self.config.pools.ranges
        found = outside(row_ids, columns, ranges)
        if ranges:
            self.note(
                f"pools: {len(found)} of {len(row_ids)} rows are not within "
                f"{', '.join(item.text for item in ranges)}"
            )
        return found
