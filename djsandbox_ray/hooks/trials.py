"""Trains and evaluates every pool with every seed, or finds it done."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.hooks.bounds import first_pools, unbuilt
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.study import Inputs, Study, StudyHook, study_identity
from djsandbox_ray.records import Dataset, Pools, Statistics, Trials


def study(hook: Hook, inputs: Inputs) -> Study:
    """Return the study of all pools of a run."""
    config = hook.config.trials
    return Study(hook.context, "trials", inputs, range(config.seeds), config.early_stopping)


class RunTrials(StudyHook):
    """Writes ``trials.parquet`` and ``curves.parquet``."""

    def identity(self) -> Any:
        """Model, budget, seeds, rungs and evaluators; not where they run."""
        return study_identity(self.config)

    def ahead(self, pools: Pools | Planned, **_: Any) -> Planned:
        """Every pool with every seed; early stopping only ever makes it less."""
        trials = first_pools(pools, self.config) * self.config.trials.seeds
        return self.planned(trials, unbuilt(pools, self.config))

    def run(
        self, dataset: Dataset, evaluation: Dataset, statistics: Statistics, pools: Pools
    ) -> Trials:
        """Run the trials that no run of this storage has settled."""
        return self.conduct(study(self, Inputs(dataset, evaluation, statistics, pools)))
