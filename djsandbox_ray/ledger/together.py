"""The cost of a job that trains several studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from djsandbox_ray.ledger.cost import total
from djsandbox_ray.records import Cost


def together(costs: Sequence[Cost]) -> Cost:
    """Return the cost of several studies as that of one stage, named by the first.

    Its operations are None as soon as those of one study are: a part would look like the whole.

    Args:
        costs: one per study, at least one.
    """
    whole = total(costs)
    return replace(
        costs[0],
        samples=whole.samples,
        flops=None if whole.uncounted else whole.flops,
        cpu_seconds=whole.cpu_seconds,
        gpu_seconds=whole.gpu_seconds,
        wall_seconds=whole.wall_seconds,
    )
