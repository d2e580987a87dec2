"""Compares every pool with the controls."""

from __future__ import annotations

from logging import WARNING
from typing import Any

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.results import ranked
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Pools, Ranking, RankingRow, Trials
from djsandbox_ray.storage.rows import columns_of
from djsandbox_ray.telemetry.events import event


class RankPools(Hook):
    """Writes ``ranking.csv``."""

    def identity(self) -> Any:
        """Which metrics make the score, how, the error rate, and what the table tells."""
        evaluation = self.config.evaluation
        score = evaluation.model_dump(mode="json", include={"score", "aggregate", "alpha"})
        return [score, columns_of(RankingRow)]

    def run(self, pools: Pools, trials: Trials) -> Ranking:
        """Score every completed trial and judge every pool."""
        rows = ranked(self.context, pools, trials, range(self.config.trials.seeds))
        for row in rows:
            if row.self_test_failed:
                event(
                    "self_test_failed",
                    level=WARNING,
                    stage="ranking",
                    pool=row.pool,
                    verdict=row.verdict,
                    expected=row.expected,
                )
        path = f"{self.context.folder}/ranking.csv"
        text = self.context.storage.write_rows(RankingRow, path, rows)
        return Ranking.of(content_id("ranking", text), path, rows)
