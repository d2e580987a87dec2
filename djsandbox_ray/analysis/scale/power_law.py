"""How an error falls with compute: ``error = floor + height (C / C0)^-exponent``.

The power law with an irreducible part of Hestness et al. 2017 (arXiv 1712.00409) and Kaplan et al.
2020 (arXiv 2001.08361), fitted by least squares on the mean errors of arms whose trainings differ
in their length only. C0 is the least compute measured, so that ``height`` is an error too.

It describes one small model: at other sizes floor and exponent are others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.scale.fitting import (
    NOISE_SHARE,
    Estimate,
    Fits,
    NoLaw,
    SeedMeans,
    estimate,
    fit_curves,
)

Floats = NDArray[np.float64]

LEAST_POINTS = 3
_EXPONENTS = np.geomspace(0.005, 4.0, 80)
_LEAST, _MOST = float(_EXPONENTS[0]) * 1.01, float(_EXPONENTS[-1]) * 0.99
"""A fit beyond these has run into an end."""
FAR = 10.0
"""From here on an extrapolation is called far: power laws of small runs rarely hold longer."""


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """A fitted law and its replicates."""

    compute: Floats
    """(n,): where it was measured, rising."""
    central: Fits
    """One fit, of the means."""
    replicates: Fits
    """Fits of the replicates; none where there was one seed."""
    fixed_floor: bool
    """Whether three points had to do: the floor is then taken for 0."""

    @property
    def floor(self) -> Estimate:
        """The error that no compute removes; taken for 0, it has no interval."""
        if self.fixed_floor:
            return Estimate(0.0, None, None)
        return estimate(float(self.central.floor[0]), self.replicates.floor)

    @property
    def height(self) -> Estimate:
        """The rest of the error at the least compute measured."""
        return estimate(float(self.central.height[0]), self.replicates.height)

    @property
    def exponent(self) -> Estimate:
        """How fast that rest falls."""
        return estimate(float(self.central.parameters[0, 0]), self.replicates.parameters[:, 0])

    def errors(self, compute: Floats) -> Floats:
        """Return the errors at compute of shape (k,), in its unit when fitted; shape (k,)."""
        found: Floats = self._at(self.central, compute)[0]
        return found

    def replicated(self, compute: Floats) -> Floats:
        """Return the same of every replicate, shape (replicates, k)."""
        return self._at(self.replicates, compute)

    def _at(self, fits: Fits, compute: Floats) -> Floats:
        ratio = np.asarray(compute) / self.compute[0]
        fallen: Floats = ratio[None] ** -fits.parameters[:, :1]
        errors: Floats = fits.floor[:, None] + fits.height[:, None] * fallen
        return errors


def fit_power_law(compute: Floats, errors: SeedMeans) -> PowerLaw | NoLaw:
    """Fit the law to the errors of one arm.

    With three points the floor is taken for 0: three parameters would go through any three points
    and say nothing. That makes the predicted errors too small where there is one.

    Args:
        compute: (n,), positive and rising: FLOPs, or samples of one model.
        errors: of n cells, positive.

    Raises:
        ValueError: compute that is not positive and rising, or not one value per cell.
    """
    if compute.shape != errors.means.shape or compute[0] <= 0 or (np.diff(compute) <= 0).any():
        raise ValueError(f"compute {compute} must be positive, rising, and one per cell")
    if len(compute) < LEAST_POINTS:
        return NoLaw(f"too few points: {len(compute)} budgets; a law needs {LEAST_POINTS}")
    if (errors.means <= 0).any():
        return NoLaw("an error is 0: there is nothing left to fall")
    floor = len(compute) > LEAST_POINTS
    logs = np.log(compute / compute[0])

    def fit(values: Floats) -> Fits:
        def shape(parameters: Floats) -> Floats:
            fallen: Floats = np.exp(-parameters * logs)
            return fallen

        return fit_curves(values, errors.counts.astype(float), shape, [_EXPONENTS], floor=floor)

    law = PowerLaw(compute, fit(errors.means[None]), fit(errors.replicates), not floor)
    if reason := _degenerate(law):
        return NoLaw(reason)
    return law


def _degenerate(law: PowerLaw) -> str | None:
    """Say why a fit is none, if so."""
    exponent = float(law.central.parameters[0, 0])
    if law.central.height[0] <= 0 or (law.fixed_floor and exponent <= _LEAST):
        return "the error does not fall with compute"
    if exponent >= _MOST:
        return "the error falls at once to where it stays: no exponent can be told"
    if not law.fixed_floor and exponent <= _LEAST:
        return "the error falls by the same amount per doubling: no exponent can be told"
    if not len(law.replicates.height):
        return None
    fits = law.replicates
    flat = fits.height <= 0
    if law.fixed_floor:
        flat |= fits.parameters[:, 0] <= _LEAST
    if flat.mean() > NOISE_SHARE:
        return "the fall of the error is not told from the noise of the seeds"
    return None


@dataclass(frozen=True)
class Crossing:
    """Where two laws meet."""

    compute: float
    measured: bool
    """Whether it lies where trainings were made."""
    better: bool
    """Whether the pool is the better one beyond it."""


@dataclass(frozen=True)
class Prediction:
    """What two laws say about a training that nobody has made.

    Three budgets cannot tell the floor. Taken for 0 it moves the prediction by more than seeds do:
    for laws with floors of 0.30 and 0.35, intervals over seeds held the true difference in 1 of 120
    simulated studies. So there are none then. With four budgets and more, where the floor is
    fitted, they hold: the tests say so.
    """

    compute: float
    extrapolation: float
    """Its compute over the largest measured."""
    top: Estimate
    """Error of the pool."""
    controls: Estimate
    """Error of the controls."""
    difference: Estimate
    """Error of the controls less that of the pool: above 0 the pool is better."""
    relative: Estimate
    """The difference over 1 - error of the controls: the change as ``pooled`` counts it."""


def predict(top: PowerLaw, controls: PowerLaw, compute: float) -> Prediction:
    """Extrapolate the laws of two arms whose errors are of one set of seeds.

    Their replicates go in pairs: what a seed does to both arms alike is not in the difference.
    """
    at = np.array([compute])
    mine, theirs = top.replicated(at)[:, 0], controls.replicated(at)[:, 0]
    if top.fixed_floor or controls.fixed_floor:
        mine = theirs = np.empty(0)
    top_error, control_error = float(top.errors(at)[0]), float(controls.errors(at)[0])
    gain = control_error - top_error
    return Prediction(
        compute=compute,
        extrapolation=compute / max(float(top.compute[-1]), float(controls.compute[-1])),
        top=estimate(top_error, mine),
        controls=estimate(control_error, theirs),
        difference=estimate(gain, theirs - mine),
        relative=estimate(gain / (1 - control_error), (theirs - mine) / (1 - theirs)),
    )


def crossings(top: PowerLaw, controls: PowerLaw, most: float) -> list[Crossing]:
    """Return where the laws meet between the least compute measured and ``most``, rising."""
    least = max(float(top.compute[0]), float(controls.compute[0]))
    largest = max(float(top.compute[-1]), float(controls.compute[-1]))
    if most <= least:
        return []

    def gap(log: float) -> float:
        at = np.exp(np.array([log]))
        return float(controls.errors(at)[0] - top.errors(at)[0])

    logs = np.linspace(np.log(least), np.log(most), 200)
    gaps = np.array([gap(log) for log in logs])
    turns = np.flatnonzero(gaps[:-1] * gaps[1:] < 0)
    found = [
        float(np.exp(scipy.optimize.brentq(gap, logs[turn], logs[turn + 1]))) for turn in turns
    ]
    better = gaps[turns + 1] > 0
    return [
        Crossing(compute, compute <= largest, bool(after))
        for compute, after in zip(found, better, strict=True)
    ]
