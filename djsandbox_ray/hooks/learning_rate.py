"""Whether the verdicts hold at a second learning rate, where the configuration asks for that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from djsandbox_ray.analysis.ranking_csv import read_csv
from djsandbox_ray.analysis.robustness import flips, write_flips
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.hooks.results import ranked
from djsandbox_ray.hooks.study import Inputs, Study, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Dataset,
    LearningRateCheck,
    PoolKind,
    Pools,
    Ranking,
    Statistics,
    Trials,
)
from djsandbox_ray.trials.stopping.stopping import StoppingConfig

DECIDED = ("better", "worse")


@HOOKS.register("learning_rate_trials")
class LearningRateTrials(Hook):
    """Trains the controls and the decided pools once more, at the second learning rate."""

    def identity(self) -> Any:
        """The trials and the learning rate."""
        check = self.config.learning_rate_check
        return [study_identity(self.config), check and check.learning_rate]

    def run(
        self,
        dataset: Dataset,
        evaluation: Dataset,
        statistics: Statistics,
        pools: Pools,
        ranking: Ranking,
    ) -> Trials | None:
        """Train to the full budget; nothing to do without a section ``learning_rate_check``."""
        check = self.config.learning_rate_check
        rows = read_csv(self.context.storage.read_bytes(ranking.path).decode())
        decided = [row.pool for row in rows if row.verdict in DECIDED]
        if check is None or not decided:
            return None
        config = self.config.trials
        study = Study(
            self.context,
            "learning_rate",
            Inputs(dataset, evaluation, statistics, _only(pools, decided)),
            range(config.seeds),
            StoppingConfig(type="none", rungs=[]),
            model=config.model.model_copy(update={"learning_rate": check.learning_rate}),
        )
        records = study.run()
        self.account(study.cost(records))
        return study.write(records)

    def keep(self, output: Trials | None) -> bool:
        """Keep the outcome unless trials crashed."""
        return output is None or output.crashed == 0


@HOOKS.register("learning_rate")
class CheckLearningRate(Hook):
    """Writes ``learning_rate.csv``."""

    def identity(self) -> Any:
        """How scores are made."""
        evaluation = self.config.evaluation
        return evaluation.model_dump(mode="json", include={"score", "aggregate", "alpha"})

    def run(
        self, pools: Pools, ranking: Ranking, trials: Trials | None
    ) -> LearningRateCheck | None:
        """Compare the verdicts."""
        if trials is None:
            return None
        storage = self.context.storage
        first = read_csv(storage.read_bytes(ranking.path).decode())
        decided = [row.pool for row in first if row.verdict in DECIDED]
        text = write_flips(flips(first, ranked(self.context, _only(pools, decided), trials)))
        path = f"{self.context.folder}/learning_rate.csv"
        storage.write_bytes(path, text.encode())
        return LearningRateCheck(content_id("learning_rate", text), path)


def _only(pools: Pools, names: list[str]) -> Pools:
    kept = (p for p in pools.pools if p.kind is PoolKind.CONTROL or p.id in names)
    return replace(pools, pools=tuple(kept))
