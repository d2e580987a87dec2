"""Compares every pool with the controls."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.analysis import rank, write_csv
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Pools, Ranking, Trials
from djsandbox_ray.trials.tables import read_records


@HOOKS.register("ranking")
class RankPools(Hook):
    """Writes ``ranking.csv``."""

    def identity(self) -> Any:
        """Which metrics make the score, how, and the error rate."""
        evaluation = self.config.evaluation
        return evaluation.model_dump(mode="json", include={"score", "aggregate", "alpha"})

    def run(self, pools: Pools, trials: Trials) -> Ranking:
        """Score every completed trial and judge every pool."""
        storage, evaluation = self.context.storage, self.config.evaluation
        records = read_records(storage.read_table(trials.trials), storage.read_table(trials.curves))
        rows = rank(
            pools.pools,
            records,
            seeds=range(self.config.trials.seeds),
            metrics=evaluation.score,
            aggregate=evaluation.aggregate,
            alpha=evaluation.alpha,
        )
        text = write_csv(rows)
        path = f"{self.context.folder}/ranking.csv"
        storage.write_bytes(path, text.encode())
        return Ranking(content_id("ranking", text), path)
