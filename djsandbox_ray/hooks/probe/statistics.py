"""Computes the statistics of the operators, or finds them computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.records import Dataset, Scorer, Statistics
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.operators import operator_id, parse_process
from djsandbox_ray.trials.scorer import REFERENCE


@HOOKS.register("statistics")
class ComputeStatistics(Hook):
    """One number per sample and statistic, cached per dataset, operator and parameters."""

    def identity(self) -> Any:
        """The operators with the content of their local models; a scorer is an input."""
        return [operator_id(spec) for spec in parse_process(self.config.operators)]

    def run(self, dataset: Dataset, scorer: Scorer | None) -> Statistics:
        """Run what is missing of ``operators`` over the sample table."""
        progress = self.context.progress
        progress.stage("statistics")
        statistics = compute_statistics(
            self.context.storage,
            dataset,
            parse_process(self._resolved(scorer)),
            settings=self.config.statistics,
            progress=lambda done, total: progress.update(done=done, total=total),
            spent=self.account,
        )
        names = ", ".join(statistic.name for statistic in statistics.statistics)
        progress.note(f"statistics: {names}")
        self._report_failures(statistics)
        return statistics

    def _report_failures(self, statistics: Statistics) -> None:
        """Say which operators could not score some samples, and the first reason of each."""
        for path in dict.fromkeys(statistic.path for statistic in statistics.statistics):
            marker = self.context.storage.read_json(path.removesuffix(".parquet") + ".json")
            if marker["failed"]:
                reasons = f"; first: {marker['failures'][0]}" if marker["failures"] else ""
                self.context.progress.note(
                    f"statistics: {marker['operator']} failed on {marker['failed']} of "
                    f"{marker['rows']} samples, which have no value{reasons}"
                )

    def _resolved(self, scorer: Scorer | None) -> list[str | dict[str, Any]]:
        if scorer is None:
            return self.config.operators
        folder = str(Path(self.context.storage.uri(scorer.path)))
        return [
            item
            if isinstance(item, str)
            else {
                name: {k: folder if v == REFERENCE else v for k, v in (params or {}).items()}
                for name, params in item.items()
            }
            for item in self.config.operators
        ]
