"""The studies that a run may have: which seeds each uses, and how many pools at most.

What was chosen by its luck is never judged by the same luck: every study that chooses has seeds
that no study of what was chosen has. How many pools there will be is asked before the jobs that
make them have run: then these are upper bounds.
"""

from __future__ import annotations

from typing import Literal

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.pools.build import SPOILS
from djsandbox_ray.pools.builder import BUILDERS, RangePool
from djsandbox_ray.pools.combine import MOST_PARTS
from djsandbox_ray.records import Choice, Dataset, PoolKind, Pools, Spoil, StudyPlan
from djsandbox_ray.stats.operators import parse_process
from djsandbox_ray.trials.config import MOST_SEEDS
from djsandbox_ray.trials.family import FAMILIES

TRIALS, CONFIRMATION, NOISE, LEARNING_RATE = "trials", "confirmation", "noise", "learning_rate"
"""The studies of pools that are not combined."""

UNBUILT = "how many pools a builder of `pools.extra` makes is not known before it has made them"
UNREAD = "how many rows a trial draws is not known before the data are read, or `pools.size` is set"


def plan_of(pools: Pools | Planned, config: RunConfig) -> StudyPlan:
    """Return how pools are trained and judged: as they say, or as those of the first study are."""
    seeds = config.trials.seed_numbers
    return pools.study or StudyPlan(TRIALS, seeds, "ranking.csv", race=True, optional=False)


def confirmation_plan(config: RunConfig) -> StudyPlan:
    """Return the plan of the second look: seeds that the first study has not used."""
    return StudyPlan(CONFIRMATION, tuple(_confirmation_seeds(config)))


def combination_plan(config: RunConfig, name: str) -> StudyPlan:
    """Return the plan of a pyramid; its pools were chosen by their effects in all studies before.

    Args:
        config: of the run.
        name: of one of its pools: ``combination``.
    """
    return StudyPlan(f"{name}s", tuple(_combination_seeds(config)), f"{name}_ranking.csv")


def scaling_seeds(config: RunConfig, count: int = 0) -> range:
    """Return the seeds of studies of the best combination: scaling and repetition.

    It was chosen by its effect in the trials of combinations. The two studies choose nothing of
    each other: they have these seeds in common, so that what both train is trained once.

    Args:
        config: of the run.
        count: how many; 0 for as many as the run has.

    Raises:
        BadInput: more than a plan can list.
    """
    if count > MOST_SEEDS:
        raise BadInput(f"seeds is {count}; {MOST_SEEDS} are possible")
    start = _combination_seeds(config).stop
    return range(start, start + (count or len(config.trials.seed_numbers)))


def _combination_seeds(config: RunConfig) -> range:
    start = _confirmation_seeds(config).stop
    return range(start, start + len(config.trials.seed_numbers))


def _confirmation_seeds(config: RunConfig) -> range:
    own = config.trials.seed_numbers
    first = max(own) + 1
    return range(first, first + (config.confirm.seeds or len(own)))


def first_pools(pools: Pools | Planned, config: RunConfig) -> int:
    """Return the pools of the single-operator stage, controls and self-tests included.

    While they are not built, every statistic is taken to be testable; see also :data:`UNBUILT`.
    """
    tested = _tested(config)
    most = tested + config.pools.control_count(tested) + self_tests(config)
    return pools_in(pools, most)


def spoils_of(config: RunConfig) -> tuple[Spoil, ...]:
    """Return what self-tests do to samples: what spoils them for the model that is trained."""
    return FAMILIES.get(config.trials.model.type).SPOILS if config.training else SPOILS


def self_tests(config: RunConfig) -> int:
    """Return how many pools have a verdict that is known beforehand."""
    return (1 + len(spoils_of(config))) * config.pools.self_tests


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


def pools_in(pools: Pools | Planned, otherwise: int) -> int:
    """Return how many pools there are or will be; ``otherwise`` where nobody says."""
    if isinstance(pools, Pools):
        return len(pools.pools)
    return otherwise if pools.pools is None else pools.pools


def largest_draw(config: RunConfig, dataset: Dataset | Planned) -> int | None:
    """Return how many rows a trial draws from a bucket at most; None: nobody knows yet."""
    # A generated world says beforehand how many samples it has.
    generated = getattr(config.dataset, "samples", None)
    rows = dataset.rows if isinstance(dataset, Dataset) else generated
    return draw_of(config, rows if isinstance(rows, int) else None)


def draw_of(config: RunConfig, rows: int | None) -> int | None:
    """Return how many rows a trial draws from a bucket at most.

    Args:
        config: of the run.
        rows: of the dataset; None, and then maybe also returned: nobody knows yet.
    """
    size = config.pools.size
    if size == "auto":
        if rows is None:
            return None
        size = rows // config.pools.buckets
    return round(size * config.pools.draw_share)


def _tested(config: RunConfig) -> int:
    """Pools that controls stand beside."""
    return _statistics(config) * config.pools.buckets + len(config.pools.extra)


def _statistics(config: RunConfig) -> int:
    return sum(len(spec.keys) for spec in parse_process(config.operators))
