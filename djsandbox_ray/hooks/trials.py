"""Trains and evaluates every pool with every seed, or finds it done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.split import Split
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.hooks.hook import HOOKS, Context, Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.draws import members
from djsandbox_ray.records import (
    Dataset,
    Pool,
    PoolKind,
    Pools,
    Statistics,
    TrialRecord,
    Trials,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.family import FAMILIES
from djsandbox_ray.trials.plan import plan_trials
from djsandbox_ray.trials.store import TrialStore
from djsandbox_ray.trials.tables import curves_table, trials_table
from djsandbox_ray.trials.trainable import Shared

# After so many trials, all failed, the run ends.
_HOPELESS = 6


@dataclass(frozen=True)
class Plan:
    """The trials of a run, with what is known of each."""

    specs: Sequence[TrialSpec]
    done: dict[str, TrialRecord]
    """Settled trials, of this run or another, by trial id."""
    rows: Callable[[Pool], NDArray[np.int64]]
    suite: Suite

    @property
    def todo(self) -> list[TrialSpec]:
        """The trials that must be trained."""
        return [spec for spec in self.specs if spec.id not in self.done]


def plan(context: Context, dataset: Dataset, evaluation: Dataset, pools: Pools) -> Plan:
    """List the trials of a run and find those that any run has settled."""
    config, storage = context.config, context.storage
    split = Split.read(evaluation.id, storage.uri(evaluation.table))
    suite = Suite(config.evaluation.metrics, split, config.evaluation.score)
    family = FAMILIES.get(config.trials.model.type)(config.trials.model)

    def rows(pool: Pool) -> NDArray[np.int64]:
        table = storage.read_table(pools.assignments, ["row_id", pool.column])
        return members(table["row_id"].to_numpy(), table[pool.column].to_numpy(), pool)

    specs = plan_trials(dataset.id, pools, rows, config.trials, family, suite.identity())
    store = TrialStore(storage)
    found = {spec.id: store.settled(spec) for spec in specs}
    return Plan(specs, {key: record for key, record in found.items() if record}, rows, suite)


@HOOKS.register("trials")
class RunTrials(Hook):
    """Writes ``trials.parquet`` and ``curves.parquet``."""

    def identity(self) -> Any:
        """Model, budget, seeds, rungs and evaluators; not where they run."""
        trials = self.config.trials
        return [
            FAMILIES.get(trials.model.type)(trials.model).identity(),
            trials.model_dump(mode="json", exclude={"model", "resources"}),
            [metric.model_dump(mode="json") for metric in self.config.evaluation.metrics],
        ]

    def run(
        self, dataset: Dataset, evaluation: Dataset, statistics: Statistics, pools: Pools
    ) -> Trials:
        """Run the trials that no run of this storage has settled."""
        operators = {item.name: item.operator for item in statistics.statistics}
        found = plan(self.context, dataset, evaluation, pools)
        by_id = {pool.id: pool for pool in pools.pools}
        records = dict(found.done)
        progress = self.context.progress
        progress.stage("trials", total=len(found.specs))
        for record in found.done.values():
            self._track(record, by_id[record.spec.pool], operators)
        if found.done:
            progress.note(f"trials: {len(found.done)} of {len(found.specs)} known already")
        progress.update(done=len(found.done))

        store = TrialStore(self.context.storage)

        def on_record(record: TrialRecord) -> None:
            records[record.spec.id] = record
            store.save(record)
            self._track(record, by_id[record.spec.pool], operators)
            self._show(record, records, by_id)
            _give_up_if_hopeless(records.values())

        if found.todo:
            shared = self._share(found, dataset, evaluation, pools)
            run_trials(found.todo, shared, self.config.trials.resources, on_record)
        return self._write([records[spec.id] for spec in found.specs], by_id, pools)

    def keep(self, output: Trials) -> bool:
        """Keep the outcome unless trials crashed: the same command tries those again."""
        return output.crashed == 0

    def _share(self, found: Plan, dataset: Dataset, evaluation: Dataset, pools: Pools) -> Shared:
        config, storage = self.config.trials, self.context.storage
        family = FAMILIES.get(config.model.type)(config.model)
        wanted = {spec.pool for spec in found.todo}
        by_id = {pool.id: pool for pool in pools.pools if pool.id in wanted}
        return Shared(
            family=family,
            prepared=family.prepare(storage.uri(dataset.table), storage.uri(evaluation.table)),
            suite=found.suite,
            pools=by_id,
            members={name: ray.put(found.rows(pool)) for name, pool in by_id.items()},
            draw_size=pools.draw_size,
            base_seed=pools.seed,
            rungs=config.rung_samples(),
            cpus=config.resources.cpus_per_worker,
            gpus=config.resources.gpus_per_worker,
        )

    def _track(self, record: TrialRecord, pool: Pool, operators: Mapping[str, str]) -> None:
        tags = {
            "stage": "trials",
            "pool": pool.id,
            "kind": str(pool.kind),
            "statistic": pool.statistic or "",
            "operator": operators.get(pool.statistic or "", ""),
            "bucket": pool.bucket or "",
            "seed": str(record.spec.seed),
            "state": str(record.state),
        }
        params = {
            "pool": pool.id,
            "seed": str(record.spec.seed),
            "budget": str(record.spec.budget),
            "pool_size": str(pool.size),
            "draw": record.spec.draw_hash,
        }
        self.context.tracker.trial(record, {k: v for k, v in tags.items() if v}, params)

    def _show(
        self, record: TrialRecord, records: dict[str, TrialRecord], by_id: Mapping[str, Pool]
    ) -> None:
        buckets = [r for r in records.values() if by_id[r.spec.pool].kind is PoolKind.BUCKET]
        states = [entry.state for entry in records.values()]
        self.context.progress.update(
            done=sum(state is not TrialState.RUNNING for state in states),
            running=sum(state is TrialState.RUNNING for state in states),
            failed=sum(state is TrialState.FAILED for state in states),
            best=best_so_far(buckets, self.config.evaluation.score),
        )
        if record.state is TrialState.FAILED:
            self.context.progress.note(
                f"trials: {record.spec.pool} seed {record.spec.seed} FAILED: {record.error}"
            )

    def _write(self, records: list[TrialRecord], by_id: dict[str, Pool], pools: Pools) -> Trials:
        folder = self.context.folder
        paths = (f"{folder}/trials.parquet", f"{folder}/curves.parquet")
        family = FAMILIES.get(self.config.trials.model.type)(self.config.trials.model)
        table = trials_table(records, by_id, family.flops_per_sample())
        self.context.storage.write_table(paths[0], table)
        self.context.storage.write_table(paths[1], curves_table(records))
        states = [record.state for record in records]
        outcome = [[record.spec.id, str(record.state)] for record in records]
        return Trials(
            id=content_id("trials", pools.id, outcome),
            trials=paths[0],
            curves=paths[1],
            completed=states.count(TrialState.COMPLETED),
            failed=states.count(TrialState.FAILED),
            crashed=sum(r.state is TrialState.FAILED and not r.diverged for r in records),
        )


def _give_up_if_hopeless(records: Iterable[TrialRecord]) -> None:
    """End the run when nothing but failures has come back: the rest would be paid for in vain."""
    ended = [record for record in records if record.state is not TrialState.RUNNING]
    if len(ended) >= _HOPELESS and all(record.state is TrialState.FAILED for record in ended):
        raise SandboxError(
            f"all of the first {len(ended)} trials failed; the last: {ended[-1].error}"
        )


def best_so_far(records: Iterable[TrialRecord], score: Sequence[str] | None) -> str | None:
    """Name the pool with the greatest mean of the score's metrics so far; not yet a verdict."""
    means: dict[str, list[float]] = {}
    for record in records:
        if record.final and record.final.metrics:
            metrics = record.final.metrics
            means.setdefault(record.spec.pool, []).append(
                fmean(metrics[name] for name in score or metrics)
            )
    return max(means, key=lambda pool: fmean(means[pool]), default=None)
