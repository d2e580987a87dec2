"""The pools of a run: buckets of testable statistics, builders' pools, controls, self-tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import Arm, arm_of, arms_of, control_columns, self_test_columns
from djsandbox_ray.pools.builder import BUILDERS, built_masks
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.contrast import Probe, probe
from djsandbox_ray.pools.cuts import LEFT_OUT, NO_VALUE, Cut
from djsandbox_ray.pools.eligible import EligibleRows
from djsandbox_ray.pools.filling import BucketColumn, RandomColumn, Rows
from djsandbox_ray.pools.order import hash_key, least_of
from djsandbox_ray.records import NotTestable, Pool, Spoil

SPOILS: tuple[Spoil, ...] = ("captions",)
"""What self-tests do to samples where no model says otherwise."""
_NO_ROWS = np.empty(0, dtype=np.int64)


Each = Callable[[Callable[[str], Probe], Sequence[str]], Iterable[Probe]]
"""Looks at every statistic, in the order of the names: like ``map``, or somewhere else."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """Which pools there will be, before it is known which rows they hold."""

    buckets: tuple[BucketColumn, ...]
    """Of the testable statistics, in their order."""
    random: tuple[RandomColumn, ...]
    """Of controls, then of self-tests."""
    size: int
    """Rows of every pool."""
    draw_size: int
    """Rows that one trial trains on."""
    eligible: int
    """Rows that are not excluded."""
    not_testable: tuple[NotTestable, ...]
    """Statistics, and pools of builders by their ids."""
    contrast: dict[str, float]
    """Per statistic with enough values, the untestable ones included: see
    :func:`djsandbox_ray.pools.contrast.contrast`; of the whole buckets, before they are trimmed."""
    missing: dict[str, int]
    """Per statistic: rows without a value, excluded rows apart."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Construction(Layout):
    """Pools of one size, and the codes that say which rows they hold."""

    assignments: dict[str, NDArray[np.int8]]
    """Per testable statistic, pool of a builder, control and self-test: (n,), ``Pool.code`` for the
    rows of a pool, or ``NO_VALUE`` (in a builder's column: not picked), ``LEFT_OUT`` or
    ``EXCLUDED``."""
    pools: tuple[Pool, ...]
    """The buckets of the statistics in their order, then the pools of builders, which have no
    statistic, then controls, then self-tests."""


def construct(
    row_ids: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.float64]],
    config: PoolConfig,
    excluded: NDArray[np.int64] = _NO_ROWS,
    spoils: Sequence[Spoil] = SPOILS,
) -> Construction:
    """Build all pools of a run.

    Which rows a statistic's buckets hold depends on its own values, the row ids and the seed;
    other statistics matter only through the common size. So it is with the pools of builders.

    Args:
        row_ids: (n,), all different, in any order.
        columns: statistics by name, each (n,), NaN for no value. One column at a time is held,
            so that a mapping that loads lazily keeps memory small; a column may be read again.
            Beside it and the row ids, n bytes are held per column of codes, and for a moment about
            four more.
        config: the ``pools`` section.
        excluded: row ids to keep out of every pool.
        spoils: what the self-tests do to samples.

    Raises:
        BadInput: duplicate row ids, unequal lengths, too few rows, nothing testable, a size larger
            than the smallest bucket, draws that would be empty, or what a builder did wrong.
    """
    rows = EligibleRows(row_ids, columns, excluded)
    check_rows(len(rows), len(excluded), config)
    picked, refused = _extra(rows, tuple(columns), config)
    counts = {name: int(np.count_nonzero(mask)) for name, mask in picked.items()}
    layout = lay_out(rows, tuple(columns), config, map, counts, refused, spoils)
    arms = chain(
        chain.from_iterable(arms_of(column, rows) for column in layout.buckets),
        _extra_arms(rows, picked, layout.size, config),
        chain.from_iterable(arms_of(column, rows) for column in layout.random),
    )
    pools, assignments = [], {}
    for pool, codes in arms:
        pools.append(pool)
        if pool.code == 0:  # the buckets of a statistic share one column
            assignments[pool.column] = rows.expand(codes)
    return Construction(**vars(layout), assignments=assignments, pools=tuple(pools))


def check_rows(rows: int, excluded: int, config: PoolConfig) -> None:
    """Check that there are rows for every bucket.

    Raises:
        BadInput: there are fewer rows than buckets.
    """
    if rows < config.buckets:
        raise BadInput(
            f"{rows} rows ({excluded} more are excluded) are too few for {config.buckets} buckets"
        )


