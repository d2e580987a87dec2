"""Trains and evaluates every pool with every seed of its study, or finds it done."""

from __future__ import annotations

from typing import Any, overload

from djsandbox_ray.hooks.conduct import StudyHook
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.hooks.plans import TRIALS, first_pools, plan_of, pools_in, unbuilt
from djsandbox_ray.hooks.study import Inputs, Study, study_identity
from djsandbox_ray.records import Dataset, Evaluation, Pools, Trials


class Train(StudyHook):
    """Writes ``trials.parquet`` and ``curves.parquet``, of later studies with their name before."""

    VERSION = 3

    def identity(self) -> Any:
        """Model, budget, seeds, rungs and evaluators; not where they run."""
        return study_identity(self.config)

    def ahead(self, pools: Pools | Planned | None, **_: Any) -> Planned:
        """Every pool with every seed; early stopping only ever makes it less."""
        if pools is None:
            return Planned()
        plan = plan_of(pools, self.config)
        if plan.name == TRIALS:
            arms = first_pools(pools, self.config)
            return self.planned(plan, arms, unbuilt(pools, self.config))
        if isinstance(pools, Planned) and pools.pools is None:
            return Planned(study=plan, unknown=f"how many pools {plan.name!r} has is not known yet")
        return self.planned(plan, pools_in(pools, 0))

    def study(self, dataset: Dataset, evaluation: Evaluation, pools: Pools) -> Study:
        """Return the study that the pools are for."""
        plan = plan_of(pools, self.config)
        return Study(self.context, plan, Inputs(dataset, evaluation, pools))

    @overload
    def run(self, dataset: Dataset, evaluation: Evaluation, pools: Pools) -> Trials: ...

    @overload
    def run(
        self, dataset: Dataset, evaluation: Evaluation, pools: Pools | None
    ) -> Trials | None: ...

    def run(self, dataset: Dataset, evaluation: Evaluation, pools: Pools | None) -> Trials | None:
        """Run the trials that no run of this storage has settled.

        Args:
            dataset: that pools are made of.
            evaluation: what models are measured on.
            pools: with the plan of their study.

        Returns:
            None where there are no pools.
        """
        if pools is None:
            return None
        _, trials = self.conduct(self.study(dataset, evaluation, pools))
        return trials
