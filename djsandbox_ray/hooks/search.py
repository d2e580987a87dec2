"""Tunes thresholds on the score of trials, and trains the best again: the best of many is lucky."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.hook import Context, Hook, Planned
from djsandbox_ray.hooks.results import ranked, scored, yardstick
from djsandbox_ray.hooks.study import Inputs, Study, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger.cost import together
from djsandbox_ray.nodes.connection import slots
from djsandbox_ray.pools.arms import Arm
from djsandbox_ray.pools.config import WHOLE_BUCKET_CONTROLS
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.recipes.refiner import narrowed
from djsandbox_ray.recipes.search.proposals import (
    Scale,
    Start,
    confirmation_arms,
    own_pools,
    proposed_arm,
    start,
)
from djsandbox_ray.recipes.search.report import (
    ProposalRow,
    SearchReport,
    confirmed_effect,
    proposal_rows,
)
from djsandbox_ray.recipes.search.search import Proposal, SearchPlan, best, search
from djsandbox_ray.recipes.search.space import SearchSpace
from djsandbox_ray.records import (
    Choice,
    ConfirmationRow,
    Cost,
    Dataset,
    Pool,
    Pools,
    Range,
    Ranking,
    RankingRow,
    Statistics,
    Thresholds,
    TrialRecord,
    Trials,
)
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.trials.gang import bundles
from djsandbox_ray.trials.stopping.stopping import StoppingConfig

CONFIRMATION = "search_confirmation"
"""The study of the best proposal."""
_FRESH = 1 << 20
"""The first seed of that study: no other one counts so far."""


@dataclass(frozen=True, eq=False)
class _Search:
    """A search under way."""

    inputs: Inputs
    """With the pools of the first study."""
    first: Trials
    plan: SearchPlan
    seeds: range
    ids: NDArray[np.int64]
    """Row ids of the dataset, shape (n,)."""
    eligible: NDArray[np.bool_]
    """The rows that pools are made of, shape (n,)."""
    space: SearchSpace
    """Over the eligible rows."""
    scale: Scale
    arms: dict[str, Arm] = field(default_factory=dict)
    """What was trained, by pool."""
    records: list[TrialRecord] = field(default_factory=list)


class SearchThresholds(Hook):
    """Writes ``search.json``, ``search.csv``, ``search_thresholds.json`` and tables of trials."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._crashed = 0

    def identity(self) -> Any:
        """What decides a trial, how scores are made and judged, and the second look."""
        confirm = self.config.confirm.model_dump(mode="json", include={"seeds", "controls"})
        return [study_identity(self.config), self.config.evaluation.alpha, confirm, _FRESH]

    def keep(self, output: Thresholds | None) -> bool:
        """Keep the outcome unless trials crashed: the same command tries those again."""
        return self._crashed == 0

    def ahead(self, proposals: int = 16, seeds: int = 1, **_: Any) -> Planned:
        """All proposals, and the second look at the best of them beside its controls."""
        self._check_seeds(seeds)
        again = 1 + max(self.config.confirm.controls, WHOLE_BUCKET_CONTROLS)
        second = again * len(self._fresh_seeds)
        trials = SearchPlan(proposals).proposals * seeds + second
        return Planned(trials, trials * self.config.trials.budget)

    def run(
        self,
        dataset: Dataset,
        evaluation: Dataset,
        statistics: Statistics,
        pools: Pools,
        choice: Choice | None,
        ranking: Ranking,
        first: Trials,
        proposals: int = 16,
        seeds: int = 1,
        seed: int = 0,
        only_confirmed: bool = True,
    ) -> Thresholds | None:
        """Search for the ranges of the chosen statistics whose pool has the greatest score.

        Args:
            dataset: the data.
            evaluation: the trusted split.
            statistics: of the data.
            pools: of the single-operator stage.
            choice: its statistics are searched; without one, those of the pools called better.
            ranking: of the single-operator stage: what the searcher knows from the start.
            first: the trials of the single-operator stage: its controls are the yardstick.
            proposals: pools that are trained, beside the second look at the best.
            seeds: trials per proposal, the first seeds of the run.
            seed: of the sampler.
            only_confirmed: hand on thresholds only where the second look calls the best better.

        Returns:
            The thresholds of the best proposal; None where there was no statistic to search, no
            proposal scored above what keeping everything does, or the best was not confirmed.

        Raises:
            BadInput: a number that cannot be used.
            SandboxError: every trial failed.
        """
        self._check_seeds(seeds)
        plan = SearchPlan(proposals, seed=seed)
        found = self.context.storage.read_rows(RankingRow, ranking.path)
        begin = start(choice, found, pools)
        if begin is None:
            self.context.progress.note("search: no pool was called better, so there is no start")
            return None
        inputs = Inputs(dataset, evaluation, statistics, pools)
        state = self._open(inputs, first, begin, plan, range(seeds))
        tried = search(
            state.space,
            state.plan,
            lambda batch: self._train(state, batch),
            known=begin.known,
            first=begin.first,
        )
        if not state.arms:
            raise SandboxError("search: no proposal keeps as many rows as a trial draws")
        cost = self._write_trials(state)
        self.account(cost)
        winner = best(tried)
        if winner is None:
            error = state.records[-1].error
            raise SandboxError(f"search: no trial was completed; the last: {error}")
        confirmed = None
        if winner.is_gain:
            confirmed, again = self._confirm(state, winner)
            self.account(together([cost, again]))
        report = SearchReport(state.plan, tuple(tried), winner, confirmed, only_confirmed)
        return self._write(inputs.pools, report)

    @property
    def _fresh_seeds(self) -> range:
        """Seeds of the second look: every other study may have had a part in the choice."""
        return range(_FRESH, _FRESH + (self.config.confirm.seeds or self.config.trials.seeds))

    def _check_seeds(self, seeds: int) -> None:
        if not 1 <= seeds <= self.config.trials.seeds:
            raise BadInput(
                f"search: seeds is {seeds}; 1 to {self.config.trials.seeds} (trials.seeds) are "
                "possible: proposals are compared with the controls of these seeds"
            )

    def _open(
        self, inputs: Inputs, first: Trials, begin: Start, plan: SearchPlan, seeds: range
    ) -> _Search:
        """Read the statistics and the controls of the first study."""
        storage, any_column = self.context.storage, inputs.pools.pools[0].column
        table = storage.read_table(inputs.pools.assignments, ["row_id", any_column])
        ids, eligible = table["row_id"].to_numpy(), table[any_column].to_numpy() != EXCLUDED
        columns = StatisticColumns(storage, inputs.statistics.statistics, inputs.dataset.rows)
        values = {name: columns[name][ids][eligible] for name in begin.names}
        return _Search(
            inputs,
            first,
            replace(plan, batch=self._batch(inputs, begin, plan, seeds)),
            seeds,
            ids,
            eligible,
            SearchSpace(values, inputs.pools.draw_size),
            self._scale(inputs.pools, first),
        )

    def _batch(self, inputs: Inputs, begin: Start, plan: SearchPlan, seeds: range) -> int:
        """Return how many proposals fill the cluster; a search that goes on keeps to its plan.

        What is proposed depends on how many are trained at once: on a cluster of another size, the
        trials that are there already would not be proposed again.
        """
        storage, path = self.context.storage, f"{self.context.folder}/search_plan.json"
        what = [inputs.pools.id, list(begin.names), study_identity(self.config)]
        key = content_id("search", what, len(seeds), plan.seed)
        if storage.exists(path) and (kept := storage.read_json(path))["search"] == key:
            return int(kept["batch"])
        self.context.await_room(group := bundles(self.config.trials.resources), "trials.resources")
        batch = max(1, math.ceil(slots(group) / len(seeds)))
        storage.write_json(path, {"search": key, "batch": batch})
        return batch

    def _scale(self, pools: Pools, first: Trials) -> Scale:
        seeds = range(self.config.trials.seeds)
        means = scored(self.context, pools, first, seeds, first).controls.mean(axis=0)
        baseline = {seed: float(mean) for seed, mean in zip(seeds, means, strict=True)}
        return Scale(yardstick(self.context, first), baseline)

    def _train(self, state: _Search, batch: Sequence[Proposal]) -> list[float | None]:
        """Train the pools of a batch, and score them."""
        for item in batch:
            state.arms[item.pool] = proposed_arm(item, state.space, state.ids, state.eligible)
        columns = {name: codes for name, (_, codes) in state.arms.items()}
        table = pa.table({"row_id": state.ids, **columns})
        self.context.storage.write_table(self._assignments, table)
        made = [state.arms[item.pool][0] for item in batch]
        study = self._study("search", _inputs(state, made, self._assignments), state.seeds)
        records = study.run()
        state.records.extend(records)
        self.context.progress.note(
            f"search: {len(state.arms)} of {state.plan.proposals} proposals trained"
        )
        return [state.scale.score(r for r in records if r.spec.pool == p.pool) for p in batch]

    @property
    def _assignments(self) -> str:
        return f"{self.context.folder}/search_assignments.parquet"

    def _study(self, stage: str, inputs: Inputs, seeds: Sequence[int]) -> Study:
        """Return a study that trains to the full budget: nothing is given up early here."""
        stopping = StoppingConfig(type="none", rungs=self.config.trials.early_stopping.rungs)
        return Study(self.context, stage, inputs, seeds, stopping, optional=True)

    def _write_trials(self, state: _Search) -> Cost:
        """Write the tables of all trials of the search, and return what they cost."""
        made = [pool for pool, _ in state.arms.values()]
        study = self._study("search", _inputs(state, made, self._assignments), state.seeds)
        self._crashed += study.write(state.records).crashed
        return study.cost(state.records)

    def _confirm(self, state: _Search, winner: Proposal) -> tuple[ConfirmationRow | None, Cost]:
        """Train the best again with fresh seeds, beside fresh controls, and judge it by these."""
        inputs, seeds = self._second_look(state, winner), self._fresh_seeds
        study = self._study(CONFIRMATION, inputs, seeds)
        records = study.run()
        trials, cost = study.write(records), study.cost(records)
        self._crashed += trials.crashed
        try:
            judged = ranked(self.context, inputs.pools, trials, seeds, first=state.first)
        except BadInput:
            raise
        except SandboxError as error:  # controls failed: what was searched stands all the same
            self.context.progress.note(f"{CONFIRMATION}: cannot be judged: {error}")
            return None, cost
        row = confirmed_effect(winner, next(row for row in judged if row.pool == winner.pool))
        path = f"{self.context.folder}/{CONFIRMATION}.csv"
        self.context.storage.write_rows(ConfirmationRow, path, [row])
        return row, cost

    def _second_look(self, state: _Search, winner: Proposal) -> Inputs:
        """Set the best beside control arms of its own, and write which rows these have."""
        pools, (pool, codes) = state.inputs.pools, state.arms[winner.pool]
        look = confirmation_arms(pools, (pool, codes), self.config.confirm.controls)
        path = f"{self.context.folder}/{CONFIRMATION}_assignments.parquet"
        columns = {"row_id": state.ids, pool.column: codes, **look.assignments}
        self.context.storage.write_table(path, pa.table(columns))
        return replace(state.inputs, pools=own_pools(pools, look.pools, path, size=pool.size))

    def _write(self, pools: Pools, report: SearchReport) -> Thresholds | None:
        """Write what was found; return the thresholds if they are to be handed on."""
        storage, folder, winner = self.context.storage, self.context.folder, report.winner
        storage.write_json(f"{folder}/search.json", report.to_json())
        storage.write_rows(ProposalRow, f"{folder}/search.csv", proposal_rows(report.proposals))
        self.context.progress.note(report.summary)
        path, chosen = f"{folder}/search_thresholds.json", report.thresholds_json()
        if not report.accepted:
            storage.remove(path)  # those of an earlier search must not be taken for this one's
            return None
        storage.write_json(path, chosen)
        identity = content_id("thresholds", pools.id, chosen)
        found = narrowed(self.config.pools.ranges, winner.ranges)
        ranges = tuple(Range(r.statistic, r.low, r.high) for r in found)
        return Thresholds(identity, ranges, report.summary, winner.pool, path)


def _inputs(state: _Search, pools: Sequence[Pool], path: str) -> Inputs:
    return replace(state.inputs, pools=own_pools(state.inputs.pools, pools, path))