def lay_out(
    rows: Rows,
    names: Sequence[str],
    config: PoolConfig,
    each: Each,
    picked: Mapping[str, int],
    refused: Sequence[NotTestable],
    spoils: Sequence[Spoil] = SPOILS,
) -> Layout:
    """Cut every statistic, and say which pools of which size there will be.

    Args:
        rows: the rows that may be in a pool, at least as many as buckets.
        names: of the statistics.
        config: the ``pools`` section.
        each: how the statistics are walked: in this process, or several at a time in others.
        picked: how many rows the pools of builders may hold, by id.
        refused: pools of builders that cannot be tested.
        spoils: what the self-tests do to samples.

    Raises:
        BadInput: nothing testable, a size larger than the smallest bucket, draws that would be
            empty.
    """
    found = each(partial(_probe, rows, config), names)
    probes = dict(zip(names, found, strict=True))
    cuts = {name: item.cut for name, item in probes.items() if item.cut and item.reason is None}
    not_testable = [
        *(NotTestable(name, item.reason) for name, item in probes.items() if item.reason),
        *refused,
    ]
    size = _pool_size(cuts, picked, not_testable, config)
    buckets = tuple(
        BucketColumn(name, cut, config.bucket_names, size, config.seed)
        for name, cut in cuts.items()
    )
    controls = config.control_count(config.buckets * len(cuts) + len(picked))
    return Layout(
        buckets=buckets,
        random=(
            *control_columns(size, controls, config.seed),
            *(self_test_columns(size, config.seed, spoils) if config.self_tests else ()),
        ),
        size=size,
        draw_size=_draw_size(size, config),
        eligible=len(rows),
        not_testable=tuple(not_testable),
        contrast={
            name: item.contrast for name, item in probes.items() if item.contrast is not None
        },
        missing={name: item.missing for name, item in probes.items()},
    )


def _probe(rows: Rows, config: PoolConfig, name: str) -> Probe:
    return probe(name, rows.reader(name), config)


def _extra(
    rows: EligibleRows, statistics: tuple[str, ...], config: PoolConfig
) -> tuple[dict[str, NDArray[np.bool_]], list[NotTestable]]:
    """Return the rows of the pools of builders by id, and which of these pools cannot be tested."""
    picked, refused = {}, []
    needed = config.least_rows(len(rows))
    for settings in config.extra:
        if settings.name in statistics:
            raise BadInput(f"pools.extra: {settings.name!r} is the name of a statistic")
        for name, mask in built_masks(
            BUILDERS.get(settings.type)(settings), rows, statistics
        ).items():
            count = int(np.count_nonzero(mask))
            if count < needed:
                refused.append(NotTestable(name, _too_few(count, needed, len(rows), config)))
            elif count == len(rows):
                reason = f"it holds all {count} rows, so that it is no other than a control"
                refused.append(NotTestable(name, reason))
            else:
                picked[name] = mask
    return picked, refused


def _too_few(count: int, needed: int, eligible: int, config: PoolConfig) -> str:
    why = (
        f"size is {config.size}"
        if config.size != "auto"
        else f"min_coverage is {config.min_coverage:.1%} of one of {config.buckets} buckets"
    )
    return f"only {count} of {eligible} rows; at least {needed} are needed ({why})"


def _pool_size(
    cuts: Mapping[str, Cut],
    picked: Mapping[str, int],
    not_testable: list[NotTestable],
    config: PoolConfig,
) -> int:
    if not cuts and not picked:
        reasons = "; ".join(f"{item.statistic}: {item.reason}" for item in not_testable)
        raise BadInput(f"no statistic is testable: {reasons or 'there is none'}")
    smallest = {name: min(cut.sizes) for name, cut in cuts.items()} | dict(picked)
    limiting = min(smallest, key=smallest.__getitem__)
    if config.size == "auto":
        return smallest[limiting]
    if config.size > smallest[limiting]:  # of builders' pools, these are refused already
        raise BadInput(
            f"pools.size is {config.size}, but the smallest bucket of {limiting!r} has "
            f"{smallest[limiting]} rows: at most that, or auto"
        )
    return config.size


def _draw_size(size: int, config: PoolConfig) -> int:
    draw_size = round(size * config.draw_share)
    needed = 2 if config.self_tests else 1  # one caption cannot be shuffled
    if draw_size < needed:
        raise BadInput(
            f"draws would have {draw_size} rows ({size} rows per pool x draw_share "
            f"{config.draw_share:g}); at least {needed} needed"
            + (" (shuffled captions need two rows)" if config.self_tests else "")
        )
    return draw_size


def _extra_arms(
    rows: EligibleRows, picked: dict[str, NDArray[np.bool_]], size: int, config: PoolConfig
) -> Iterator[Arm]:
    for name, mask in picked.items():
        chosen = least_of(rows.row_ids, size, hash_key(config.seed, "extra", name), mask)
        codes = np.where(mask, LEFT_OUT, NO_VALUE).astype(np.int8)
        yield arm_of(name, rows.row_ids, chosen, others=codes, bucket=name.partition("/")[2])
