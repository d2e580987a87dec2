"""What jobs of trials have in common: a study trains pools with seeds, or finds them trained.

What jobs that train a study do alike: train it, put its cost on the bill, write its tables.

The configured model, and what decides which trials a study consists of.

Which seeds which study uses: what was chosen by its luck is never judged by the same luck.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.scores import Aggregate
from djsandbox_ray.config import RunConfig
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Split
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.hooks.hook import Context, Hook, Planned
from djsandbox_ray.hooks.results import decisions
from djsandbox_ray.hooks.watch import Watch
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger.cost import trial_cost
from djsandbox_ray.pools.draws import members
from djsandbox_ray.records import (
    Cost,
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
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.telemetry.output import LOGS
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.family import FAMILIES, ModelFamily
from djsandbox_ray.trials.stopping.stopping import STOPPING, Competition, Decision, StoppingConfig
from djsandbox_ray.trials.trial_records import TrialStore, curves_table, plan_trials, trials_table
from djsandbox_ray.trials.worker import Shared


@dataclass(frozen=True)
class Inputs:
    """What earlier jobs gave."""

    dataset: Dataset
    evaluation: Dataset
    statistics: Statistics
    pools: Pools


@dataclass(frozen=True)
class Study:
    """Some pools, trained with some seeds.

    Every trial is known by what decides its result, so that two studies share the trials that they
    have in common, in this run or in another.
    """

    context: Context
    stage: str
    """Names the study: in the ledger, in the tracker and on the terminal."""
    inputs: Inputs
    seeds: Sequence[int]
    stopping: StoppingConfig
    """Which pools are given up early, if any."""
    kinds: Sequence[PoolKind] = tuple(PoolKind)
    """Pools of other kinds are left out."""
    model: Component | None = None
    """In place of the configured one."""
    budget: int | None = None
    """Samples seen by every trial, in place of the configured ones."""
    optional: bool = False
    """Whether the run goes on even if every trial fails."""

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The pools of the study by id."""
        return {pool.id: pool for pool in self.inputs.pools.pools if pool.kind in self.kinds}

    @cached_property
    def family(self) -> ModelFamily:
        """The model."""
        return configured_family(self.context.config, self.model)

    @cached_property
    def suite(self) -> Suite:
        """The evaluators on their split."""
        evaluation, settings = self.inputs.evaluation, self.context.config.evaluation
        split = Split.read(evaluation.id, self.context.storage.uri(evaluation.table))
        return Suite(settings.metrics, split, settings.score)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Samples seen at every report; the last is the budget."""
        return self.stopping.rung_samples(self.budget or self.context.config.trials.budget)

    @cached_property
    def specs(self) -> list[TrialSpec]:
        """The trials, in the order in which they start."""
        return plan_trials(
            self.inputs.dataset.id,
            replace(self.inputs.pools, pools=tuple(self.pools.values())),
            self.rows,
            seeds=self.seeds,
            budget=self.rungs[-1],
            model=self.family.identity(),
            evaluation=self.suite.identity(),
        )

    @cached_property
    def known(self) -> dict[str, TrialRecord]:
        """What this run or another has left of the trials, settled or not, by trial id."""
        store = TrialStore(self.context.storage)
        found = {spec.id: store.load(spec) for spec in self.specs}
        return {key: record for key, record in found.items() if record is not None}

    @property
    def settled(self) -> dict[str, TrialRecord]:
        """The trials whose end would come again: nothing is left to do for them."""
        return {key: record for key, record in self.known.items() if record.settled}

    @property
    def given_up(self) -> set[str]:
        """The pools that this run has given up already, under the rules that it has now."""
        made = decisions(self.context.storage, self._race)
        return {pool for decision in made for pool in decision.stopped}

    def rows(self, pool: Pool) -> NDArray[np.int64]:
        """Return the row ids of a pool, shape (pool.size,)."""
        path = self.inputs.pools.assignments
        table = self.context.storage.read_table(path, ["row_id", pool.column])
        return members(table["row_id"].to_numpy(), table[pool.column].to_numpy(), pool)

    def run(self) -> list[TrialRecord]:
        """Train what is not settled, and return the records of all trials.

        Raises:
            SandboxError: nothing but failures came back.
        """
        context, progress = self.context, self.context.progress
        todo = [spec for spec in self.specs if spec.id not in self.settled]
        records = dict(self.settled)
        progress.stage(self.stage, total=len(self.specs))
        statistics = self.inputs.statistics
        watch = Watch(context, self.stage, self.pools, statistics, optional=self.optional)
        watch.begin(self.specs, self.known)
        for record in records.values():
            watch.track(record)
        if records:
            progress.note(f"{self.stage}: {len(records)} of {len(self.specs)} known already")
        progress.update(done=len(records))
        store = TrialStore(context.storage)

        def on_record(record: TrialRecord) -> None:
            record = self._owned(record)
            records[record.spec.id] = record
            store.save(record)
            watch.track(record)
            watch.show(record, records.values())

        if todo:
            stopping = STOPPING.get(self.stopping.type)(self.stopping)
            run_trials(
                todo,
                self._shared(todo),
                stopping,
                self._competition(watch),
                on_record,
                folder=f"{context.folder}/tune",
                on_waiting=watch.waiting,
                await_room=context.await_room,
                on_retry=watch.retried,
            )
        return [records[spec.id] for spec in self.specs]

    def _owned(self, record: TrialRecord) -> TrialRecord:
        """Put a record on this study's account, less what earlier owners have paid for."""
        known = self.known.get(record.spec.id)
        if known is None or known.owner == self._owner:
            billed = (known.billed_seconds, known.billed_reports) if known else (0.0, 0)
        else:
            billed = (known.held_seconds, len(known.reports))
        return replace(
            record, owner=self._owner, billed_seconds=billed[0], billed_reports=billed[1]
        )

    def write(self, records: Sequence[TrialRecord]) -> Trials:
        """Write the tables of trials and of curves."""
        storage, folder = self.context.storage, self.context.folder
        prefix = "" if self.stage == "trials" else f"{self.stage}_"
        paths = (f"{folder}/{prefix}trials.parquet", f"{folder}/{prefix}curves.parquet")
        flops = self.family.flops_per_sample()
        storage.write_table(paths[0], trials_table(records, self.pools, flops))
        storage.write_table(paths[1], curves_table(records))
        states = [record.state for record in records]
        outcome = [
            [
                record.spec.id,
                str(record.state),
                [[report.samples, report.metrics] for report in record.reports[-1:]],
            ]
            for record in records
        ]
        return Trials(
            id=content_id("trials", self.inputs.pools.id, outcome),
            trials=paths[0],
            curves=paths[1],
            completed=states.count(TrialState.COMPLETED),
            failed=states.count(TrialState.FAILED),
            crashed=sum(r.state is TrialState.FAILED and not r.diverged for r in records),
            stopped=states.count(TrialState.STOPPED),
            race=self._race,
        )

    def cost(self, records: Iterable[TrialRecord]) -> Cost:
        """Return what the study cost: trials of other studies are on those studies' accounts."""
        resources = self.context.config.trials.resources
        trials = trial_cost(
            (record for record in records if record.owner == self._owner),
            stage=self.stage,
            workers=resources.workers,
            cpus_per_worker=resources.cpus_per_worker,
            gpus_per_worker=resources.gpus_per_worker,
            train_flops=self.family.flops_per_sample(),
            evaluation_flops=self.family.evaluation_flops(self.suite),
        )
        prepared = self.context.prepared.values()
        preparing = [made.cpu_seconds for stage, made in prepared if stage == self.stage]
        return replace(trials, cpu_seconds=trials.cpu_seconds + sum(preparing))

    @property
    def _owner(self) -> str:
        return f"{self.context.config.name}/{self.stage}"

    @cached_property
    def _race(self) -> str:
        """The folder of the decisions on just these trials under just these rules."""
        rules = self.stopping.model_dump(mode="json")
        evaluation = self.context.config.evaluation
        score = evaluation.model_dump(mode="json", include={"score", "aggregate"})
        race = content_id("race", [spec.id for spec in self.specs], rules, score)
        return f"{self.context.folder}/race/{race}"

    def _competition(self, watch: Watch) -> Competition:
        config, storage = self.context.config, self.context.storage

        def keep(decision: Decision) -> None:
            path = f"{self._race}/{decision.samples:012}.json"
            storage.write_json(path, asdict(decision))
            watch.decided(decision)

        return Competition(
            pools=self.pools,
            specs=self.specs,
            known=self.known,
            rungs=self.rungs,
            metrics=config.evaluation.score,
            aggregate=Aggregate(config.evaluation.aggregate),
            decisions=decisions(storage, self._race),
            on_decision=keep,
        )

    def _shared(self, todo: Sequence[TrialSpec]) -> Shared:
        config, storage = self.context.config.trials, self.context.storage
        wanted = {spec.pool for spec in todo}
        pools = {name: pool for name, pool in self.pools.items() if name in wanted}
        dataset, evaluation = self.inputs.dataset, self.inputs.evaluation
        return Shared(
            family=self.family,
            prepared=self._prepared(storage.uri(dataset.table), storage.uri(evaluation.table)),
            suite=self.suite,
            pools=pools,
            members={name: ray.put(self.rows(pool)) for name, pool in pools.items()},
            draw_size=self.inputs.pools.draw_size,
            base_seed=self.inputs.pools.seed,
            rungs=self.rungs,
            storage=storage.url,
            resources=config.resources,
            retries=config.retries,
            retry_diverged=config.retry_diverged,
            study=self._owner,
            logs=f"{self.context.folder}/{LOGS}",
        )

    def _prepared(self, train: str, evaluation: str) -> Any:
        """Return what the family prepares, once per run: studies share tables and architecture."""
        key = content_id("prepared", train, evaluation, self.family.prepared_by())
        if key not in self.context.prepared:
            nodes = self.context.config.ingest.resources
            made = self.family.prepare(train, evaluation, nodes)
            self.context.prepared[key] = (self.stage, made)
        return self.context.prepared[key][1].value


