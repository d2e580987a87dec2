"""The trials of a run as a complete grid of pools and seeds, checked before anything is ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Pool, PoolKind, TrialRecord, TrialState

Key = tuple[str, int]
"""Pool id and seed."""
Grid = dict[Key, TrialRecord]


def trial_grid(pools: Sequence[Pool], trials: Iterable[TrialRecord], seeds: Sequence[int]) -> Grid:
    """Arrange the trials by pool and seed.

    Raises:
        BadInput: no seeds, or one twice; a pool twice; a trial that is missing, twice there, of an
            unknown pool or seed, still running, completed without a report at its full budget, or
            stopped early although its pool is a control or self-test; budgets that differ.
    """
    expected = [(pool.id, seed) for pool in pools for seed in seeds]
    if not seeds or len(set(seeds)) != len(seeds):
        raise BadInput(f"seeds are {list(seeds)}; at least one is needed, each once")
    if len(set(expected)) != len(expected):
        raise BadInput("a pool is given twice; pool ids must be unique")
    known = set(expected)
    may_stop = {pool.id for pool in pools if pool.kind is PoolKind.BUCKET}
    grid: Grid = {}
    for trial in trials:
        key = (trial.spec.pool, trial.spec.seed)
        if key not in known:
            raise BadInput(f"{trial_name(trial)} is of no pool and seed of this run")
        if key in grid:
            raise BadInput(f"{trial_name(trial)}: a second trial of that pool and seed")
        if trial.state is TrialState.RUNNING:
            raise BadInput(f"{trial_name(trial)} is still running; only finished trials are ranked")
        if trial.state is TrialState.COMPLETED and trial.final is None:
            raise BadInput(
                f"{trial_name(trial)} is completed, but has no report at its budget of "
                f"{trial.spec.budget} samples"
            )
        if trial.state is TrialState.STOPPED and key[0] not in may_stop:
            raise BadInput(
                f"{trial_name(trial)} was stopped early; controls and self-tests never are"
            )
        grid[key] = trial
    missing = [key for key in expected if key not in grid]
    if missing:
        pool, seed = missing[0]
        raise BadInput(f"{len(missing)} trials are missing, first: pool {pool!r}, seed {seed}")
    budgets = sorted({trial.spec.budget for trial in grid.values()})
    if len(budgets) > 1:
        raise BadInput(f"trials with different budgets cannot be compared: {budgets} samples")
    return grid


def completed_metrics(grid: Grid) -> dict[Key, Mapping[str, float]]:
    """Return the final metrics of every completed trial.

    Raises:
        BadInput: a metric of some completed trial is missing in another one, or is not finite;
            names the trial and the metric.
    """
    measured: dict[Key, Mapping[str, float]] = {}
    for key, trial in grid.items():
        if trial.state is TrialState.COMPLETED and trial.final is not None:
            measured[key] = trial.final.metrics
    names = dict.fromkeys(name for metrics in measured.values() for name in metrics)
    for key, metrics in measured.items():
        for name in names:
            if name not in metrics:
                raise BadInput(
                    f"{trial_name(grid[key])} lacks the metric {name!r}, which other trials have"
                )
            if not math.isfinite(metrics[name]):
                raise BadInput(f"{trial_name(grid[key])}: metric {name!r} is {metrics[name]}")
    return measured


def given_up(grid: Grid) -> dict[str, int]:
    """Return the pools with a trial that was stopped early.

    Returns:
        By pool, the samples that the least complete of these trials had reported; 0 if none had
        reported anything.
    """
    found: dict[str, int] = {}
    for (pool, _), trial in grid.items():
        if trial.state is TrialState.STOPPED:
            samples = trial.reports[-1].samples if trial.reports else 0
            found[pool] = min(found.get(pool, samples), samples)
    return found


def trial_name(trial: TrialRecord) -> str:
    """Name a trial for a message."""
    return f"trial {trial.spec.id!r} (pool {trial.spec.pool!r}, seed {trial.spec.seed})"
