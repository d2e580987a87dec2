"""How many pools jobs will have at most, before the jobs that make them have run."""

from __future__ import annotations

from typing import Literal

from djsandbox_ray.config import RunConfig
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.pools.builder import BUILDERS, RangePool
from djsandbox_ray.pools.combine import MOST_PARTS
from djsandbox_ray.records import Choice, Dataset, PoolKind, Pools
from djsandbox_ray.stats.operators import parse_process

UNBUILT = "how many pools a builder of `pools.extra` makes is not known before it has made them"
UNREAD = "how many rows a trial draws is not known before the data are read, or `pools.size` is set"


def first_pools(pools: Pools | Planned, config: RunConfig) -> int:
    """Return the pools of the single-operator stage, controls and self-tests included.

    While they are not built, every statistic is taken to be testable; see also :data:`UNBUILT`.
    """
    tested = _tested(config)
    most = tested + config.pools.control_count(tested) + 2 * config.pools.self_tests
    return pools_in(pools, most)


def first_controls(pools: Pools | Planned, config: RunConfig) -> int:
    """Return the control arms among :func:`first_pools`."""
    if isinstance(pools, Pools):
        return sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
    return config.pools.control_count(_tested(config))


def unbuilt(pools: Pools | Planned, config: RunConfig) -> str:
    """Return why :func:`first_pools` is no bound, or nothing: a user's builder may make more."""
    own = [
        item for item in config.pools.extra if not issubclass(BUILDERS.get(item.type), RangePool)
    ]
    return UNBUILT if own and not isinstance(pools, Pools) else ""


def combined_pools(
    choice: Choice | Planned | None, config: RunConfig, controls: int | Literal["auto"] = "auto"
) -> int:
    """Return the pools of a pyramid, controls included; 0 where nothing was chosen.

    Of a choice that does not say how much it takes, every statistic may be a part.
    """
    if choice is None or choice.pools == ():
        return 0
    most = min(MOST_PARTS, _statistics(config))  # a pyramid has no more parts, one per statistic
    parts = len(choice.pools) if isinstance(choice, Choice) else choice.pools
    arms: int = 2 ** min(most, most if parts is None else parts) - 1
    beside = config.pools.control_count(arms) if controls == "auto" else controls
    return arms + beside


def pools_in(pools: Pools | Planned | None, otherwise: int) -> int:
    """Return how many pools there are or will be; ``otherwise`` where nobody says."""
    if pools is None:
        return 0
    if isinstance(pools, Pools):
        return len(pools.pools)
    return otherwise if pools.pools is None else pools.pools


def largest_draw(config: RunConfig, dataset: Dataset | Planned) -> int | None:
    """Return how many rows a trial draws from a bucket at most; None: nobody knows yet."""
    size = config.pools.size
    if size == "auto":
        # A generated world says beforehand how many samples it has.
        rows = dataset.rows if isinstance(dataset, Dataset) else _generated(config)
        if rows is None:
            return None
        size = rows // config.pools.buckets
    return round(size * config.pools.draw_share)


def _generated(config: RunConfig) -> int | None:
    samples = getattr(config.dataset, "samples", None)
    return samples if isinstance(samples, int) else None


def _tested(config: RunConfig) -> int:
    """Pools that controls stand beside."""
    return _statistics(config) * config.pools.buckets + len(config.pools.extra)


def _statistics(config: RunConfig) -> int:
    return sum(len(spec.keys) for spec in parse_process(config.operators))
