"""Whether the verdicts hold at a second learning rate, where the configuration asks for that."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from djsandbox_ray.analysis.verdicts.second_look import flips
from djsandbox_ray.hooks.conduct import StudyHook
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.hooks.plans import LEARNING_RATE, first_pools, unbuilt
from djsandbox_ray.hooks.results import ranked_again, scoring
from djsandbox_ray.hooks.study import Inputs, Study, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    FlipRow,
    LearningRateCheck,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    StudyPlan,
    Trials,
)


class CheckLearningRate(StudyHook):
    """Writes ``learning_rate.csv`` and the tables of its trials."""

    VERSION = 3

    def identity(self) -> Any:
        """The trials, the learning rate, and how scores are made."""
        check = self.config.learning_rate_check
        rate = check and check.learning_rate
        return [study_identity(self.config), rate, scoring(self.config, "alpha")]

    def ahead(self, pools: Pools | Planned, ranking: Ranking | Planned, **_: Any) -> Planned:
        """All pools, as long as nobody knows which of them are decided."""
        if self.config.learning_rate_check is None:
            return Planned()
        arms = first_pools(pools, self.config)
        if isinstance(pools, Pools) and isinstance(ranking, Ranking):
            decided = _decided(self.rows(RankingRow, ranking))
            arms = len(_only(pools, decided).pools) if decided else 0
        return self.planned(self._plan, arms, unbuilt(pools, self.config))

    def run(
        self,
        dataset: Dataset,
        evaluation: Evaluation,
        pools: Pools,
        ranking: Ranking,
        first: Trials,
    ) -> LearningRateCheck | None:
        """Train the controls and the decided pools once more, and compare the verdicts.

        Returns:
            None without a section ``learning_rate_check``, or where there is nothing to compare.
        """
        check, rows = self.config.learning_rate_check, self.rows(RankingRow, ranking)
        decided = _decided(rows)
        if check is None or not decided:
            return None
        chosen = _only(pools, decided)
        model = self.config.trials.model.model_copy(update={"learning_rate": check.learning_rate})
        inputs = Inputs(dataset, evaluation, chosen)
        _, trials = self.conduct(Study(self.context, self._plan, inputs, model))
        # Judged as strictly as the first time, and in its unit: else verdicts would flip by that.
        again = ranked_again(
            self.context, chosen, trials, self._plan, first=first, family=len(rows)
        )
        if again is None:
            return None
        path, text = self.write_rows(FlipRow, "learning_rate.csv", flips(rows, again))
        return LearningRateCheck(content_id("learning_rate", text), path)

    @property
    def _plan(self) -> StudyPlan:
        return StudyPlan(LEARNING_RATE, self.config.trials.seed_numbers)


def _decided(rows: Sequence[RankingRow]) -> list[str]:
    """Return the pools that were called better or worse; self-tests must be, and tell nothing."""
    buckets = (row for row in rows if row.kind is PoolKind.BUCKET)
    return [row.pool for row in buckets if row.verdict in ("better", "worse")]


def _only(pools: Pools, names: Collection[str]) -> Pools:
    kept = (p for p in pools.pools if p.kind is PoolKind.CONTROL or p.id in names)
    return replace(pools, pools=tuple(kept))
