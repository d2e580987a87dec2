"""Training a study: what no run has settled is trained, stored answers are scored again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

from djsandbox_ray.analysis.verdicts.grid import Key, completed_metrics
from djsandbox_ray.errors import PlanRefused, SandboxError
from djsandbox_ray.hooks.hook import Context, Hook, Planned
from djsandbox_ray.hooks.plans import TRIALS
from djsandbox_ray.hooks.results import decisions
from djsandbox_ray.hooks.study import Study, trial_samples
from djsandbox_ray.hooks.watch import Watch
from djsandbox_ray.identity import content_id, rows_hash
from djsandbox_ray.ledger.cost import together, trial_cost
from djsandbox_ray.nodes.kinds import bundle
from djsandbox_ray.records import (
    Cost,
    StudyPlan,
    TrialRecord,
    Trials,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.telemetry.output import LOGS
from djsandbox_ray.trials.family import Preparing, TrialData
from djsandbox_ray.trials.growing import Growth
from djsandbox_ray.trials.rescoring import CPUS_PER_TASK, Rescored, rescore
from djsandbox_ray.trials.stages import flops
from djsandbox_ray.trials.stopping.stopping import STOPPING, Competition, Decision
from djsandbox_ray.trials.trial_records import (
    TrialStore,
    curves_table,
    drawn_rows,
    trials_table,
)
from djsandbox_ray.trials.worker import Shared

_NAMED = 3
"""Trials that a message names."""


@dataclass(frozen=True)
class Conduct:
    """The training of a study, and its tables."""

    study: Study

    def run(self) -> list[TrialRecord]:
        """Train what is not settled, and return the records of all trials.

        Raises:
            BadInput: the draws are too small for the model.
            PlanRefused: some need their models, and none may be trained.
            SandboxError: nothing but failures came back.
        """
        study = self.study
        study.check()
        context, progress = study.context, study.context.progress
        name = study.plan.name
        found = self.rescore()
        records = study.settled
        if not context.trains:
            records |= self._without_models(found)
        todo = [spec for spec in study.specs if spec.id not in records]
        progress.stage(name, total=len(study.specs))
        watch = Watch(context, study.plan, study.pools, study.specs, study.known, study.rungs)
        for record in records.values():
            watch.track(record)
        if records:
            progress.note(f"{name}: {len(records)} of {len(study.specs)} known already")
        progress.update(done=len(records))

        def on_record(record: TrialRecord) -> None:
            context.check()
            record = records[record.spec.id] = self._owned(record)
            watch.track(record)
            watch.take(record)

        # With Ray Tune, which only a training needs: a plan is to answer at once.
        from djsandbox_ray.trials.engine import clear_left, run_trials

        store = TrialStore(context.storage)

        def save(record: TrialRecord) -> None:
            context.check()
            store.save(self._owned(record))

        context.check()
        clear_left(context.storage, context.folder)
        if todo:
            stopping = STOPPING.get(study.stopping.type)(study.stopping)
            run_trials(
                todo,
                self.shared(todo),
                stopping,
                self._competition(watch),
                on_record,
                folder=context.folder,
                on_waiting=watch.waiting,
                await_room=context.await_room,
                on_retry=watch.retried,
                save=save,
                on_silence=watch.silent,
                on_places=watch.placed,
            )
        return [records[spec.id] for spec in study.specs]

    def rescore(self) -> Rescored:
        """Score stored answers as they are scored now, where they were not, in tasks of Ray.

        A trial whose answers are gone is as one that nobody knows. One whose answers cannot be
        scored so has failed, in this run; what the storage knows of it stays.
        """
        study = self.study
        outdated, context = study.outdated, study.context
        nodes = context.config.ingest.resources
        if outdated:
            context.await_room([bundle(CPUS_PER_TASK, 0, nodes)], "ingest.resources")
        found = rescore(outdated, study.suite, context.storage, nodes)
        store = TrialStore(context.storage)
        context.check()
        for record in found.records.values():
            store.save(record)
        study.known.update(found.records | found.failed)
        for lacking in found.lacking:
            del study.known[lacking]
        study.seconds["rescored"] = study.seconds.get("rescored", 0.0) + found.cpu_seconds
        if outdated:
            lost = f"; of {len(found.lacking)} others answers are gone" if found.lacking else ""
            context.progress.note(
                f"{study.plan.name}: the stored answers of {len(found.records)} trials are scored "
                f"again, without their models{lost}"
            )
        for line in _unscorable(found):
            context.progress.note(f"{study.plan.name}: {line}")
        return found

    def _without_models(self, found: Rescored) -> dict[str, TrialRecord]:
        """Return how trials have ended that no model is needed for, beside the settled ones.

        Args:
            found: what could be scored again.

        Raises:
            PlanRefused: others need one; says which, and why.
            SandboxError: no answers at all can be scored.
        """
        study = self.study
        settled, given_up = study.settled, study.given_up
        left = [spec for spec in study.specs if spec.id not in settled]
        ended: dict[str, TrialRecord] = {}
        for spec in left:
            known = study.known.get(spec.id, TrialRecord(spec, TrialState.STOPPED))
            if spec.pool in given_up:
                ended[spec.id] = replace(known, state=TrialState.STOPPED)
            elif spec.id in found.failed and known.final is not None:
                ended[spec.id] = known
        if needing := [spec for spec in left if spec.id not in ended]:
            raise PlanRefused(self._needed(needing, found))
        if ended and not any(one.state is TrialState.COMPLETED for one in settled.values()):
            raise SandboxError(f"{study.plan.name}: {'; '.join(_unscorable(found))}")
        return ended

    def _needed(self, needing: Sequence[TrialSpec], found: Rescored) -> str:
        """Say of which trials the models are needed, and why."""
        study = self.study
        why: dict[str, list[TrialSpec]] = {}
        for spec in needing:
            known = study.known.get(spec.id)
            if spec.id in found.lacking:
                reason = "some of the answers are gone"
            elif known is not None and known.state is TrialState.STOPPED:
                reason = "given up early, which other scores may not do"
            else:
                reason = "never trained to the end"
            why.setdefault(reason, []).append(spec)
        told = [f"  {reason}: {len(specs)} ({_first(specs)})" for reason, specs in why.items()]
        head = (
            f"{study.plan.name}: {len(needing)} of {len(study.specs)} trials cannot be scored "
            "without their models:"
        )
        last = "`djsandbox run` trains them; what could be scored of the others is kept"
        return "\n".join([head, *told, *(f"  {line}" for line in _unscorable(found)), last])

    def write(self, records: Sequence[TrialRecord]) -> Trials:
        """Write the tables of trials and of curves."""
        study = self.study
        study.context.check()
        storage, folder = study.context.storage, study.context.folder
        prefix = "" if study.plan.name == TRIALS else f"{study.plan.name}_"
        paths = (f"{folder}/{prefix}trials.parquet", f"{folder}/{prefix}curves.parquet")
        operations = partial(flops, study.stages)
        storage.write_table(paths[0], trials_table(records, study.pools, operations))
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
            id=content_id("trials", study.inputs.pools.id, outcome),
            trials=paths[0],
            curves=paths[1],
            completed=states.count(TrialState.COMPLETED),
            failed=states.count(TrialState.FAILED),
            crashed=sum(r.state is TrialState.FAILED and not r.diverged for r in records),
            stopped=states.count(TrialState.STOPPED),
            race=study.race,
        )

    def cost(self, records: Iterable[TrialRecord]) -> Cost:
        """Return what the study cost: trials of other studies are on those studies' accounts."""
        study = self.study
        resources = study.context.config.trials.resources
        trials = trial_cost(
            (record for record in records if record.owner == study.owner),
            stage=study.plan.name,
            workers=resources.workers,
            cpus_per_worker=resources.cpus_per_worker,
            gpus_per_worker=resources.gpus_per_worker,
            train_flops=partial(flops, study.stages),
            evaluation_flops=study.family.evaluation_flops(study.suite),
        )
        prepared = study.context.prepared.values()
        preparing = [made for stage, made in prepared if stage == study.plan.name]
        more = sum(made.cpu_seconds for made in preparing) + sum(study.seconds.values())
        gpus = sum(made.gpu_seconds for made in preparing)
        return replace(
            trials, cpu_seconds=trials.cpu_seconds + more, gpu_seconds=trials.gpu_seconds + gpus
        )

    def shared(self, todo: Sequence[TrialSpec]) -> Shared:
        """Return what trials of the study have in common, made ready now if need be.

        Args:
            todo: the trials.
        """
        study = self.study
        config, storage = study.context.config.trials, study.context.storage
        wanted = {spec.pool for spec in todo}
        pools = {name: pool for name, pool in study.pools.items() if name in wanted}
        dataset, evaluation = study.inputs.dataset, study.inputs.evaluation
        return Shared(
            family=study.family,
            prepared=self._prepared(
                TrialData(
                    storage.uri(dataset.table),
                    {
                        one.id: storage.uri(one.table)
                        for one in evaluation.sets
                        if one.id in evaluation.measured
                    },
                    {
                        name: storage.uri(data.table)
                        for name, data in study.foundation.fixed.items()
                    },
                    storage.uri(study.foundation.base) if study.foundation.base else None,
                    nodes=study.context.config.ingest.resources,
                    preparing=self._preparing(todo),
                )
            ),
            suite=study.suite,
            pools=pools,
            assignments=study.inputs.pools.assignments,
            draw_size=study.inputs.pools.draw_size,
            base_seed=study.inputs.pools.seed,
            rungs=study.rungs,
            budget=study.trial_budget,
            storage=storage.url,
            resources=config.resources,
            retries=config.retries,
            retry_diverged=config.retry_diverged,
            stall_seconds=config.stall_seconds,
            study=study.owner,
            logs=f"{study.context.folder}/{LOGS}",
            keep_stopped=config.keep_stopped,
            owner=study.context.owner,
            numerics=study.numerics,
            models=study.models,
        )

    def _preparing(self, todo: Sequence[TrialSpec]) -> Preparing | None:
        """Return what a family works with that stores something of every sample."""
        study = self.study
        drawn = drawn_rows(study.inputs.pools, study.column, todo)
        if not study.family.stored_bytes(sum(map(len, drawn.values()))):
            return None
        context, resources = study.context, study.context.config.trials.resources
        name = study.plan.name
        growth = Growth(
            resources.cpus_per_worker,
            resources.gpus_per_worker,
            resources,
            "trials.resources",
            context.await_room,
            lambda text: context.progress.note(f"{name}: {text}"),
            lambda text: context.progress.update(waiting=text),
        )
        return Preparing(
            context.storage,
            study.inputs.dataset.id,
            drawn,
            study.suite,
            growth,
            {name: data.id for name, data in study.foundation.fixed.items()},
        )

    def _owned(self, record: TrialRecord) -> TrialRecord:
        """Put a record on this study's account, less what earlier owners have paid for.

        Also say in it what its numbers hang on, as its id does.
        """
        study = self.study
        known = study.known.get(record.spec.id)
        if known is None or known.owner == study.owner:
            billed = (known.billed_seconds, known.billed_reports) if known else (0.0, 0)
        else:
            billed = (known.held_seconds, len(known.reports))
        return replace(
            record,
            owner=study.owner,
            billed_seconds=billed[0],
            billed_reports=billed[1],
            numerics=study.numerics,
            scored=study.suite.scored,
        )

    def _competition(self, watch: Watch) -> Competition:
        study = self.study
        config, storage = study.context.config, study.context.storage

        def keep(decision: Decision) -> None:
            study.context.check()  # another one than its successor acts upon would stay
            path = f"{study.race}/{decision.samples:012}.json"
            storage.write_sealed(path, asdict(decision))
            watch.decided(decision)

        return Competition(
            pools=study.pools,
            specs=study.specs,
            known=study.known,
            rungs=study.rungs,
            metrics=config.evaluation.score_metrics(),
            aggregate=config.evaluation.kind,
            decisions=decisions(storage, study.race),
            on_decision=keep,
        )

    def _prepared(self, data: TrialData) -> Any:
        """Return what the family prepares, once per run: studies share tables and architecture.

        One that stores something of every sample does so again where other samples are drawn.
        """
        study = self.study
        tables = [data.train, dict(data.evaluation), dict(data.fixed), data.base]
        key = content_id("prepared", tables, study.family.prepared_by())
        if data.preparing is not None:
            rows = {str(name): rows_hash(rows) for name, rows in data.preparing.drawn.items()}
            key = content_id("prepared", key, rows)
        if key not in study.context.prepared:
            made = study.family.prepare(data)
            study.context.prepared[key] = (study.plan.name, made)
        return study.context.prepared[key][1].value


