"""What a finished study has left, read back: its trials, its decisions, its verdicts."""

from __future__ import annotations

from pydantic import TypeAdapter

from djsandbox_ray.analysis.ranking import rank
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.records import Pools, RankingRow, TrialRecord, Trials
from djsandbox_ray.storage import Storage
from djsandbox_ray.trials.stopping.stopping import Decision
from djsandbox_ray.trials.tables import read_records

_DECISION = TypeAdapter(Decision)


def ranked(
    context: Context, pools: Pools, trials: Trials, measured_in: Trials | None = None
) -> list[RankingRow]:
    """Judge the pools of a study by its finished trials.

    Args:
        context: of the run.
        pools: of the study.
        trials: of the study.
        measured_in: the study whose controls make the unit of the changes; by default this one.
    """
    evaluation = context.config.evaluation
    records = finished(context, trials)
    first = finished(context, measured_in) if measured_in else []
    return rank(
        pools.pools,
        records,
        seeds=sorted({record.spec.seed for record in records}),
        metrics=evaluation.score,
        aggregate=evaluation.aggregate,
        alpha=evaluation.alpha,
        draw_share=pools.draw_size / pools.size,
        buckets=context.config.pools.buckets,
        measured_in=[record for record in first if record.spec.pool.startswith("control/")],
    )


def finished(context: Context, trials: Trials) -> list[TrialRecord]:
    """Read the trials of a study from its tables."""
    storage = context.storage
    return read_records(storage.read_table(trials.trials), storage.read_table(trials.curves))


def decisions(storage: Storage, folder: str) -> list[Decision]:
    """Return what was decided about early stopping, rung by rung; see :attr:`Trials.race`."""
    found = (storage.read_json(f"{folder}/{name}") for name in storage.names(folder))
    return sorted(map(_DECISION.validate_python, found), key=lambda item: item.samples)
