"""A study: some pools, trained with some seeds, or found trained.

:class:`Study` knows its trials by what decides their results, trains those that no run has settled,
and writes the tables of all; :class:`StudyHook` is the job that trains one or several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

from djsandbox_ray.analysis.verdicts.grid import Key, completed_metrics
from djsandbox_ray.config import RunConfig
from djsandbox_ray.dataset.source import stamp_of
from djsandbox_ray.errors import BadInput, PlanRefused
from djsandbox_ray.evaluation.answer_store import FOLDER as ANSWERS
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.hooks.hook import Context, Hook, Planned
from djsandbox_ray.hooks.plans import TRIALS
from djsandbox_ray.hooks.results import decisions, evaluation_sets, scoring
from djsandbox_ray.hooks.watch import Watch
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger.cost import together, trial_cost
from djsandbox_ray.nodes.kinds import bundle
from djsandbox_ray.pools.draws import Part
from djsandbox_ray.records import (
    Aggregate,
    Cost,
    Dataset,
    Evaluation,
    Foundation,
    Pool,
    Pools,
    StudyPlan,
    TrialRecord,
    Trials,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.settings.code import version_of, with_code
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.telemetry.output import LOGS
from djsandbox_ray.trials.engine import clear_left, run_trials
from djsandbox_ray.trials.family import FAMILIES, ModelFamily, TrialData, identity_of
from djsandbox_ray.trials.rescoring import CPUS_PER_TASK, rescore
from djsandbox_ray.trials.stages import Stage, flops, judged_from, total
from djsandbox_ray.trials.stopping.stopping import STOPPING, Competition, Decision, StoppingConfig
from djsandbox_ray.trials.trial_records import TrialStore, curves_table, plan_trials, trials_table
from djsandbox_ray.trials.worker import Shared


@dataclass(frozen=True)
class Inputs:
    """What earlier jobs gave."""

    dataset: Dataset
    evaluation: Evaluation
    pools: Pools


@dataclass(frozen=True)
class Study:
    """Some pools, trained with some seeds.

    Every trial is known by what decides its result, so that two studies share the trials that they
    have in common, in this run or in another.
    """

    context: Context
    plan: StudyPlan
    """Its name, its seeds, and whether pools may be given up early."""
    inputs: Inputs
    model: Component | None = None
    """In place of the configured one."""
    budget: int | None = None
    """Samples seen by every trial, in place of the configured ones."""

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The pools of the study by id."""
        return {pool.id: pool for pool in self.inputs.pools.pools}

    @property
    def stopping(self) -> StoppingConfig:
        """Which pools are given up early, if any."""
        configured = self.context.config.trials.early_stopping
        if self.plan.race:
            return configured
        return StoppingConfig(type="none", rungs=configured.rungs)

    @cached_property
    def family(self) -> ModelFamily:
        """The model."""
        return configured_family(self.context.config, self.model)

    @cached_property
    def numerics(self) -> dict[str, str]:
        """What the numbers of its trials hang on, beside settings, code and rows."""
        return self.family.numerics(self._gpus)

    @cached_property
    def suite(self) -> Suite:
        """The evaluators, each on its set."""
        settings = self.context.config.evaluation
        sets = evaluation_sets(self.context.storage, self.inputs.evaluation)
        return Suite(settings.metrics, sets, settings.score)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of every trial, with their operations where they are counted."""
        return self.family.counted(self._budget)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Samples seen at every report; the last is the whole training."""
        stages = self.family.stages(self._budget)
        return self.stopping.rung_samples(total(stages), judged_from(stages))

    @cached_property
    def specs(self) -> list[TrialSpec]:
        """The trials, in the order in which they start."""
        return plan_trials(
            self.inputs.dataset.id,
            self.inputs.pools,
            self.column,
            seeds=self.plan.seeds,
            budget=self._budget,
            total=self.rungs[-1],
            model=self._model_identity,
            evaluation=self.suite.identity(),
        )

    @cached_property
    def foundation(self) -> Foundation:
        """What the trials start from, and the data of the stages that are the same for all."""
        found, cost = self.context.foundation(self.family)
        self._seconds["base"] = cost.cpu_seconds
        return found

    @property
    def _model_identity(self) -> Any:
        model, found = identity_of(self.family, self._gpus), self.foundation.id
        return {"model": model, "foundation": found} if found else model

    @cached_property
    def known(self) -> dict[str, TrialRecord]:
        """What this run or another has left of the trials, settled or not, by trial id."""
        return TrialStore(self.context.storage).load_all(self.specs)

    @property
    def settled(self) -> dict[str, TrialRecord]:
        """The trials whose end would come again: nothing is left to do for them."""
        return {
            key: record
            for key, record in self.known.items()
            if record.settled and record.scored == self.suite.scored
        }

    @property
    def outdated(self) -> list[TrialRecord]:
        """The trials whose stored answers were scored in another way than they are now."""
        scored = self.suite.scored
        return [one for one in self.known.values() if one.reports and one.scored != scored]

    @property
    def rescorable(self) -> set[str]:
        """Ids of the settled trials that may be scored again: answers are there at every rung.

        Whether all of them are, only scoring tells.
        """
        names = self.context.storage.names
        return {
            one.spec.id
            for one in self.outdated
            if one.settled
            and {str(report.samples) for report in one.reports}
            <= set(names(f"{ANSWERS}/{one.spec.training}"))
        }

    def rescore(self) -> None:
        """Score stored answers as they are scored now, where they were not, in tasks of Ray.

        A trial whose answers are gone is as one that nobody knows.
        """
        outdated, context = self.outdated, self.context
        if not outdated:
            return
        nodes = context.config.ingest.resources
        context.await_room([bundle(CPUS_PER_TASK, 0, nodes)], "ingest.resources")
        found = rescore(outdated, self.suite, context.storage, nodes)
        store = TrialStore(context.storage)
        context.check()
        for record in found.records.values():
            store.save(record)
        self.known.update(found.records)
        for lacking in found.lacking:
            del self.known[lacking]
        self._seconds["rescored"] = self._seconds.get("rescored", 0.0) + found.cpu_seconds
        lost = f"; of {len(found.lacking)} others answers are gone" if found.lacking else ""
        context.progress.note(
            f"{self.plan.name}: the stored answers of {len(found.records)} trials are scored "
            f"again, without their models{lost}"
        )

    @property
    def given_up(self) -> set[str]:
        """The pools that this run has given up already, under the rules that it has now."""
        made = decisions(self.context.storage, self._race)
        return {pool for decision in made for pool in decision.stopped}

    def column(self, name: str) -> Iterator[Part]:
        """Read which rows are in the pools of a column, part by part."""
        path = self.inputs.pools.assignments
        for part in self.context.storage.read_batches(path, ["row_id", name]):
            yield part["row_id"].to_numpy(), part[name].to_numpy()

    def check(self) -> None:
        """Look whether the draws are large enough.

        Raises:
            BadInput: one is smaller than the model needs.
        """
        config, pools = self.context.config, self.inputs.pools
        for pool in pools.pools:
            refuse_small_draw(
                self.family,
                self._budget,
                pool.draw_size or pools.draw_size,
                f"a trial of {pool.id!r} draws {{rows}} of {pool.size:,} rows "
                f"(pools.draw_share: {config.pools.draw_share:g})",
            )

    def run(self) -> list[TrialRecord]:
        """Train what is not settled, and return the records of all trials.

        Raises:
            BadInput: the draws are too small for the model.
            SandboxError: nothing but failures came back.
        """
        self.check()
        context, progress = self.context, self.context.progress
        name = self.plan.name
        self.rescore()
        records = self.settled
        todo = [spec for spec in self.specs if spec.id not in records]
        if todo and not context.trains:
            raise PlanRefused(
                f"{name}: {len(todo)} of {len(self.specs)} trials cannot be scored without their "
                f"models ({_first(todo)}): `djsandbox run` trains them"
            )
        progress.stage(name, total=len(self.specs))
        watch = Watch(context, self.plan, self.pools, self.specs, self.known)
        for record in records.values():
            watch.track(record)
        if records:
            progress.note(f"{name}: {len(records)} of {len(self.specs)} known already")
        progress.update(done=len(records))

        def on_record(record: TrialRecord) -> None:
            context.check()
            record = records[record.spec.id] = self._owned(record)
            watch.track(record)
            watch.take(record)

        store = TrialStore(context.storage)

        def save(record: TrialRecord) -> None:
            context.check()
            store.save(self._owned(record))

        context.check()
        clear_left(context.storage, context.folder)
        if todo:
            stopping = STOPPING.get(self.stopping.type)(self.stopping)
            run_trials(
                todo,
                self._shared(todo),
                stopping,
                self._competition(watch),
                on_record,
                folder=context.folder,
                on_waiting=watch.waiting,
                await_room=context.await_room,
                on_retry=watch.retried,
                save=save,
                on_silence=watch.silent,
            )
        return [records[spec.id] for spec in self.specs]

    def _owned(self, record: TrialRecord) -> TrialRecord:
        """Put a record on this study's account, less what earlier owners have paid for.

        Also say in it what its numbers hang on, as its id does.
        """
        known = self.known.get(record.spec.id)
        if known is None or known.owner == self._owner:
            billed = (known.billed_seconds, known.billed_reports) if known else (0.0, 0)
        else:
            billed = (known.held_seconds, len(known.reports))
        return replace(
            record,
            owner=self._owner,
            billed_seconds=billed[0],
            billed_reports=billed[1],
            numerics=self.numerics,
            scored=self.suite.scored,
        )

    def write(self, records: Sequence[TrialRecord]) -> Trials:
        """Write the tables of trials and of curves."""
        self.context.check()
        storage, folder = self.context.storage, self.context.folder
        prefix = "" if self.plan.name == TRIALS else f"{self.plan.name}_"
        paths = (f"{folder}/{prefix}trials.parquet", f"{folder}/{prefix}curves.parquet")
        operations = partial(flops, self.stages)
        storage.write_table(paths[0], trials_table(records, self.pools, operations))
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
            stage=self.plan.name,
            workers=resources.workers,
            cpus_per_worker=resources.cpus_per_worker,
            gpus_per_worker=resources.gpus_per_worker,
            train_flops=partial(flops, self.stages),
            evaluation_flops=self.family.evaluation_flops(self.suite),
        )
        prepared = self.context.prepared.values()
        preparing = [made.cpu_seconds for stage, made in prepared if stage == self.plan.name]
        more = sum(preparing) + sum(self._seconds.values())
        return replace(trials, cpu_seconds=trials.cpu_seconds + more)

    @cached_property
    def _seconds(self) -> dict[str, float]:
        """CPUs times seconds that the study took beside its trials, by what they were for."""
        return {}

    @property
    def _budget(self) -> int:
        return self.budget or self.context.config.trials.budget

    @property
    def _gpus(self) -> float:
        return self.context.config.trials.resources.gpus_per_worker

    @property
    def _owner(self) -> str:
        return f"{self.context.config.name}/{self.plan.name}"

    @cached_property
    def _race(self) -> str:
        """The folder of the decisions on just these trials under just these rules."""
        rules = self.stopping.model_dump(mode="json")
        rules = with_code(rules, STOPPING.get(self.stopping.type))
        score = scoring(self.context.config)
        answers = [self.suite.scored] if self.suite.scored else []
        race = content_id("race", [spec.id for spec in self.specs], rules, score, *answers)
        return f"{self.context.folder}/race/{race}"

    def _competition(self, watch: Watch) -> Competition:
        config, storage = self.context.config, self.context.storage

        def keep(decision: Decision) -> None:
            self.context.check()  # another one than its successor acts upon would stay
            path = f"{self._race}/{decision.samples:012}.json"
            storage.write_sealed(path, asdict(decision))
            watch.decided(decision)

        return Competition(
            pools=self.pools,
            specs=self.specs,
            known=self.known,
            rungs=self.rungs,
            metrics=config.evaluation.score_metrics(),
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
            prepared=self._prepared(
                TrialData(
                    storage.uri(dataset.table),
                    {
                        one.id: storage.uri(one.table)
                        for one in evaluation.sets
                        if one.id in evaluation.measured
                    },
                    {name: storage.uri(data.table) for name, data in self.foundation.fixed.items()},
                    storage.uri(self.foundation.base) if self.foundation.base else None,
                    nodes=self.context.config.ingest.resources,
                )
            ),
            suite=self.suite,
            pools=pools,
            assignments=self.inputs.pools.assignments,
            draw_size=self.inputs.pools.draw_size,
            base_seed=self.inputs.pools.seed,
            rungs=self.rungs,
            budget=self._budget,
            storage=storage.url,
            resources=config.resources,
            retries=config.retries,
            retry_diverged=config.retry_diverged,
            stall_seconds=config.stall_seconds,
            study=self._owner,
            logs=f"{self.context.folder}/{LOGS}",
            keep_stopped=config.keep_stopped,
            owner=self.context.owner,
            numerics=self.numerics,
        )

    def _prepared(self, data: TrialData) -> Any:
        """Return what the family prepares, once per run: studies share tables and architecture."""
        tables = [data.train, dict(data.evaluation), dict(data.fixed), data.base]
        key = content_id("prepared", tables, self.family.prepared_by())
        if key not in self.context.prepared:
            made = self.family.prepare(data)
            self.context.prepared[key] = (self.plan.name, made)
        return self.context.prepared[key][1].value


