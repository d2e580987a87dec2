"""A study: some pools with some seeds. Its trials are known by what decides their results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from djsandbox_ray.config import RunConfig
from djsandbox_ray.dataset.source import stamp_of
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.answer_store import FOLDER as ANSWERS
from djsandbox_ray.evaluation.config import named
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Asker, Evaluator
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.results import decisions, evaluation_sets, scoring
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.draws import Part
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    Foundation,
    Pool,
    Pools,
    StudyPlan,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.settings.code import version_of, with_code
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.family import FAMILIES, ModelFamily, identity_of
from djsandbox_ray.trials.shared_folder import kept_model
from djsandbox_ray.trials.stages import Stage, judged_from, total
from djsandbox_ray.trials.stopping.stopping import STOPPING, StoppingConfig
from djsandbox_ray.trials.trial_records import TrialStore, plan_trials


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
    keep: bool = False
    """Whether what its trials have trained stays, for later ones to go on from; of one pool."""

    @property
    def trial_budget(self) -> int:
        """Samples seen in the stage that the pools feed."""
        return self.budget or self.context.config.trials.budget

    @property
    def gpus(self) -> float:
        """GPUs of a worker."""
        return self.context.config.trials.resources.gpus_per_worker

    @property
    def owner(self) -> str:
        """On whose account its trials are."""
        return f"{self.context.config.name}/{self.plan.name}"

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
        return self.family.numerics(self.gpus)

    @cached_property
    def suite(self) -> Suite:
        """The evaluators, each on its set."""
        settings = self.context.config.evaluation
        sets = evaluation_sets(self.context.storage, self.inputs.evaluation)
        return Suite(settings.metrics, sets, named(settings.score))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of every trial, with their operations where they are counted."""
        return self.family.counted(self.trial_budget)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Samples seen at every report; the last is the whole training."""
        stages = self.family.stages(self.trial_budget)
        return self.stopping.rung_samples(total(stages), judged_from(stages))

    @cached_property
    def specs(self) -> list[TrialSpec]:
        """The trials, in the order in which they start."""
        return plan_trials(
            self.inputs.dataset.id,
            self.inputs.pools,
            self.column,
            seeds=self.plan.seeds,
            budget=self.trial_budget,
            total=self.rungs[-1],
            model=self.model_identity,
            evaluation=self.suite.identity(),
        )

    @cached_property
    def foundation(self) -> Foundation:
        """What the trials start from, and the data of the stages that are the same for all."""
        found, cost = self.context.foundation(self.family)
        self.seconds["base"] = cost.cpu_seconds
        return found

    @property
    def model_identity(self) -> Any:
        """What decides a trial's result beside rows, seed and budget, and what it is judged by."""
        model, found = identity_of(self.family, self.gpus), self.foundation.id
        return {"model": model, "foundation": found} if found else model

    @cached_property
    def known(self) -> dict[str, TrialRecord]:
        """What this run or another has left of the trials, settled or not, by trial id.

        Where what was trained is to stay, those of which it is gone are as if nobody knew them.
        """
        storage = self.context.storage
        found = TrialStore(storage).load_all(self.specs)
        if not self.models:
            return found
        return {
            key: record
            for key, record in found.items()
            if record.state is not TrialState.COMPLETED
            or not kept_model(storage, self.models, record.spec.seed).broken()
        }

    @cached_property
    def models(self) -> str:
        """The folder of the storage where what was trained stays, by seed; empty: it does not.

        It is known by what decides the weights, but for the seed: a further seed, or another
        evaluator, changes nothing for those that are there.
        """
        if not self.keep:
            return ""
        pools = self.inputs.pools
        (pool,) = pools.pools
        drawn = [pool.id, pool.hash, pool.draw_size or pools.draw_size, pools.seed]
        known = [self.inputs.dataset.id, drawn, self.trial_budget, self.model_identity]
        return f"models/{content_id('stage', *known)}"

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

    @property
    def given_up(self) -> set[str]:
        """The pools that this run has given up already, under the rules that it has now."""
        made = decisions(self.context.storage, self.race)
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
                self.trial_budget,
                pool.draw_size or pools.draw_size,
                f"a trial of {pool.id!r} draws {{rows}} of {pool.size:,} rows "
                f"(pools.draw_share: {config.pools.draw_share:g})",
            )

    @cached_property
    def seconds(self) -> dict[str, float]:
        """CPUs times seconds that the study took beside its trials, by what they were for."""
        return {}

    @cached_property
    def race(self) -> str:
        """The folder of the decisions on just these trials under just these rules."""
        rules = self.stopping.model_dump(mode="json")
        rules = with_code(rules, STOPPING.get(self.stopping.type))
        score = scoring(self.context.config)
        answers = [self.suite.scored] if self.suite.scored else []
        race = content_id("race", [spec.id for spec in self.specs], rules, score, *answers)
        return f"{self.context.folder}/race/{race}"


def configured_family(config: RunConfig, model: Component | None = None) -> ModelFamily:
    """Return the family of the run's model, or of another, as it trains on the run's devices."""
    model = model or config.trials.model
    gpus = config.trials.resources.gpus_per_worker
    return FAMILIES.get(model.type)(model).resolved(gpus)


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
            [kind(metric).identity(), version_of(kind), *_asking(kind)]
            for metric in config.evaluation.metrics
            for kind in [EVALUATORS.get(metric.type)]
        ],
        scoring(config),  # pools are given up by their scores
        *given_data(configured_family(config)),
    ]


def _asking(kind: type[Evaluator]) -> list[int]:
    """Return the version of what is asked: with another, other trials are trained."""
    return [kind.ASKING] if issubclass(kind, Asker) else []


def given_data(family: ModelFamily) -> list[Any]:
    """Return plain data that change with what a family's base and fixed stages are trained on.

    Empty where there is no such data.
    """
    base = family.base()
    sources = {**family.sources(), **(base.sources() if base is not None else {})}
    return [{name: stamp_of(source) for name, source in sources.items()}] if sources else []
