"""Compares every pool of a study with the controls beside it."""

from __future__ import annotations

from logging import WARNING
from typing import Any, overload

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.plans import plan_of
from djsandbox_ray.hooks.results import metric_rows, ranked, ranked_again, scoring
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import MetricRow, Pools, Ranking, RankingRow, StudyPlan, Trials
from djsandbox_ray.reporting.method import sensitivity_lines
from djsandbox_ray.storage.rows import columns_of
from djsandbox_ray.telemetry.events import event
from djsandbox_ray.tracking.tracker import PoolVerdict


class Judge(Hook):
    """Writes ``ranking.csv``, of combinations ``combination_ranking.csv``.

    Beside that of the first study, ``metrics.csv`` says what each metric can see.
    """

    VERSION = 2
    SECTIONS = ("trials", "evaluation")

    def identity(self) -> Any:
        """Which metrics make the score, how, the error rate, and what the table tells."""
        return [scoring(self.config, "alpha"), columns_of(RankingRow), columns_of(MetricRow)]

    @overload
    def run(self, pools: Pools, trials: Trials, first: None = None) -> Ranking: ...

    @overload
    def run(
        self, pools: Pools | None, trials: Trials | None, first: Trials | None = None
    ) -> Ranking | None: ...

    def run(
        self, pools: Pools | None, trials: Trials | None, first: Trials | None = None
    ) -> Ranking | None:
        """Score every completed trial and judge every pool.

        Args:
            pools: with the plan of their study.
            trials: of these pools.
            first: the trials of the first study, whose controls are the unit of the changes; none
                where this is the first study.

        Returns:
            None where there are no pools, or too few controls of a later study came through.

        Raises:
            BadInput: a later study without the trials of the first: its changes would have a unit
                of their own.
            SandboxError: too few controls of the first study came through.
        """
        if pools is None or trials is None:
            return None
        if pools.study is not None and first is None:
            raise BadInput(
                f"judge: the pools of {pools.study.name!r} are judged in the unit of the first "
                "study: its trials are needed as 'first'"
            )
        plan = plan_of(pools, self.config)
        rows = self._judged(pools, trials, plan, first)
        if rows is None:
            return None
        self._tell_self_tests(rows)
        told = [PoolVerdict(row.pool, row.verdict, row.rank, row.change) for row in rows]
        self.context.tracker.judged(plan.name, told)
        name = plan.ranking or f"{plan.name}_ranking.csv"
        path, text = self.write_rows(RankingRow, name, rows)
        return Ranking.of(content_id("ranking", pools.id, text), path, rows)

    def _judged(
        self, pools: Pools, trials: Trials, plan: StudyPlan, first: Trials | None
    ) -> list[RankingRow] | None:
        if first is None:
            rows = ranked(self.context, pools, trials, plan.seeds)
            seen = metric_rows(self.context, pools, trials)
            self.write_rows(MetricRow, "metrics.csv", seen)
            chosen = self.config.evaluation.score_metrics().informative
            for line in sensitivity_lines(seen, chosen=chosen):
                self.note(f"{plan.name}: {line}")
            return rows
        return ranked_again(self.context, pools, trials, plan, first=first)

    def _tell_self_tests(self, rows: list[RankingRow]) -> None:
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
