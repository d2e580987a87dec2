"""Tunes thresholds on the score of trials, and trains the best again: the best of many is lucky."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.conduct import Conduct, StudyHook
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.hooks.results import ranked_again, scored, yardstick
from djsandbox_ray.hooks.study import Inputs, Study, study_identity, trial_samples
from djsandbox_ray.hooks.writing import like, write_pools
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.connection import slots
from djsandbox_ray.pools.arms import Arm
from djsandbox_ray.pools.config import WHOLE_BUCKET_CONTROLS
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.recipes.refiner import narrowed
from djsandbox_ray.recipes.search.outcome import (
    ProposalRow,
    SearchReport,
    confirmed_effect,
    proposal_rows,
)
from djsandbox_ray.recipes.search.proposals import (
    Scale,
    Start,
    confirmation_arms,
    proposed_arm,
    start,
)
from djsandbox_ray.recipes.search.search import Proposal, SearchPlan, best, search
from djsandbox_ray.recipes.search.space import SearchSpace
from djsandbox_ray.records import (
    Choice,
    ConfirmationRow,
    Dataset,
    Evaluation,
    Pools,
    Range,
    Ranking,
    RankingRow,
    Statistics,
    StudyPlan,
    Thresholds,
    TrialRecord,
    Trials,
)
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.trials.gang import bundles

SECOND_LOOK = "search_confirmation"
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
    seeds: Sequence[int]
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


class SearchThresholds(StudyHook):
    """Writes ``search.json``, ``search.csv``, ``search_thresholds.json`` and tables of trials."""

    VERSION = 3

    def identity(self) -> Any:
        """What decides a trial, how scores are made and judged, and the second look."""
        confirm = self.config.confirm.model_dump(mode="json", include={"seeds", "controls"})
        within = [asdict(item) for item in self.config.pools.ranges]
        return [study_identity(self.config), self.config.evaluation.alpha, confirm, within, _FRESH]

    def ahead(self, proposals: int = 16, seeds: int = 1, **_: Any) -> Planned:
        """All proposals, and the second look at the best of them beside its controls."""
        self._check_seeds(seeds)
        again = 1 + max(self.config.confirm.controls, WHOLE_BUCKET_CONTROLS)
        second = again * len(self._fresh_seeds)
        trials = SearchPlan(proposals).proposals * seeds + second
        return Planned(trials, trials * trial_samples(self.config))

    def run(
        self,
        dataset: Dataset,
        evaluation: Evaluation,
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
            evaluation: what models are measured on.
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
        begin = start(choice, self.rows(RankingRow, ranking), pools)
        if begin is None:
            self.note("search: no pool was called better, so there is no start")
            return None
        inputs = Inputs(dataset, evaluation, pools)
        state = self._open(
            inputs, statistics, first, begin, plan, self.config.trials.seed_numbers[:seeds]
        )
        tried = search(
            state.space,
            state.plan,
            lambda batch: self._train(state, batch),
            known=begin.known,
            first=begin.first,
        )
        if not state.arms:
            raise SandboxError("search: no proposal keeps as many rows as a trial draws")
        self.close(self._searched(state, self._written(state)), state.records)
        winner = best(tried)
        if winner is None:
            error = state.records[-1].error
            raise SandboxError(f"search: no trial was completed; the last: {error}")
        confirmed = None
        if winner.is_gain:
            confirmed = self._confirm(state, winner)
        report = SearchReport(state.plan, tuple(tried), winner, confirmed, only_confirmed)
        return self._report(inputs.pools, report)

    @property
    def _fresh_seeds(self) -> range:
        """Seeds of the second look: every other study may have had a part in the choice."""
        return range(
            _FRESH, _FRESH + (self.config.confirm.seeds or len(self.config.trials.seed_numbers))
        )

    def _check_seeds(self, seeds: int) -> None:
        most = len(self.config.trials.seed_numbers)
        if not 1 <= seeds <= most:
            raise BadInput(
                f"search: seeds is {seeds}; 1 to {most} (trials.seeds) are "
                "possible: proposals are compared with the controls of these seeds"
            )

    def _open(
        self,
        inputs: Inputs,
        statistics: Statistics,
        first: Trials,
        begin: Start,
        plan: SearchPlan,
        seeds: Sequence[int],
    ) -> _Search:
        """Read the statistics and the controls of the first study."""
        any_column = inputs.pools.pools[0].column
        table = self.storage.read_table(inputs.pools.assignments, ["row_id", any_column])
        ids, eligible = table["row_id"].to_numpy(), table[any_column].to_numpy() != EXCLUDED
        columns = StatisticColumns(self.storage, statistics.statistics, inputs.dataset.rows)
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

    def _batch(self, inputs: Inputs, begin: Start, plan: SearchPlan, seeds: Sequence[int]) -> int:
        """Return how many proposals fill the cluster; a search that goes on keeps to its plan.

        What is proposed depends on how many are trained at once: on a cluster of another size, the
        trials that are there already would not be proposed again.
        """
        storage, path = self.storage, self.path("search_plan.json")
        what = [inputs.pools.id, list(begin.names), study_identity(self.config)]
        key = content_id("search", what, len(seeds), plan.seed)
        if storage.exists(path) and (kept := storage.read_sealed(path))["search"] == key:
            return int(kept["batch"])
        self.context.await_room(group := bundles(self.config.trials.resources), "trials.resources")
        batch = max(1, math.ceil(slots(group) / len(seeds)))
        storage.write_sealed(path, {"search": key, "batch": batch})
        return batch

    def _scale(self, pools: Pools, first: Trials) -> Scale:
        seeds = self.config.trials.seed_numbers
        means = scored(self.context, pools, first, seeds, first).controls.mean(axis=0)
        baseline = {seed: float(mean) for seed, mean in zip(seeds, means, strict=True)}
        return Scale(yardstick(self.context, first), baseline)

    def _train(self, state: _Search, batch: Sequence[Proposal]) -> list[float | None]:
        """Train the pools of a batch, and score them."""
        for item in batch:
            state.arms[item.pool] = proposed_arm(item, state.space, state.ids, state.eligible)
        made = tuple(state.arms[item.pool][0] for item in batch)
        study = self._searched(state, replace(self._written(state), pools=made))
        records = Conduct(study).run()
        state.records.extend(records)
        self.note(f"search: {len(state.arms)} of {state.plan.proposals} proposals trained")
        return [state.scale.score(r for r in records if r.spec.pool == p.pool) for p in batch]

    def _written(self, state: _Search) -> Pools:
        """Write the pools of all proposals, of whatever sizes: their draws are all equal."""
        first, made = state.inputs.pools, [pool for pool, _ in state.arms.values()]
        codes = {name: column for name, (_, column) in state.arms.items()}
        pools = like(first, made, size=min(pool.size for pool in made))
        columns = {"row_id": state.ids, **codes}
        return write_pools(self, pools, columns, of=first.id, name="search")

    def _searched(self, state: _Search, pools: Pools) -> Study:
        plan = StudyPlan("search", tuple(state.seeds))
        return Study(self.context, plan, replace(state.inputs, pools=pools))

    def _confirm(self, state: _Search, winner: Proposal) -> ConfirmationRow | None:
        """Train the best again with fresh seeds, beside fresh controls, and judge it by these."""
        first, (pool, codes) = state.inputs.pools, state.arms[winner.pool]
        plan = StudyPlan(SECOND_LOOK, tuple(self._fresh_seeds))
        look = confirmation_arms(first, (pool, codes), self.config.confirm.controls)
        made = like(first, look.pools, study=plan, size=pool.size)
        columns = {"row_id": state.ids, pool.column: codes, **look.assignments}
        pools = write_pools(self, made, columns, of=first.id, name=SECOND_LOOK)
        _, trials = self.conduct(Study(self.context, plan, replace(state.inputs, pools=pools)))
        judged = ranked_again(self.context, pools, trials, plan, first=state.first)
        if judged is None:
            return None
        row = confirmed_effect(winner, next(row for row in judged if row.pool == winner.pool))
        self.write_rows(ConfirmationRow, f"{SECOND_LOOK}.csv", [row])
        return row

    def _report(self, pools: Pools, report: SearchReport) -> Thresholds | None:
        """Write what was found; return the thresholds if they are to be handed on."""
        self.write_sealed("search.json", report.to_json())
        self.write_rows(ProposalRow, "search.csv", proposal_rows(report.proposals))
        self.note(report.summary)
        winner = report.winner
        if not report.accepted:
            # Those of an earlier search must not be taken for this one's.
            self.storage.remove(self.path("search_thresholds.json"))
            return None
        found = narrowed(self.config.pools.ranges, winner.ranges)
        ranges = tuple(Range(r.statistic, r.low, r.high) for r in found)
        chosen = report.thresholds_json(ranges)
        path = self.write_sealed("search_thresholds.json", chosen)
        identity = content_id("thresholds", pools.id, chosen)
        return Thresholds(identity, ranges, report.summary, winner.pool, path)
