"""The trials of a study as scores: one number per pool and seed, on one yardstick."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.grid import Grid, Key, completed_metrics, trial_grid
from djsandbox_ray.analysis.verdicts import MIN_CONTROLS
from djsandbox_ray.analysis.yardstick import Yardstick
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.records import Pool, PoolKind, TrialRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """What the trials of a study measured."""

    grid: Grid
    """All trials, by pool and seed."""
    seeds: Sequence[int]
    measured: Mapping[Key, Mapping[str, float]]
    """Final metrics of the completed trials."""
    controls: Sequence[str]
    """The control pools."""
    arms: Sequence[str]
    """The control pools that completed all their trials."""

    @classmethod
    def of(
        cls, pools: Sequence[Pool], trials: Iterable[TrialRecord], seeds: Sequence[int]
    ) -> Study:
        """Check the trials and arrange them.

        Raises:
            BadInput: see :func:`djsandbox_ray.analysis.grid.trial_grid` and
                :func:`djsandbox_ray.analysis.grid.completed_metrics`; fewer than 3 control pools.
            SandboxError: so many control trials failed that fewer than 3 arms are complete.
        """
        grid = trial_grid(pools, trials, seeds)
        measured = completed_metrics(grid)
        controls = [pool.id for pool in pools if pool.kind is PoolKind.CONTROL]
        if len(controls) < MIN_CONTROLS:
            raise BadInput(f"{len(controls)} control pools; at least {MIN_CONTROLS} are needed")
        arms = [name for name in controls if all((name, seed) in measured for seed in seeds)]
        if len(arms) < MIN_CONTROLS:
            raise SandboxError(
                f"only {len(arms)} of {len(controls)} control arms completed all their trials; "
                f"at least {MIN_CONTROLS} are needed to measure the noise between arms"
            )
        return cls(grid, seeds, measured, controls, arms)

    def finals(self, pool: str) -> list[Mapping[str, float]]:
        """Return the final metrics of a pool's completed trials."""
        return [self.measured[pool, seed] for seed in self.seeds if (pool, seed) in self.measured]

    def control_metrics(self) -> dict[Key, Mapping[str, float]]:
        """Return the final metrics of the completed control trials."""
        return {key: values for key, values in self.measured.items() if key[0] in self.controls}

    def scores(self, pool: str, yardstick: Yardstick) -> Floats:
        """Return the scores of a pool, shape (seeds,); NaN where no trial was completed."""
        found = (self.measured.get((pool, seed)) for seed in self.seeds)
        return np.array([math.nan if m is None else yardstick.change(m) for m in found])

    def control_scores(self, yardstick: Yardstick) -> Floats:
        """Return the scores of the complete arms, shape (arms, seeds)."""
        return np.stack([self.scores(name, yardstick) for name in self.arms])
