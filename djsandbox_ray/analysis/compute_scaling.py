"""A pool and the controls at several budgets: both laws, what they predict, and with what caveats.

One model at a time. Every budget is a training of its own: what a longer training reports on its
way has a learning rate that has not come down yet, and is worse than a training that ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.curve_fit import NoLaw
from djsandbox_ray.analysis.power_law import (
    FAR,
    Crossing,
    PowerLaw,
    Prediction,
    crossings,
    fit_power_law,
    predict,
)
from djsandbox_ray.analysis.seed_bootstrap import SeedMeans

Floats = NDArray[np.float64]

CONTROLS = "controls"
"""The arm that stands for all controls."""
_NOTHING = (
    "no budget has errors of both arms: their trials failed, or a metric of the score lies outside "
    "[0, 1]"
)


@dataclass(frozen=True, eq=False)
class ComputeScaling:
    """What is known of one model."""

    laws: dict[str, PowerLaw | NoLaw]
    """By arm: the pool and ``controls``."""
    target: float
    """Compute of the full run."""
    largest: float
    """The largest compute measured."""
    prediction: Prediction | None
    """None where one of both laws is missing."""
    crossings: tuple[Crossing, ...]
    caveats: tuple[str, ...]

    @property
    def extrapolation(self) -> float:
        """The target over the largest compute measured."""
        return self.target / self.largest

    def sentences(self) -> list[str]:
        """Say what came out, in plain words."""
        missing = [
            f"no law for {arm}: {law.reason}"
            for arm, law in self.laws.items()
            if isinstance(law, NoLaw)
        ]
        if self.prediction is None:
            return missing
        found, words = self.prediction.difference, "no interval"
        if found.low is not None and found.high is not None:
            words = f"95 % interval {found.low:+.4f} to {found.high:+.4f}"
        return [
            f"at the full run, {self.extrapolation:.3g} times the largest training, the error is "
            f"predicted to be {found.value:+.4f} less than that of the controls ({words})"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the replicates."""
        return {
            "laws": {arm: _law_to_json(law) for arm, law in self.laws.items()},
            "target": self.target,
            "largest": self.largest,
            "extrapolation": self.extrapolation,
            "prediction": None if self.prediction is None else asdict(self.prediction),
            "crossings": [asdict(crossing) for crossing in self.crossings],
            "caveats": list(self.caveats),
        }


def compute_scaling(
    name: str, compute: Floats, top: Floats, controls: Floats, target: float
) -> ComputeScaling:
    """Fit both arms, and extrapolate them to the full run.

    Args:
        name: of the pool.
        compute: (budgets,), rising: FLOPs, or samples where nobody counted.
        top: errors of the pool, (budgets, seeds), NaN where a trial has no result.
        controls: errors of the controls, the mean of their arms seed by seed; the same shape.
        target: compute of the full run, in the same unit.
    """
    there = np.isfinite(top).any(axis=1) & np.isfinite(controls).any(axis=1)
    laws: dict[str, PowerLaw | NoLaw] = {}
    if there.any():
        cells = np.concatenate([top[there], controls[there]])
        # Together: a replicate is of the same seeds in both arms.
        means, budgets = SeedMeans.of(cells), int(there.sum())
        for index, arm in enumerate((name, CONTROLS)):
            own = range(index * budgets, (index + 1) * budgets)
            laws[arm] = fit_power_law(compute[there], means.take(own))
    else:
        laws = dict.fromkeys((name, CONTROLS), NoLaw(_NOTHING))
    found = [law for law in laws.values() if isinstance(law, PowerLaw)]
    both = (found[0], found[1]) if len(found) == len(laws) else None
    largest = float(compute[there][-1]) if there.any() else float(compute[-1])
    return ComputeScaling(
        laws=laws,
        target=target,
        largest=largest,
        prediction=predict(*both, target) if both else None,
        crossings=tuple(crossings(*both, target)) if both else (),
        caveats=tuple(_caveats(found, target / largest, int((~there).sum()))),
    )


def _caveats(laws: Sequence[PowerLaw], factor: float, lost: int) -> list[str]:
    found = []
    if lost:
        found.append(f"{lost} budgets are left out: an arm has no result there")
    if not laws:
        return found
    if any(law.fixed_floor for law in laws):
        found.append(
            "three budgets: the irreducible error is taken for 0, so that the errors predicted "
            "are too small if there is one"
        )
    if any(not len(law.replicates.height) for law in laws):
        found.append("an arm has one seed at some budget: there are no intervals")
    if factor > FAR:
        found.append(
            f"the full run is {factor:.3g} times the largest training: a power law of small runs "
            f"is rarely known to hold beyond a factor of {FAR:g}"
        )
    found.append(
        "intervals are over seeds; they do not hold what other rows of the same kind would change, "
        "nor whether the law is the right one"
    )
    found.append("the laws are of this model; a larger one has others")
    return found


def _law_to_json(law: PowerLaw | NoLaw) -> dict[str, Any]:
    if isinstance(law, NoLaw):
        return {"law": None, "reason": law.reason}
    return {
        "law": {
            "formula": "error = floor + height (C / least)^-exponent",
            "least": float(law.compute[0]),
            "floor": asdict(law.floor),
            "height": asdict(law.height),
            "exponent": asdict(law.exponent),
            "floor_fixed_at_0": law.fixed_floor,
        },
        "reason": None,
    }
