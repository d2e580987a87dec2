"""A second look at the pools that were called better: fresh seeds beside fresh controls.

The best of many looks better than it is. What is measured again, after the choice, is not biased
by it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from djsandbox_ray.analysis.verdicts.second_look import confirm, selected
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.hooks.bounds import pools_in
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.results import ranked
from djsandbox_ray.hooks.study import Inputs, Study, StudyHook, confirmation_seeds, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.arms import second_look
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Dataset,
    Pools,
    Ranking,
    RankingRow,
    Statistics,
    Trials,
)
from djsandbox_ray.trials.stopping.stopping import StoppingConfig


class ChooseForConfirmation(Hook):
    """Writes ``confirmation_assignments.parquet`` and ``confirmation_pools.json``."""

    def identity(self) -> Any:
        """The section ``confirm``."""
        return self.config.confirm.model_dump(mode="json")

    def run(self, pools: Pools, ranking: Ranking) -> Pools | None:
        """Set the best of the pools that were called better beside fresh controls, if any were."""
        storage, folder, config = self.context.storage, self.context.folder, self.config.confirm
        rows = storage.read_rows(RankingRow, ranking.path)
        chosen = selected(rows, config.top)
        if not chosen:
            self.context.progress.note("confirmation: no pool was called better")
            return None
        table = storage.read_table(pools.assignments)
        codes = table[pools.pools[0].column].to_numpy()
        look = second_look(pools, chosen, codes, config.controls)
        second = Pools(
            id="",
            assignments=f"{folder}/confirmation_assignments.parquet",
            pools=look.pools,
            size=pools.size,
            draw_size=pools.draw_size,
            eligible=pools.eligible,
            seed=pools.seed,
        )
        second = replace(second, id=content_id("pools", pools.id, to_json(second)))
        kept = {
            pool.column: table[pool.column]
            for pool in look.pools
            if pool.column not in look.assignments
        }
        columns = {"row_id": table["row_id"], **kept, **look.assignments}
        storage.write_table(second.assignments, pa.table(columns))
        storage.write_json(f"{folder}/confirmation_pools.json", to_json(second))
        return second


class ConfirmTrials(StudyHook):
    """Trains the chosen pools and the fresh controls with seeds that were not used before."""

    def identity(self) -> Any:
        """The trials and their seeds."""
        return [study_identity(self.config), self.config.confirm.seeds]

    def ahead(self, pools: Pools | Planned | None, **_: Any) -> Planned:
        """As many pools as may be chosen, and the fresh controls."""
        seeds = len(confirmation_seeds(self.config))
        most = self.config.confirm.top + self.config.confirm.controls
        return self.planned(pools_in(pools, most if self.config.confirm.top else 0) * seeds)

    def run(
        self, dataset: Dataset, evaluation: Dataset, statistics: Statistics, pools: Pools | None
    ) -> Trials | None:
        """Train to the full budget: nothing is given up early here."""
        if pools is None:
            return None
        study = Study(
            self.context,
            "confirmation",
            Inputs(dataset, evaluation, statistics, pools),
            confirmation_seeds(self.config),
            StoppingConfig(type="none", rungs=self.config.trials.early_stopping.rungs),
            optional=True,
        )
        return self.conduct(study)


class Confirm(Hook):
    """Writes ``confirmation.csv``."""

    def identity(self) -> Any:
        """How scores are made, and the seeds."""
        evaluation = self.config.evaluation
        return evaluation.model_dump(mode="json", include={"score", "aggregate", "alpha"})

    def run(
        self, first: Trials, ranking: Ranking, pools: Pools | None, trials: Trials | None
    ) -> Confirmation | None:
        """Judge the chosen pools again, by the second study alone, in the unit of the first."""
        if pools is None or trials is None:
            return None
        storage = self.context.storage
        chosen = storage.read_rows(RankingRow, ranking.path)
        try:
            seeds = confirmation_seeds(self.config)
            second = ranked(self.context, pools, trials, seeds, first=first)
        except SandboxError as error:
            self.context.progress.note(f"confirmation: cannot be judged: {error}")
            return None
        rows = confirm(chosen, second)
        path = f"{self.context.folder}/confirmation.csv"
        text = storage.write_rows(ConfirmationRow, path, rows)
        better = [row.confirmed for row in rows if row.verdict == "better"]
        id = content_id("confirmation", text)
        return Confirmation(id, path, len(better), max(better, default=0.0))