class StudyHook(Hook):
    """A job that trains one study or several; their costs add up."""

    SECTIONS = ("trials", "evaluation")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._costs: list[Cost] = []
        self._crashed = 0

    def planned(self, plan: StudyPlan, arms: int, unknown: str = "") -> Planned:
        """Return what a study of so many pools, of the run's model and budget, trains."""
        trials = arms * len(plan.seeds)
        samples = trials * trial_samples(self.config)
        return Planned(trials, samples, unknown=unknown, study=plan)

    def conduct(self, study: Study) -> tuple[list[TrialRecord], Trials]:
        """Train what no run of this storage has settled, and write the tables."""
        records = study.run()
        return records, self.close(study, records)

    def measure(self, study: Study) -> dict[Key, Mapping[str, float]]:
        """Conduct a study; return the final metrics of its completed trials by pool and seed."""
        records, _ = self.conduct(study)
        return completed_metrics({(r.spec.pool, r.spec.seed): r for r in records})

    def close(self, study: Study, records: Sequence[TrialRecord]) -> Trials:
        """Write the tables of a study that was run, and put its cost on the bill."""
        trials = study.write(records)
        self._crashed += trials.crashed
        self._costs.append(study.cost(records))
        self.account(together(self._costs))
        return trials

    def keep(self, output: Any) -> bool:
        """Keep the outcome unless trials crashed: the same command tries those again."""
        return self._crashed == 0


