"""Keeps what lies within k standard deviations of the mean; needs no trial."""

from __future__ import annotations

from pydantic import Field

from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.bounds import finite, settle
from djsandbox_ray.recipes.refiner import Evidence, ProposedRange, Refiner
from djsandbox_ray.sections import Component


class KSigmaConfig(Component):
    """How far from the mean a value may lie."""

    k: float = Field(default=3.0, gt=0)
    """Standard deviations (population) on either side of the mean."""
    statistics: tuple[str, ...] = ()
    """Which statistics; by default those of the chosen pools."""


class KSigma(Refiner):
    """Takes away outliers on both sides; rows without a value have no part in the mean."""

    Config = KSigmaConfig
    config: KSigmaConfig

    @property
    def needs_choice(self) -> bool:
        """Not where statistics are named."""
        return not self.config.statistics

    def propose(self, evidence: Evidence) -> tuple[ProposedRange, ...]:
        """Return a range per statistic.

        Raises:
            BadInput: an unknown statistic, one without values, or none at all.
        """
        names = self.config.statistics or evidence.statistics
        if not names:
            raise BadInput(
                "k_sigma: no pool was chosen, so statistics must be named: statistics: [name]"
            )
        return tuple(self._range(name, evidence) for name in dict.fromkeys(names))

    def _range(self, name: str, evidence: Evidence) -> ProposedRange:
        values = finite(evidence.column(name))
        mean, sd, k = float(values.mean()), float(values.std()), self.config.k
        low, high = settle(values, mean - k * sd, mean + k * sd)
        origin = f"mean {mean:g} +- {k:g} x standard deviation {sd:g} of {len(values)} values"
        return ProposedRange(name, low, high, origin)
