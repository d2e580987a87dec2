"""The extension point: a refiner proposes which values of which statistics to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import ConfirmationRow, Pool, Pools, Range, RankingRow
from djsandbox_ray.registry import Registry
from djsandbox_ray.sections import Component


@dataclass(frozen=True)
class ProposedRange(Range):
    """A range that says where it came from."""

    origin: str = ""


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
        known_statistics([statistic], self.columns)
        return self.columns[statistic]


def known_statistics(names: Iterable[str], known: Iterable[str]) -> None:
    """Check names of statistics.

    Raises:
        BadInput: one is unknown; names the nearest and lists all.
    """
    listed = list(known)
    for name in names:
        if name not in listed:
            near = get_close_matches(name, listed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadInput(f"unknown statistic {name!r}{hint} (known: {', '.join(listed)})")


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
        "k_sigma": "djsandbox_ray.recipes.k_sigma:KSigma",
        "model_feedback": "djsandbox_ray.recipes.model_feedback:ModelFeedback",
        "percentile": "djsandbox_ray.recipes.percentile:Percentile",
    },
)
