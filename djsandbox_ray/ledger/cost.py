"""What stages cost, trials whatever became of them among it: added up, and as ``ledger.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import fsum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Cost, TrialRecord

_COSTS = TypeAdapter(tuple[Cost, ...])


@dataclass(frozen=True)
class Total:
    """What several stages cost together."""

    samples: int
    flops: float | None
    """Of the stages that were counted: a lower bound if there are ``uncounted`` ones; None where
    no stage was counted."""
    uncounted: tuple[str, ...]
    """Stages whose floating-point operations nobody counted."""
    cpu_seconds: float
    gpu_seconds: float
    wall_seconds: float
    """Of the stages one after the other."""


def total(costs: Sequence[Cost]) -> Total:
    """Add up the costs of stages; a count that is missing is named, never taken for zero."""
    counted = [cost.flops for cost in costs if cost.flops is not None]
    return Total(
        samples=sum(cost.samples for cost in costs),
        flops=fsum(counted) if counted or not costs else None,
        uncounted=tuple(cost.stage for cost in costs if cost.flops is None),
        cpu_seconds=fsum(cost.cpu_seconds for cost in costs),
        gpu_seconds=fsum(cost.gpu_seconds for cost in costs),
        wall_seconds=fsum(cost.wall_seconds for cost in costs),
    )


def to_json(costs: Sequence[Cost]) -> dict[str, Any]:
    """Return a ledger as plain data: ``stages``, in order, and ``total``."""
    whole = asdict(total(costs))
    return {
        "stages": [_plain(cost) for cost in costs],
        "total": {**whole, "uncounted": list(whole["uncounted"])},
    }


def _plain(cost: Cost) -> dict[str, Any]:
    """Return a cost as plain data; what is on fixed data only where anything is."""
    without = () if cost.fixed_samples else ("fixed_samples", "fixed_flops")
    return {name: value for name, value in asdict(cost).items() if name not in without}


def from_json(value: Any) -> tuple[Cost, ...]:
    """Return the stages of a ledger that :func:`to_json` has made.

    Args:
        value: the plain data.

    Raises:
        BadInput: it is no ledger, or its total is not that of its stages.
    """
    if not isinstance(value, dict) or value.keys() != {"stages", "total"}:
        raise BadInput("ledger.json: not a ledger; a mapping with 'stages' and 'total' is needed")
    try:
        costs = _COSTS.validate_python(value["stages"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["stages", *map(str, first["loc"])])
        raise BadInput(f"ledger.json: {place}: {first['msg']}") from error
    if value["total"] != to_json(costs)["total"]:
        raise BadInput("ledger.json: the total is not that of the stages")
    return costs


def together(costs: Sequence[Cost]) -> Cost:
    """Return the cost of several studies as that of one stage, named by the first.

    Its operations are None as soon as those of one study are: a part would look like the whole.

    Args:
        costs: one per study, at least one.
    """
    whole, fixed = total(costs), [cost.fixed_flops for cost in costs]
    return replace(
        costs[0],
        samples=whole.samples,
        flops=None if whole.uncounted else whole.flops,
        cpu_seconds=whole.cpu_seconds,
        gpu_seconds=whole.gpu_seconds,
        wall_seconds=whole.wall_seconds,
        fixed_samples=sum(cost.fixed_samples for cost in costs),
        fixed_flops=None if None in fixed else fsum(cost.fixed_flops or 0.0 for cost in costs),
    )


def fixed_share(cost: Cost) -> float:
    """Return the share of a stage that went into fixed data, the same for every pool; 0 to 1.

    Of the operations of its training and evaluation where all of them are counted, else of the
    samples.
    """
    if cost.flops and cost.fixed_flops is not None:
        return cost.fixed_flops / cost.flops
    return cost.fixed_samples / cost.samples if cost.samples else 0.0


def trial_cost(
    records: Iterable[TrialRecord],
    *,
    stage: str,
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float,
    train_flops: Callable[[int], float | None] | None,
    evaluation_flops: float | None,
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
        train_flops: floating-point operations of training up to so many samples, through all
            stages of a trial; None where nobody counted.
        evaluation_flops: of one evaluation, made at every report; None where nobody counted.
    """
    found = list(records)
    spans = [_span(record) for record in found]
    samples = sum(end - start for start, end in spans)
    evaluations = sum(len(record.reports[record.billed_reports :]) for record in found)
    # The pool feeds the first stage; what is behind the budget is the same for every pool.
    fixed = [
        (max(start, record.spec.budget), max(end, record.spec.budget))
        for record, (start, end) in zip(found, spans, strict=True)
    ]
    trained = _operations(spans, train_flops)
    behind = sum(end - start for start, end in fixed)
    after = _operations(fixed, train_flops) if behind else 0.0
    flops = None
    if trained is not None and evaluation_flops is not None:
        flops = trained + evaluations * evaluation_flops
    # How long the stage took cannot be told from trials that ran side by side.
    held = workers * fsum(record.held_seconds - record.billed_seconds for record in found)
    return Cost(
        stage,
        samples,
        flops,
        held * cpus_per_worker,
        held * gpus_per_worker,
        0.0,
        fixed_samples=behind,
        fixed_flops=after,
    )


def _span(record: TrialRecord) -> tuple[int, int]:
    """Return from where to where a trial was trained on the account of the record's owner."""
    if len(record.reports) <= record.billed_reports:
        return 0, 0
    before = record.reports[record.billed_reports - 1].samples if record.billed_reports else 0
    return before, record.reports[-1].samples


def _operations(
    spans: Iterable[tuple[int, int]], flops: Callable[[int], float | None] | None
) -> float | None:
    """Return the operations of training from samples to samples; None where not all are counted."""
    if flops is None:
        return None
    spent = [flops(seen) for span in spans if span[0] < span[1] for seen in span]
    if None in spent:
        return None
    counted = [one or 0.0 for one in spent]
    return fsum(counted[1::2]) - fsum(counted[::2])
