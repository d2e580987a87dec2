"""Computes the statistics of the operators, or finds them computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput
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
        )
        names = ", ".join(statistic.name for statistic in statistics.statistics)
        progress.note(f"statistics: {names}")
        return statistics

    def _resolved(self, scorer: Scorer | None) -> list[str | dict[str, Any]]:
        if scorer is None:
            return self.config.operators
        if not self.context.storage.is_local:
            raise BadInput(
                f"{REFERENCE} needs a storage that is a folder which every node sees, "
                f"not {self.context.storage.url}"
            )
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
