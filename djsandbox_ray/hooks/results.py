"""What a finished study has left, read back: its trials, its decisions, its verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter

from djsandbox_ray.analysis.ranking import rank
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.records import PoolKind, Pools, RankingRow, TrialRecord, Trials
from djsandbox_ray.storage import Storage
from djsandbox_ray.trials.stopping.stopping import Decision
from djsandbox_ray.trials.tables import read_records

_DECISION = TypeAdapter(Decision)


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
    reference = _controls(context, first) if first else []
    return rank(
        pools.pools,
        records,
        seeds=seeds,
        metrics=evaluation.score,
        aggregate=evaluation.aggregate,
        alpha=evaluation.alpha,
        draw_share=pools.draw_size / pools.size,
        bucket_share=pools.size / pools.eligible,
        family=family,
        measured_in=reference,
    )


def _controls(context: Context, trials: Trials) -> list[TrialRecord]:
    """Read the control trials of a study."""
    kinds = context.storage.read_table(trials.trials, ["trial", "kind"]).to_pylist()
    controls = {row["trial"] for row in kinds if row["kind"] == PoolKind.CONTROL}
    return [record for record in finished(context, trials) if record.spec.id in controls]


def finished(context: Context, trials: Trials) -> list[TrialRecord]:
    """Read the trials of a study from its tables."""
    storage = context.storage
    return read_records(storage.read_table(trials.trials), storage.read_table(trials.curves))


def decisions(storage: Storage, folder: str) -> list[Decision]:
    """Return what was decided about early stopping, rung by rung; see :attr:`Trials.race`."""
    found = (storage.read_json(f"{folder}/{name}") for name in storage.names(folder))
    return sorted(map(_DECISION.validate_python, found), key=lambda item: item.samples)
