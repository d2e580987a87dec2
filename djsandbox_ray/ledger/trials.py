"""What trials cost, whatever became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from djsandbox_ray.records import Cost, TrialRecord, TrialState


@dataclass(frozen=True)
class StateCost:
    """What the trials of one state cost."""

    state: TrialState
    trials: int
    samples: int
    flops: float | None
    """Of training and evaluation; None where either was not counted."""
    cpu_seconds: float
    gpu_seconds: float


def trial_cost(
    records: Iterable[TrialRecord],
    *,
    stage: str,
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float,
    train_flops: float | None,
    evaluation_flops: float | None,
    wall_seconds: float = 0.0,
) -> Cost:
    """Return what all these trials cost, failed and stopped ones included.

    Samples and operations are those up to each trial's last report; what a trial did after it, or
    did again after a crash, is in the seconds, which are those its placement was held.

    Args:
        records: the trials, each counted on its owner's account.
        stage: name of the stage.
        workers: of every trial.
        cpus_per_worker: CPUs that Ray reserves per worker.
        gpus_per_worker: GPUs, or a share of one.
        train_flops: floating-point operations of training per sample; None where nobody counted.
        evaluation_flops: of one evaluation, made at every report; None where nobody counted.
        wall_seconds: of the stage, which cannot be told from trials that ran side by side.
    """
    spent = _cost_of(
        list(records),
        (workers * cpus_per_worker, workers * gpus_per_worker),
        train_flops,
        evaluation_flops,
    )
    return Cost(stage, *spent, wall_seconds)


def trial_costs_by_state(
    records: Iterable[TrialRecord],
    *,
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float,
    train_flops: float | None,
    evaluation_flops: float | None,
) -> tuple[StateCost, ...]:
    """Return the same cost apart by what became of the trials; states that occur, in fixed order.

    The arguments are those of :func:`trial_cost`.
    """
    held = (workers * cpus_per_worker, workers * gpus_per_worker)
    found = list(records)
    groups = {state: [record for record in found if record.state is state] for state in TrialState}
    return tuple(
        StateCost(state, len(group), *_cost_of(group, held, train_flops, evaluation_flops))
        for state, group in groups.items()
        if group
    )


def _samples(record: TrialRecord) -> int:
    """Return the samples trained on the account of the record's owner."""
    if len(record.reports) <= record.billed_reports:
        return 0
    before = record.reports[record.billed_reports - 1].samples if record.billed_reports else 0
    return record.reports[-1].samples - before


def _cost_of(
    records: Sequence[TrialRecord],
    held: tuple[float, float],
    train_flops: float | None,
    evaluation_flops: float | None,
) -> tuple[int, float | None, float, float]:
    """Return samples, operations, CPU-seconds and GPU-seconds; ``held``: CPUs, GPUs per trial."""
    samples = sum(_samples(record) for record in records)
    evaluations = sum(len(record.reports[record.billed_reports :]) for record in records)
    flops = None
    if train_flops is not None and evaluation_flops is not None:
        flops = samples * train_flops + evaluations * evaluation_flops
    seconds = fsum(record.held_seconds - record.billed_seconds for record in records)
    return samples, flops, seconds * held[0], seconds * held[1]
