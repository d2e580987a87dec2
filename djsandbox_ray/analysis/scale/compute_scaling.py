"""A pool and the controls at several budgets: both laws, what they predict, and with what caveats.

One model at a time. Every budget is a training of its own: what a longer training reports on its
way has a learning rate that has not come down yet, and is worse than a training that ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.scale.fitting import Estimate, NoLaw, SeedMeans
from djsandbox_ray.analysis.scale.power_law import (
    FAR,
    Crossing,
    PowerLaw,
    Prediction,
    crossings,
    fit_power_law,
    predict,
)

Floats = NDArray[np.float64]

CONTROLS = "controls"
"""The arm that stands for all controls."""
_NOTHING = (
    "no budget has errors of both arms: their trials failed, or a metric of the score lies outside "
    "[0, 1]"
)


@dataclass(frozen=True)
class Draws:
    """What every training, however long, is made of."""

    rows: int
    """Different rows of a draw."""
    full: int
    """Samples of the full run."""


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

    @property
    def pool(self) -> str:
        """The arm that is no control."""
        return next(arm for arm in self.laws if arm != CONTROLS)

    def sentences(self) -> list[str]:
        """Say what came out, in plain words, without the caveats."""
        missing = [
            f"no law for {arm}: {law.reason}"
            for arm, law in self.laws.items()
            if isinstance(law, NoLaw)
        ]
        if self.prediction is None:
            return missing
        found = self.prediction.difference
        predicted = (
            f"{self.pool}: at the full run, {self.extrapolation:.3g} times the largest training, "
            f"its error is predicted to be {abs(found.value):.4f} {_word(found.value > 0)} than "
            f"that of the controls ({self._interval(found)})"
        )
        return [predicted, *map(self._crossing, self.crossings)]

    def _interval(self, found: Estimate) -> str:
        if found.low is None or found.high is None:
            fixed = any(isinstance(law, PowerLaw) and law.fixed_floor for law in self.laws.values())
            why = "three budgets do not tell how far errors fall" if fixed else "one seed"
            return f"no interval: {why}"
        words = (f"{abs(end):.4f} {_word(end > 0)}" for end in (found.high, found.low))
        undecided = ": undecided" if found.low <= 0 <= found.high else ""
        return f"95 % interval from {' to '.join(words)}{undecided}"

    def _crossing(self, found: Crossing) -> str:
        where = "among the trainings" if found.measured else "extrapolated"
        return (
            f"{self.pool}: the laws cross at {found.compute / self.largest:.3g} times the largest "
            f"training ({where}): beyond it, its error is the {_word(found.better)} one"
        )

    def drawn(self, points: int = 100) -> dict[str, tuple[Floats, Floats]]:
        """Return compute and error along every law, from the least measured to the full run."""
        found = {}
        for arm, law in self.laws.items():
            if isinstance(law, PowerLaw):
                x = np.geomspace(law.compute[0], max(self.target, law.compute[-1]), points)
                found[arm] = (x, law.errors(x))
        return found

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
    name: str,
    compute: Floats,
    top: Floats,
    controls: Floats,
    target: float,
    draws: Draws | None = None,
) -> ComputeScaling:
    """Fit both arms, and extrapolate them to the full run.

    Args:
        name: of the pool.
        compute: (budgets,), rising: FLOPs, or samples where nobody counted.
        top: errors of the pool, (budgets, seeds), NaN where a trial has no result.
        controls: errors of the controls, the mean of their arms seed by seed; the same shape.
        target: compute of the full run, in the same unit.
        draws: what the trainings were made of; without, no caveat is about it.
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
        caveats=tuple(_caveats(found, target / largest, int((~there).sum()), draws)),
    )


def _word(better: bool) -> str:
    return "smaller" if better else "larger"


def scaling_sentences(found: Mapping[str, ComputeScaling]) -> list[str]:
    """Return what is said of every model, by its name, then the caveats; shared ones once."""
    told = [f"{name}: {line}" for name, scaling in found.items() for line in scaling.sentences()]
    shared = set.intersection(*(set(scaling.caveats) for scaling in found.values()))
    caveats = [
        f"caveat: {line}" if line in shared else f"{name}: caveat: {line}"
        for name, scaling in found.items()
        for line in scaling.caveats
    ]
    return [*told, *dict.fromkeys(caveats)]


def _caveats(laws: Sequence[PowerLaw], factor: float, lost: int, draws: Draws | None) -> list[str]:
    found = []
    if lost:
        found.append(f"{lost} budgets are left out: an arm has no result there")
    if not laws:
        return found
    if any(law.fixed_floor for law in laws):
        found.append(
            "three budgets: the irreducible error is taken for 0, so that the errors predicted "
            "are too small if there is one, and intervals would be too narrow by far: there is "
            "none; a fourth budget tells it and gives one"
        )
    if any(not len(law.replicates.height) for law in laws):
        found.append("an arm has one seed at some budget: there are no intervals")
    if factor > FAR:
        found.append(
            f"the full run is {factor:.3g} times the largest training: a power law of small runs "
            f"is rarely known to hold beyond a factor of {FAR:g}"
        )
    if draws is not None and draws.full > draws.rows:
        passes = draws.full / draws.rows
        found.append(
            f"every training is on the same {draws.rows:,} rows of a draw, which the longest sees "
            f"{passes / factor:.3g} times and the full run {passes:.3g} times; a run on more rows "
            "follows another law"
        )
    found.append(
        "intervals are over seeds, none of which chose the pool; they do not hold what other rows "
        "of the same kind would change (these were chosen for their effect), nor whether the law "
        "is the right one"
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
