"""Keeps the part of a statistic whose pools made the model better."""

from __future__ import annotations

from typing import Literal

from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.bounds import bucket_bounds
from djsandbox_ray.recipes.refiner import Evidence, ProposedRange, Refiner
from djsandbox_ray.records import Pool, PoolKind
from djsandbox_ray.sections import Component

_KEPT = {"better": {"better"}, "not_worse": {"better", "undecided"}}


class ModelFeedbackConfig(Component):
    """Which neighbours of a chosen bucket are kept with it."""

    keep: Literal["better", "not_worse"] = "better"
    """``better``: neighbouring buckets that were called better, too; ``not_worse``: also those
    that were undecided, for a recipe that drops only what was seen to hurt."""


class ModelFeedback(Refiner):
    """Per statistic of the chosen pools, the union of their buckets with good neighbours.

    A verdict of the confirmation replaces that of the first study. The outermost buckets are open:
    what lies beyond them was not seen, but the nearest that was seen is good.
    """

    Config = ModelFeedbackConfig
    trained = True
    config: ModelFeedbackConfig

    def propose(self, evidence: Evidence) -> tuple[ProposedRange, ...]:
        """Return a range per statistic; none for a statistic of which every bucket is kept.

        Raises:
            BadInput: no pool was chosen, or two buckets of one statistic.
        """
        if not evidence.chosen:
            raise BadInput("model_feedback: there is no chosen pool whose effect could guide it")
        chosen = evidence.chosen_pools
        if len(evidence.statistics) < len(chosen):
            raise BadInput(f"two of the chosen pools {evidence.chosen} are of one statistic")
        ranges = (self._range(pool, evidence) for pool in chosen)
        return tuple(r for r in ranges if (r.low, r.high) != (None, None))

    def _range(self, chosen: Pool, evidence: Evidence) -> ProposedRange:
        buckets = _buckets(chosen, evidence)
        verdicts = {row.pool: (row.verdict, "") for row in evidence.ranking}
        verdicts |= {
            row.pool: (row.verdict, " in the confirmation") for row in evidence.confirmation
        }
        found = [verdicts.get(pool.id, ("not trained", "")) for pool in buckets]
        good = [verdict in _KEPT[self.config.keep] for verdict, _ in found]
        first = last = chosen.code
        while first > 0 and good[first - 1]:
            first -= 1
        while last < len(buckets) - 1 and good[last + 1]:
            last += 1
        name = str(chosen.statistic)
        values = evidence.column(name)
        if evidence.eligible is not None:
            values = values[evidence.eligible]
        low, high = bucket_bounds(values, len(buckets), first, last)
        said = ", ".join(
            f"{pool.id} ({verdict}{where})"
            for pool, (verdict, where) in list(zip(buckets, found, strict=True))[first : last + 1]
        )
        return ProposedRange(name, low, high, f"buckets {said}")


def _buckets(chosen: Pool, evidence: Evidence) -> list[Pool]:
    """Return all buckets of a pool's statistic, lowest values first."""
    pools = evidence.pools.pools if evidence.pools else ()
    return sorted(
        (p for p in pools if p.kind is PoolKind.BUCKET and p.statistic == chosen.statistic),
        key=lambda pool: pool.code,
    )
