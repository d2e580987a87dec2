"""What a finished study has left, read back: trials, decisions, scores and verdicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from djsandbox_ray.analysis.verdicts.grid import Key, completed_metrics, given_up
from djsandbox_ray.analysis.verdicts.ranking import rank
from djsandbox_ray.analysis.verdicts.scores import StudyScores, Yardstick
from djsandbox_ray.analysis.verdicts.sensitivity import sensitivities
from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed
from djsandbox_ray.evaluation.config import EvaluationConfig, promised
from djsandbox_ray.evaluation.data import NO_SET, EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.video.evaluator import VideoEvaluator
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.pools.arms import SPOILT_POOLS
from djsandbox_ray.records import (
    Evaluation,
    MetricRow,
    PoolKind,
    Pools,
    RankingRow,
    Spoil,
    StudyPlan,
    TrialRecord,
    Trials,
)
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.stopping.stopping import Decision
from djsandbox_ray.trials.trial_records import read_records

_DECISION = TypeAdapter(Decision)


@dataclass(frozen=True)
class Scores:
    """A study as scores, in the unit of the study that came first."""

    pools: dict[str, NDArray[np.float64]]
    """Shape (seeds,) per pool, NaN for a failed trial; controls, pools that were given up early and
    those without a completed trial are left out."""
    controls: NDArray[np.float64]
    """Of the complete control arms, shape (controls, seeds)."""


def scoring(config: RunConfig, *more: str) -> dict[str, Any]:
    """Return plain data: how a score is made of the metrics.

    Args:
        config: of the run.
        more: other fields of the section ``evaluation``, such as ``alpha``, the error rate.
    """
    section = config.evaluation.model_dump(mode="json", include={"score", "aggregate", *more})
    return {**section, **directions(config)}


def directions(config: RunConfig) -> dict[str, list[str]]:
    """Return plain data: what evaluators say of how their metrics count, which no setting holds.

    Empty where all are better when greater, and part of the score: what jobs and trials of those
    are known by stays what it was.
    """
    known = promised(config.evaluation.metrics)
    less = [metric.name for metric in known if metric.better == "less"]
    shown = [metric.name for metric in known if not metric.scored]
    return {name: names for name, names in (("less", less), ("shown", shown)) if names}


def evaluation_sets(storage: Storage, evaluation: Evaluation) -> list[EvaluationSet]:
    """Read what models are measured on: a set per evaluator, each table once."""
    tables = {one.id: one for one in evaluation.sets if one.id in evaluation.measured}
    read = {
        name: EvaluationSet.read(name, storage.uri(one.table), one.classes)
        for name, one in tables.items()
    }
    return [read[name] if name else NO_SET for name in evaluation.measured]


def video_evaluators(
    config: RunConfig, storage: Storage, evaluation: Evaluation
) -> list[tuple[VideoEvaluator, EvaluationSet]]:
    """Return the evaluators that have models make videos, each with its set."""
    kinds = [EVALUATORS.get(metric.type) for metric in config.evaluation.metrics]
    if not any(issubclass(kind, VideoEvaluator) for kind in kinds):
        return []  # sets may be large
    made = [kind(metric) for kind, metric in zip(kinds, config.evaluation.metrics, strict=True)]
    sets = evaluation_sets(storage, evaluation)
    return [
        (evaluator, data)
        for evaluator, data in zip(made, sets, strict=True)
        if isinstance(evaluator, VideoEvaluator)
    ]


def blind_metrics(config: RunConfig) -> dict[Spoil, list[str]]:
    """Return by what self-tests do to samples the metrics that cannot show it.

    Of a metric that no evaluator names beforehand, one of a family's own too, it is believed that
    it can.
    """
    kinds = [EVALUATORS.get(metric.type)(metric) for metric in config.evaluation.metrics]
    return {
        spoil: [
            one.name
            for kind in kinds
            for one in kind.metrics() or ()
            if spoil not in kind.sees(one)
        ]
        for spoil in get_args(Spoil)
    }


def ranked(
    context: Context,
    pools: Pools,
    trials: Trials,
    seeds: Sequence[int],
    *,
    first: Trials | None = None,
    family: int | None = None,
) -> list[RankingRow]:
    """Judge the pools of a study by its finished trials.

    Args:
        context: of the run.
        pools: of the study.
        trials: of the study.
        seeds: of the study.
        first: the study whose controls make the unit of the changes; by default this one.
        family: pools over which errors are controlled; by default those of the study.
    """
    evaluation = context.config.evaluation
    records = finished(context, trials)
    return rank(
        pools.pools,
        records,
        seeds=seeds,
        metrics=evaluation.score_metrics(),
        aggregate=evaluation.kind,
        alpha=evaluation.alpha,
        draw_share=pools.draw_size / pools.size,
        bucket_share=pools.size / pools.eligible,
        family=family,
        measured_in=yardstick(context, first) if first else None,
        blind=blind_metrics(context.config),
    )


def ranked_again(
    context: Context,
    pools: Pools,
    trials: Trials,
    plan: StudyPlan,
    *,
    first: Trials,
    family: int | None = None,
) -> list[RankingRow] | None:
    """Judge a later study by its finished trials, in the unit of the first; see :func:`ranked`.

    Returns:
        None where too few of its controls came through: the first study stands all the same.
    """
    try:
        return ranked(context, pools, trials, plan.seeds, first=first, family=family)
    except (BadInput, StorageFailed):
        raise
    except SandboxError as error:
        context.caveat(f"{plan.name}: cannot be judged: {error}")
        return None


def scored(
    context: Context, pools: Pools, trials: Trials, seeds: Sequence[int], first: Trials
) -> Scores:
    """Score the finished trials of a study with the yardstick of the first one.

    Args:
        context: of the run.
        pools: of the study.
        trials: of the study.
        seeds: of the study.
        first: the study whose controls make the unit.

    Raises:
        BadInput: trials that are no complete grid of pools and seeds; metrics that differ.
        SandboxError: fewer than 3 control arms are complete.
    """
    study = StudyScores.of(pools.pools, finished(context, trials), seeds)
    ruler = yardstick(context, first)
    known = next(iter(study.measured.values()))
    if lacking := [name for name in ruler.metrics if name not in known]:
        raise BadInput(
            f"the trials lack the metric {lacking[0]!r} of the first study (they have: "
            f"{', '.join(known)})"
        )
    skipped = {*study.controls, *given_up(study.grid)}
    names = [p.id for p in pools.pools if p.id not in skipped and study.finals(p.id)]
    return Scores(
        pools={name: study.scores(name, ruler) for name in names},
        controls=study.control_scores(ruler),
    )


def yardstick(context: Context, trials: Trials) -> Yardstick:
    """Return the unit that a study's completed control trials make.

    Raises:
        BadInput: the configured score cannot be formed of their metrics.
        SandboxError: none was completed.
    """
    evaluation = context.config.evaluation
    kinds = context.storage.read_table(trials.trials, ["pool", "kind"]).to_pylist()
    controls = {row["pool"] for row in kinds if row["kind"] == PoolKind.CONTROL}
    measured = completed_metrics(
        {(trial.spec.pool, trial.spec.seed): trial for trial in finished(context, trials)}
    )
    if not any(pool in controls for pool, _ in measured):
        raise SandboxError("no control trial of the study that makes the unit was completed")
    return study_yardstick(measured, controls, evaluation)


def study_yardstick(
    measured: Mapping[Key, Mapping[str, float]],
    controls: Collection[str],
    evaluation: EvaluationConfig,
) -> Yardstick:
    """Return the unit that the controls of a study make.

    Args:
        measured: final metrics of the completed trials; one of them at least is of a control.
        controls: the control pools.
        evaluation: how a score is made of metrics.

    Raises:
        BadInput: the score cannot be formed of these metrics.
    """
    spoilt = SPOILT_POOLS.values()
    return Yardstick.from_controls(
        {key: metrics for key, metrics in measured.items() if key[0] in controls},
        evaluation.score_metrics(),
        evaluation.kind,
        measured,
        {key: metrics for key, metrics in measured.items() if key[0] in spoilt},
    )


def metric_rows(context: Context, pools: Pools, trials: Trials) -> list[MetricRow]:
    """Return what each metric can see, by the controls and self-tests of the first study.

    Args:
        context: of the run.
        pools: of the first study.
        trials: of these pools.
    """
    measured = completed_metrics(
        {(trial.spec.pool, trial.spec.seed): trial for trial in finished(context, trials)}
    )
    controls = {pool.id for pool in pools.pools if pool.kind is PoolKind.CONTROL}
    spoilt = {pool.id for pool in pools.pools if pool.spoil is not None}
    return sensitivities(
        {key: metrics for key, metrics in measured.items() if key[0] in controls},
        {key: metrics for key, metrics in measured.items() if key[0] in spoilt},
        context.config.evaluation.score_metrics(),
    )


def finished(context: Context, trials: Trials) -> list[TrialRecord]:
    """Read the trials of a study from its tables."""
    storage = context.storage
    return read_records(storage.read_table(trials.trials), storage.read_table(trials.curves))


def decisions(storage: Storage, folder: str) -> list[Decision]:
    """Return what was decided about early stopping, rung by rung; see :attr:`Trials.race`.

    Raises:
        Damaged: a decision is not as it was made.
    """
    found = (_decision(storage, f"{folder}/{name}") for name in storage.names(folder))
    return sorted(found, key=lambda item: item.samples)


def _decision(storage: Storage, path: str) -> Decision:
    try:
        return _DECISION.validate_python(storage.read_sealed(path))
    except ValidationError as error:
        raise storage.damaged(path, error.errors()[0]["msg"]) from None