def configured_family(config: RunConfig, model: Component | None = None) -> ModelFamily:
    """Return the family of the run's model, or of another, as it trains on the run's devices."""
    model = model or config.trials.model
    gpus = config.trials.resources.gpus_per_worker
    return FAMILIES.get(model.type)(model).resolved(gpus)


def _first(specs: Sequence[TrialSpec]) -> str:
    """Name some trials."""
    named = [f"{spec.pool} seed {spec.seed}" for spec in specs[:_NAMED]]
    return ", ".join([*named, *(["..."] if len(specs) > _NAMED else [])])


_NAMED = 3


def trial_samples(config: RunConfig, budget: int = 0) -> int:
    """Return the samples that a trial sees in all of its stages.

    Args:
        config: of the run.
        budget: of the stage that the pool feeds; 0: the configured one.
    """
    return total(configured_family(config).stages(budget or config.trials.budget))


NO_RESULT = {"resources", "retries", "retry_diverged", "keep_stopped", "stall_seconds"}
"""Settings of trials that decide no result; of the kind of device :func:`identity_of` knows."""


def refuse_small_draw(
    family: ModelFamily, budget: int, rows: int, drawn: str, section: str = "trials"
) -> None:
    """Refuse to train a model on too few different rows.

    Args:
        family: the model.
        budget: samples seen in a training.
        rows: different rows among them.
        drawn: the sentence that says where they come from; ``{rows}`` in it stands for them.
        section: of the configuration that says how the model is trained.

    Raises:
        BadInput: there are fewer than the model needs in one batch.
    """
    least = family.least_rows(budget)
    if rows < least > 1:  # no rows at all are said by whoever makes pools
        raise BadInput(
            f"{section}.model: a batch holds {least:,} rows, but {drawn.format(rows=f'{rows:,}')}: "
            "each would stand in it several times, as its own negative. Take a batch_size of at "
            f"most {rows:,}, or draw from more rows (more data"
            + ("" if section == "scorer" else ", a larger pools.draw_share, fewer pools.buckets")
            + ")"
        )


def study_identity(config: RunConfig) -> Any:
    """Return plain data that decides which trials a study consists of; not where they run."""
    trials = config.trials
    settings = trials.model_dump(mode="json", exclude={"model", *NO_RESULT})
    return [
        identity_of(configured_family(config), trials.resources.gpus_per_worker),
        with_code(settings, STOPPING.get(trials.early_stopping.type)),
        [
            [kind(metric).identity(), version_of(kind)]
            for metric in config.evaluation.metrics
            for kind in [EVALUATORS.get(metric.type)]
        ],
        scoring(config),  # pools are given up by their scores
        *given_data(configured_family(config)),
    ]


def given_data(family: ModelFamily) -> list[Any]:
    """Return plain data that change with what a family's base and fixed stages are trained on.

    Empty where there is no such data.
    """
    base = family.base()
    sources = {**family.sources(), **(base.sources() if base is not None else {})}
    return [{name: stamp_of(source) for name, source in sources.items()}] if sources else []
