"""The costs of all stages, their total and their JSON form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Cost

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
        "stages": [asdict(cost) for cost in costs],
        "total": {**whole, "uncounted": list(whole["uncounted"])},
    }


def from_json(value: Any, *, where: str = "ledger.json") -> tuple[Cost, ...]:
    """Return the stages of a ledger that :func:`to_json` has made.

    Args:
        value: the plain data.
        where: its file, for messages.

    Raises:
        BadInput: it is no ledger, or its total is not that of its stages.
    """
    if not isinstance(value, dict) or value.keys() != {"stages", "total"}:
        raise BadInput(f"{where}: not a ledger; a mapping with 'stages' and 'total' is needed")
    try:
        costs = _COSTS.validate_python(value["stages"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["stages", *map(str, first["loc"])])
        raise BadInput(f"{where}: {place}: {first['msg']}") from error
    if value["total"] != to_json(costs)["total"]:
        raise BadInput(f"{where}: the total is not that of the stages")
    return costs
