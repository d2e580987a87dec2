"""Which seeds which study uses: what was chosen by its luck is never judged by the same luck."""

from __future__ import annotations

from djsandbox_ray.config import RunConfig


def confirmation_seeds(config: RunConfig) -> range:
    """Return the seeds of the second look: none that the first study has used."""
    first = config.trials.seeds
    return range(first, first + (config.confirm.seeds or first))


def combination_seeds(config: RunConfig, count: int = 0) -> range:
    """Return the seeds of combinations: used by no study before.

    The pools that are combined were chosen by their effects in those.

    Args:
        config: of the run.
        count: how many; 0 for as many as the run has.
    """
    start = confirmation_seeds(config).stop
    return range(start, start + (count or config.trials.seeds))


def scaling_seeds(config: RunConfig, count: int = 0) -> range:
    """Return the seeds of studies of the best combination: scaling and repetition.

    It was chosen by its effect in the trials of combinations. The two studies choose nothing of
    each other: they have these seeds in common, so that what both train is trained once.

    Args:
        config: of the run.
        count: how many; 0 for as many as the run has.
    """
    start = combination_seeds(config).stop
    return range(start, start + (count or config.trials.seeds))
