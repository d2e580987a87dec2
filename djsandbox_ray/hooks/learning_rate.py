"""Whether the verdicts hold at a second learning rate, where the configuration asks for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from djsandbox_ray.analysis.verdicts.second_look import flips
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.hooks.bounds import first_pools, unbuilt
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.results import ranked
from djsandbox_ray.hooks.study import Inputs, Study, StudyHook, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Dataset,
    FlipRow,
    LearningRateCheck,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Statistics,
    Trials,
)
from djsandbox_ray.trials.stopping.stopping import StoppingConfig


class LearningRateTrials(StudyHook):
    """Trains the controls and the decided pools once more, at the second learning rate."""

    def identity(self) -> Any:
        """The trials and the learning rate."""
        check = self.config.learning_rate_check
        return [study_identity(self.config), check and check.learning_rate]

    def ahead(self, pools: Pools | Planned, ranking: Ranking | Planned, **_: Any) -> Planned:
        """All pools, as long as nobody knows which of them are decided."""
        if self.config.learning_rate_check is None:
            return Planned()
        arms = first_pools(pools, self.config)
        if isinstance(pools, Pools) and isinstance(ranking, Ranking):
            decided = self._decided(ranking)
            arms = len(_only(pools, decided).pools) if decided else 0
        return self.planned(arms * self.config.trials.seeds, unbuilt(pools, self.config))

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
        decided = self._decided(ranking)
        if check is None or not decided:
            return None
        config = self.config.trials
        study = Study(
            self.context,
            "learning_rate",
            Inputs(dataset, evaluation, statistics, _only(pools, decided)),
            range(config.seeds),
            StoppingConfig(type="none", rungs=config.early_stopping.rungs),
            model=config.model.model_copy(update={"learning_rate": check.learning_rate}),
            optional=True,
        )
        return self.conduct(study)

    def _decided(self, ranking: Ranking) -> list[str]:
        return _decided(self.context.storage.read_rows(RankingRow, ranking.path))


class CheckLearningRate(Hook):
    """Writes ``learning_rate.csv``."""

    def identity(self) -> Any:
        """How scores are made."""
        evaluation = self.config.evaluation
        return evaluation.model_dump(mode="json", include={"score", "aggregate", "alpha"})

    def run(
        self, first: Trials, pools: Pools, ranking: Ranking, trials: Trials | None
    ) -> LearningRateCheck | None:
        """Compare the verdicts."""
        if trials is None:
            return None
        storage = self.context.storage
        rows = storage.read_rows(RankingRow, ranking.path)
        seeds = range(self.config.trials.seeds)
        chosen = _only(pools, _decided(rows))
        # Judged as strictly as the first time, and in its unit: else verdicts would flip by that.
        try:
            again = ranked(self.context, chosen, trials, seeds, first=first, family=len(rows))
        except SandboxError as error:
            self.context.progress.note(f"learning_rate: cannot be judged: {error}")
            return None
        path = f"{self.context.folder}/learning_rate.csv"
        text = storage.write_rows(FlipRow, path, flips(rows, again))
        return LearningRateCheck(content_id("learning_rate", text), path)


def _decided(rows: Sequence[RankingRow]) -> list[str]:
    """Return the pools that were called better or worse; self-tests must be, and tell nothing."""
    buckets = (row for row in rows if row.kind is PoolKind.BUCKET)
    return [row.pool for row in buckets if row.verdict in ("better", "worse")]


def _only(pools: Pools, names: list[str]) -> Pools:
    kept = (p for p in pools.pools if p.kind is PoolKind.CONTROL or p.id in names)
    return replace(pools, pools=tuple(kept))
