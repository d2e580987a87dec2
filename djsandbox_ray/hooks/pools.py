"""Cuts the statistics into pools and makes controls and self-tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import Dataset, Leak, Pools, Statistics
from djsandbox_ray.stats.table import StatisticColumns


@HOOKS.register("pools")
class BuildPools(Hook):
    """Writes ``assignments.parquet`` and ``pools.json``."""

    def identity(self) -> Any:
        """The section ``pools``."""
        return self.config.pools.model_dump(mode="json")

    def run(self, dataset: Dataset, statistics: Statistics, leak: Leak) -> Pools:
        """Build pools of one size from all statistics that are testable."""
        storage, folder = self.context.storage, self.context.folder
        self.context.progress.stage("pools")
        row_ids = np.arange(dataset.rows, dtype=np.int64)
        excluded = np.empty(0, np.int64)
        if leak.removed and leak.rows:
            leaked = storage.read_table(leak.path, ["row_id"])["row_id"].to_numpy()
            excluded = np.unique(leaked)
        columns = StatisticColumns(storage, statistics.statistics, dataset.rows)
        built = construct(row_ids, columns, self.config.pools, excluded)
        pools = Pools(
            id="",
            assignments=f"{folder}/assignments.parquet",
            pools=built.pools,
            size=built.size,
            draw_size=built.draw_size,
            eligible=built.eligible,
            seed=self.config.pools.seed,
            not_testable=built.not_testable,
            contrast=built.contrast,
            missing=built.missing,
        )
        pools = replace(pools, id=content_id("pools", dataset.id, to_json(pools)))
        table = pa.table({"row_id": row_ids, **built.assignments})
        storage.write_table(pools.assignments, table)
        storage.write_json(f"{folder}/pools.json", to_json(pools))
        for statistic in pools.not_testable:
            self.context.progress.note(
                f"pools: {statistic.statistic} is not testable: {statistic.reason}"
            )
        self.context.progress.note(
            f"pools: {len(pools.pools)} of {pools.size} rows; a trial draws {pools.draw_size}"
        )
        return pools
