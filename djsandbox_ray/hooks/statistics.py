"""Computes the statistics of the operators, or finds them computed."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.recipes.export import with_scorer
from djsandbox_ray.records import Dataset, Scorer, Statistics
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.operators import operator_id, parse_process
from djsandbox_ray.stats.parts import broken_parts


class ComputeStatistics(Hook):
    """One number per sample and statistic, cached per dataset, operator and parameters."""

    VERSION = 1

    def identity(self) -> Any:
        """The operators with the content of their local models; a scorer is an input."""
        models = self.config.statistics.models
        return [operator_id(spec, models) for spec in parse_process(self.config.operators)]

    def broken(self, output: Statistics) -> dict[str, str]:
        """The parts of all operators."""
        paths = dict.fromkeys(item.path for item in output.statistics)
        found = [broken_parts(self.storage, path) for path in paths]
        return {path: what for wrong in found for path, what in wrong.items()}

    def run(self, dataset: Dataset, scorer: Scorer | None) -> Statistics:
        """Run what is missing of ``operators`` over the sample table."""
        progress, storage = self.context.progress, self.storage
        folder = storage.uri(scorer.path) if scorer else None
        progress.stage("statistics")
        statistics = compute_statistics(
            storage,
            dataset,
            parse_process(with_scorer(self.config.operators, folder)),
            settings=self.config.statistics,
            await_room=self.context.await_room,
            progress=lambda done, total: progress.update(done=done, total=total),
            spent=self.account,
            note=lambda text: self.note(f"statistics: {text}"),
        )
        names = ", ".join(statistic.name for statistic in statistics.statistics)
        progress.note(f"statistics: {names}")
        self._report_failures(statistics)
        return statistics

    def _report_failures(self, statistics: Statistics) -> None:
        """Say which operators could not score some samples, and the first reason of each."""
        for path in dict.fromkeys(statistic.path for statistic in statistics.statistics):
            marker = self.storage.read_sealed(path.removesuffix(".parquet") + ".json")
            if marker["failed"]:
                reasons = f"; first: {marker['failures'][0]}" if marker["failures"] else ""
                self.note(
                    f"statistics: {marker['operator']} failed on {marker['failed']} of "
                    f"{marker['rows']} samples, which have no value{reasons}"
                )
