"""Combines the chosen pools in all ways, trains the combinations, and judges them.

A combination is judged like a pool of the first study: against control arms of its own size, by
simultaneous intervals over all combinations, in the unit of the first study.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.bounds import combined_pools, pools_in
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.results import ranked, seeds_of
from djsandbox_ray.hooks.study import Inputs, Study, StudyHook, combination_seeds, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.combine import Pyramid, pyramid
from djsandbox_ray.pools.config import MIN_CONTROLS, WHOLE_BUCKET_CONTROLS
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.recipes.policy import marked
from djsandbox_ray.records import (
    Choice,
    Dataset,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Statistics,
    Trials,
)
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.storage.rows import columns_of
from djsandbox_ray.trials.stopping.stopping import StoppingConfig

_TAKEN = ("trials", "noise", "confirmation", "learning_rate")
"""What other studies are called."""


class CombinePools(Hook):
    """Writes ``combination_assignments.parquet`` and ``combination_pools.json``."""

    def identity(self) -> Any:
        """Policies, and controls, here and in the second look, whose numbers are taken."""
        pools = self.config.pools.model_dump(mode="json", include={"controls", "draw_share"})
        policies = [policy.model_dump(mode="json") for policy in self.config.policies]
        return [pools, self.config.confirm.controls, policies]

    def ahead(
        self,
        pools: Pools | Planned,
        choice: Choice | Planned | None,
        controls: int | Literal["auto"] = "auto",
        **_: Any,
    ) -> Planned:
        """All 2^k - 1 ways, none of them dropped, and their controls."""
        self._check_controls(controls)
        draw_size = pools.draw_size  # of a combination, at most that of a single pool
        return Planned(pools=combined_pools(choice, self.config, controls), draw_size=draw_size)

    def run(
        self,
        pools: Pools,
        choice: Choice | None,
        statistics: Statistics,
        minimum: int = 500,
        controls: int | Literal["auto"] = "auto",
        name: str = "combination",
    ) -> Pools | None:
        """Intersect the chosen pools in all 2^k - 1 ways, all cut to one size.

        Args:
            pools: of the first study.
            choice: which of them.
            statistics: that the policies are about.
            minimum: least number of rows; smaller combinations are dropped.
            controls: control arms, at least 5 (8 with whole buckets); ``auto``: as many as
                ``pools.controls`` says for so many pools.
            name: what the files are called, where a workflow combines more than once.

        Returns:
            None where nothing was chosen.

        Raises:
            BadInput: too few controls, a ``name`` that is no name, or see
                :func:`djsandbox_ray.pools.combine.pyramid`.
        """
        _check(name, "name")
        if choice is None or not choice.pools:
            self.context.progress.note(f"{name}: no pools were chosen")
            return None
        self._check_controls(controls)
        made = self._combined(pools, choice, minimum, controls)
        storage, folder = self.context.storage, self.context.folder
        row_ids = storage.read_table(pools.assignments, ["row_id"])["row_id"]
        columns = StatisticColumns(storage, statistics.statistics, len(row_ids))
        combined = Pools(
            id="",
            assignments=f"{folder}/{name}_assignments.parquet",
            pools=marked(made.pools, made.assignments, self.config.policies, columns),
            size=made.size,
            draw_size=made.draw_size,
            eligible=pools.eligible,
            seed=pools.seed,
            not_testable=made.dropped,
        )
        combined = replace(combined, id=content_id("pools", pools.id, to_json(combined)))
        storage.write_table(combined.assignments, pa.table({"row_id": row_ids, **made.assignments}))
        storage.write_json(f"{folder}/{name}_pools.json", to_json(combined))
        self._say(combined, name)
        return combined

    def _combined(
        self, pools: Pools, choice: Choice, minimum: int, controls: int | Literal["auto"]
    ) -> Pyramid:
        config = self.config
        columns = dict.fromkeys(p.column for p in pools.pools if p.id in choice.pools)
        table = self.context.storage.read_table(pools.assignments, ["row_id", *columns])
        first = sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
        return pyramid(
            pools,
            choice.pools,
            table["row_id"].to_numpy(),
            {column: table[column].to_numpy() for column in columns},
            minimum=minimum,
            controls=lambda count: (
                config.pools.control_count(count) if controls == "auto" else controls
            ),
            # The next numbers are those of the second look.
            first=first + config.confirm.controls,
            draw_share=config.pools.draw_share,
        )

    def _check_controls(self, controls: int | Literal["auto"]) -> None:
        whole = self.config.pools.draw_share == 1
        least = WHOLE_BUCKET_CONTROLS if whole else MIN_CONTROLS
        if controls != "auto" and controls < least:
            why = " with whole buckets (pools.draw_share: 1.0)" if whole else ""
            raise BadInput(f"{controls} controls of combinations; at least {least} are needed{why}")

    def _say(self, combined: Pools, name: str) -> None:
        note = self.context.progress.note
        for pool in combined.pools:
            for sentence in pool.breaks:
                note(f"{name}: {pool.id} breaks a policy: {sentence}")
        for dropped in combined.not_testable:
            note(f"{name}: {dropped.statistic} is dropped: {dropped.reason}")
        controls = sum(pool.kind is PoolKind.CONTROL for pool in combined.pools)
        note(
            f"{name}: {len(combined.pools) - controls} combinations and {controls} controls of "
            f"{combined.size} rows; a trial draws {combined.draw_size}"
        )


class CombinationTrials(StudyHook):
    """Writes ``<stage>_trials.parquet`` and ``<stage>_curves.parquet``."""

    def identity(self) -> Any:
        """Model, budget, seeds, rungs and evaluators."""
        return [study_identity(self.config), list(combination_seeds(self.config))]

    def ahead(self, pools: Pools | Planned | None, **_: Any) -> Planned:
        """Every combination and control with every seed."""
        arms = pools_in(pools, combined_pools(Planned(), self.config))
        return self.planned(arms * len(combination_seeds(self.config)))

    def run(
        self,
        dataset: Dataset,
        evaluation: Dataset,
        statistics: Statistics,
        pools: Pools | None,
        stage: str = "combinations",
    ) -> Trials | None:
        """Train combinations and controls with seeds of their own, to the full budget.

        Nothing is given up early: how pools work together is told from the losers, too.

        Args:
            dataset: that pools are made of.
            evaluation: the trusted split.
            statistics: that the pools were made by.
            pools: combinations and their controls.
            stage: names the study in the ledger, the tracker and its files.

        Returns:
            None where there are no combinations.

        Raises:
            BadInput: a ``stage`` that is no name.
        """
        _check(stage, "stage")
        if pools is None:
            return None
        config = self.config.trials
        study = Study(
            self.context,
            stage,
            Inputs(dataset, evaluation, statistics, pools),
            combination_seeds(self.config),
            StoppingConfig(type="none", rungs=config.early_stopping.rungs),
            optional=True,
        )
        return self.conduct(study)


class RankCombinations(Hook):
    """Writes ``combination_ranking.csv``."""

    def identity(self) -> Any:
        """Which metrics make the score, how, the error rate, and what the table tells."""
        evaluation = self.config.evaluation
        score = evaluation.model_dump(mode="json", include={"score", "aggregate", "alpha"})
        return [score, columns_of(RankingRow)]

    def run(
        self, pools: Pools | None, trials: Trials | None, first: Trials, name: str = "combination"
    ) -> Ranking | None:
        """Judge every combination against the controls of its size, in the first study's unit.

        Args:
            pools: combinations and their controls.
            trials: of these.
            first: the trials of the first study.
            name: what the file is called, where a workflow combines more than once.

        Returns:
            None where there are no combinations, or too few controls came through.

        Raises:
            BadInput: a ``name`` that is no name.
        """
        _check(name, "name")
        if pools is None or trials is None:
            return None
        try:
            seeds = seeds_of(self.context, trials)
            rows = ranked(self.context, pools, trials, seeds, first=first)
        except BadInput:
            raise
        except SandboxError as error:  # controls failed: the first study stands all the same
            self.context.progress.note(f"{name}: cannot be judged: {error}")
            return None
        path = f"{self.context.folder}/{name}_ranking.csv"
        text = self.context.storage.write_rows(RankingRow, path, rows)
        return Ranking.of(content_id("ranking", pools.id, text), path, rows)


def _check(name: str, parameter: str) -> None:
    """Refuse what would be a path, or would overwrite what another study has written."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in _TAKEN:
        raise BadInput(
            f"{parameter} is {name!r}; lower-case letters, digits and _ are possible, beginning "
            f"with a letter, but none of {', '.join(_TAKEN)}"
        )