class StudyHook(Hook):
    """A job that trains a study."""

    def planned(self, trials: int, unknown: str = "") -> Planned:
        """Return what so many trials of the run's model and budget are."""
        return Planned(trials, trials * self.config.trials.budget, unknown=unknown)

    def conduct(self, study: Study) -> Trials:
        """Train what no run of this storage has settled."""
        records = study.run()
        self.account(study.cost(records))
        return study.write(records)

    def keep(self, output: Trials | None) -> bool:
        """Keep the outcome unless trials crashed: the same command tries those again."""
        return output is None or output.crashed == 0


def configured_family(config: RunConfig, model: Component | None = None) -> ModelFamily:
    """Return the family of the run's model, or of another, as it trains on the run's devices."""
    model = model or config.trials.model
    gpus = config.trials.resources.gpus_per_worker
    return FAMILIES.get(model.type)(model).resolved(gpus)


def study_identity(config: RunConfig) -> Any:
    """Return plain data that decides which trials a study consists of; not where they run."""
    trials = config.trials
    return [
        configured_family(config).identity(),
        trials.model_dump(mode="json", exclude={"model", "resources", "retries", "retry_diverged"}),
        [
            [EVALUATORS.get(metric.type)(metric).identity(), EVALUATORS.get(metric.type).VERSION]
            for metric in config.evaluation.metrics
        ],
        # Pools are given up by their scores.
        config.evaluation.model_dump(mode="json", include={"score", "aggregate"}),
    ]


def confirmation_seeds(config: RunConfig) -> range:
    """Return the seeds of the second look: none that the first study has used."""
    first = config.trials.seeds
    return range(first, first + (config.confirm.seeds or first))


def combination_seeds(config: RunConfig, count: int = 0) -> range:
    """Return the seeds of combinations: used by no study before.

    The pools that are combined were chosen by their effects in those.

    Args:
        config: of the run.
        count: how many; 0 for as many as the run has.
    """
    start = confirmation_seeds(config).stop
    return range(start, start + (count or config.trials.seeds))


def scaling_seeds(config: RunConfig, count: int = 0) -> range:
    """Return the seeds of studies of the best combination: scaling and repetition.

    It was chosen by its effect in the trials of combinations. The two studies choose nothing of
    each other: they have these seeds in common, so that what both train is trained once.

    Args:
        config: of the run.
        count: how many; 0 for as many as the run has.
    """
    start = combination_seeds(config).stop
    return range(start, start + (count or config.trials.seeds))