class StudyHook(Hook):
    """A job that trains one study or several; their costs add up."""

    SECTIONS: ClassVar[tuple[str, ...]] = ("trials", "evaluation")

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
        records = Conduct(study).run()
        return records, self.close(study, records)

    def measure(self, study: Study) -> dict[Key, Mapping[str, float]]:
        """Conduct a study; return the final metrics of its completed trials by pool and seed."""
        records, _ = self.conduct(study)
        return completed_metrics({(r.spec.pool, r.spec.seed): r for r in records})

    def close(self, study: Study, records: Sequence[TrialRecord]) -> Trials:
        """Write the tables of a study that was run, and put its cost on the bill."""
        conduct = Conduct(study)
        trials = conduct.write(records)
        self._crashed += trials.crashed
        self._costs.append(conduct.cost(records))
        self.account(together(self._costs))
        return trials

    def keep(self, output: Any) -> bool:
        """Keep the outcome unless trials crashed: the same command tries those again."""
        return self._crashed == 0


def _first(specs: Sequence[TrialSpec]) -> str:
    """Name some trials."""
    named = [f"{spec.pool} seed {spec.seed}" for spec in specs[:_NAMED]]
    return ", ".join([*named, *(["..."] if len(specs) > _NAMED else [])])


def _unscorable(found: Rescored) -> list[str]:
    """Say of which trials answers cannot be scored, and why, a line for each reason."""
    why: dict[str, list[TrialSpec]] = {}
    for record in found.failed.values():
        why.setdefault(record.error or "", []).append(record.spec)
    return [
        f"the answers of {len(specs)} trials cannot be scored ({_first(specs)}): {error}; they are "
        "kept: where the evaluator is mended, the same command scores them, without any training"
        for error, specs in why.items()
    ]
