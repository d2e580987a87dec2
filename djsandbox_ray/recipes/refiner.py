"""The extension point: a refiner proposes which values of which statistics to keep.

Percentiles and k standard deviations need no trial; model feedback keeps the part of a statistic
whose pools made the model better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.eligible import check_statistics
from djsandbox_ray.recipes.bounds import bucket_bounds, finite, settle
from djsandbox_ray.records import ConfirmationRow, Pool, PoolKind, Pools, Range, RankingRow
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component, Section


@dataclass(frozen=True)
class ProposedRange(Range):
    """A range that says where it came from."""

    origin: str = ""


def narrowed(within: Iterable[Range], ranges: Iterable[Range]) -> tuple[ProposedRange, ...]:
    """Return ranges together with those that the pools behind them were made within.

    Args:
        within: what the rows of all pools lay in already; none for the whole dataset.
        ranges: what is proposed on top of that.

    Returns:
        One range per statistic, of the values that lie in all that are said of it.
    """
    found: dict[str, ProposedRange] = {}
    for item in (*within, *ranges):
        both = (found.get(item.statistic, item), item)
        low = max((one.low for one in both if one.low is not None), default=None)
        high = min((one.high for one in both if one.high is not None), default=None)
        origin = item.origin if isinstance(item, ProposedRange) else "what was probed"
        found[item.statistic] = ProposedRange(item.statistic, low, high, origin)
    return tuple(found.values())


@dataclass(frozen=True)
class Evidence:
    """What a refiner may look at; a run without trials has columns alone."""

    columns: Mapping[str, NDArray[np.float64]]
    """Statistics by name, each (rows of the dataset,), NaN for no value; read when asked for."""
    pools: Pools | None = None
    """Of the single-operator stage."""
    ranking: Sequence[RankingRow] = ()
    """Of the single-operator stage."""
    confirmation: Sequence[ConfirmationRow] = ()
    combinations: Pools | None = None
    combination_ranking: Sequence[RankingRow] = ()
    chosen: tuple[str, ...] = ()
    """The pools of the single-operator stage to stand on: one, or the parts of a combination."""
    eligible: NDArray[np.bool_] | None = None
    """Rows that pools are made of, (rows of the dataset,); None for all."""

    @property
    def chosen_pools(self) -> tuple[Pool, ...]:
        """The chosen pools, in order.

        Raises:
            BadInput: one of them is no bucket of a statistic.
        """
        known = {pool.id: pool for pool in self.pools.pools} if self.pools else {}
        for name in self.chosen:
            if name not in known or known[name].statistic is None:
                raise BadInput(f"the pool {name!r} is not a bucket of a statistic")
        return tuple(known[name] for name in self.chosen)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics of the chosen pools, each once; where no pools were made, all of them."""
        if self.pools is None:
            return tuple(self.columns)
        return tuple(dict.fromkeys(str(pool.statistic) for pool in self.chosen_pools))

    def column(self, statistic: str) -> NDArray[np.float64]:
        """Return a statistic of every row.

        Raises:
            BadInput: there is none of this name; lists the known ones.
        """
        check_statistics([statistic], self.columns)
        return self.columns[statistic]


class Refiner(ABC):
    """Proposes ranges from what a run has found."""

    Config: ClassVar[type[Component]] = Component
    trained: ClassVar[bool] = False
    """Whether the effect of the chosen pools stands behind what it proposes."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def needs_choice(self) -> bool:
        """Whether it can propose nothing where no pool was chosen."""
        return True

    @abstractmethod
    def propose(self, evidence: Evidence) -> tuple[ProposedRange, ...]:
        """Return at most one range per statistic; bounds are included in what is kept."""


REFINERS: Registry[Refiner] = Registry(
    "refiner",
    Refiner,  # type: ignore[type-abstract]
    {
        "k_sigma": "djsandbox_ray.recipes.refiner:KSigma",
        "model_feedback": "djsandbox_ray.recipes.refiner:ModelFeedback",
        "percentile": "djsandbox_ray.recipes.refiner:Percentile",
    },
)


class Percentiles(Section):
    """Percentiles to keep, both included."""

    low: float = Field(default=0.0, ge=0, le=100)
    """In percent; 0 for no lower bound."""
    high: float = Field(default=100.0, ge=0, le=100)
    """In percent; 100 for no upper bound."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        return self


class PercentileConfig(Percentiles, Component):
    """``low`` and ``high`` are for every chosen statistic, unless ``statistics`` names others."""

    statistics: dict[str, Percentiles] = Field(default={})
    """Per statistic its own percentiles; these statistics alone are then bounded."""


class Untrained(Refiner):
    """Looks at the values alone: of statistics that are named, or of those of the chosen pools."""

    example: ClassVar[str]
    """How statistics are named."""

    @property
    def needs_choice(self) -> bool:
        """Not where statistics are named."""
        return not self.config.statistics

    def propose(self, evidence: Evidence) -> tuple[ProposedRange, ...]:
        """Return a range per statistic.

        Raises:
            BadInput: an unknown statistic, one without values, or none at all.
        """
        names = tuple(dict.fromkeys(self.config.statistics or evidence.statistics))
        if not names:
            raise BadInput(
                f"{self.config.type}: no pool was chosen, so statistics must be named: "
                f"statistics: {self.example}"
            )
        return tuple(self._range(name, evidence) for name in names)

    @abstractmethod
    def _range(self, name: str, evidence: Evidence) -> ProposedRange:
        """Return the range of one statistic."""


class Percentile(Untrained):
    """A percentile is a value of the column (inverse of the empirical distribution function)."""

    Config = PercentileConfig
    config: PercentileConfig
    example = "{name: {low: 5, high: 95}}"

    def _range(self, name: str, evidence: Evidence) -> ProposedRange:
        percent = self.config.statistics.get(name, self.config)
        values = finite(evidence.column(name))
        ends = np.percentile(values, [percent.low, percent.high], method="inverted_cdf")
        low, high = settle(
            values,
            None if percent.low == 0 else float(ends[0]),
            None if percent.high == 100 else float(ends[1]),
        )
        origin = f"percentiles {percent.low:g} to {percent.high:g} of {len(values)} values"
        return ProposedRange(name, low, high, origin)


class KSigmaConfig(Component):
    """How far from the mean a value may lie."""

    k: float = Field(default=3.0, gt=0)
    """Standard deviations (population) on either side of the mean."""
    statistics: tuple[str, ...] = ()
    """Which statistics; by default those of the chosen pools."""


class KSigma(Untrained):
    """Takes away outliers on both sides; rows without a value have no part in the mean."""

    Config = KSigmaConfig
    config: KSigmaConfig
    example = "[name]"

    def _range(self, name: str, evidence: Evidence) -> ProposedRange:
        values = finite(evidence.column(name))
        mean, sd, k = float(values.mean()), float(values.std()), self.config.k
        low, high = settle(values, mean - k * sd, mean + k * sd)
        origin = f"mean {mean:g} +- {k:g} x standard deviation {sd:g} of {len(values)} values"
        return ProposedRange(name, low, high, origin)


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
