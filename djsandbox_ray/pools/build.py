"""The pools of a run: every testable statistic cut into buckets, controls and self-tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.arms import Arm, control_arms, pool_hash, self_test_arms
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.contrast import Probe, probe
from djsandbox_ray.pools.cuts import Cut, trim
from djsandbox_ray.pools.hashing import hash_key
from djsandbox_ray.pools.table import EligibleRows
from djsandbox_ray.records import NotTestable, Pool, PoolKind

_NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Construction:
    """Pools of one size, and the codes that say which rows they hold."""

    assignments: dict[str, NDArray[np.int8]]
    """Per testable statistic, control and self-test: (n,), ``Pool.code`` for the rows of a pool,
    or ``NO_VALUE``, ``LEFT_OUT`` or ``EXCLUDED``."""
    pools: tuple[Pool, ...]
    """The buckets of the statistics in their order, then controls, then self-tests."""
    size: int
    """Rows of every pool."""
    draw_size: int
    """Rows that one trial trains on."""
    eligible: int
    """Rows that are not excluded."""
    not_testable: tuple[NotTestable, ...]
    contrast: dict[str, float]
    """Per statistic with enough values, the untestable ones included: see
    :func:`djsandbox_ray.pools.contrast.contrast`; of the whole buckets, before they are trimmed."""
    missing: dict[str, int]
    """Per statistic: rows without a value, excluded rows apart."""


def construct(
    row_ids: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.float64]],
    config: PoolConfig,
    excluded: NDArray[np.int64] = _NO_ROWS,
) -> Construction:
    """Build all pools of a run.

    Which rows a statistic's buckets hold depends on its own values, the row ids and the seed;
    other statistics matter only through the common size.

    Args:
        row_ids: (n,), all different, in any order.
        columns: statistics by name, each (n,), NaN for no value. One column at a time is held,
            so that a mapping that loads lazily keeps memory small; a column may be read twice.
        config: the ``pools`` section.
        excluded: row ids to keep out of every pool.

    Raises:
        BadInput: duplicate row ids, unequal lengths, too few rows, no testable statistic, a size
            larger than the smallest bucket, or draws that would be empty.
    """
    rows = EligibleRows(row_ids, columns, excluded)
    if len(rows) < config.buckets:
        raise BadInput(
            f"{len(rows)} rows ({len(excluded)} more are excluded) are too few for "
            f"{config.buckets} buckets"
        )
    probes = {name: probe(name, rows.column(name), rows.row_ids, config) for name in columns}
    cuts = {
        name: found.cut
        for name, found in probes.items()
        if found.reason is None and found.cut is not None
    }
    size = _pool_size(cuts, probes, config)
    draw_size = _draw_size(size, config)
    controls = config.control_count(config.buckets * len(cuts))
    arms = list(_bucket_arms(rows, cuts, size, config))
    arms += control_arms(rows.row_ids, size, controls, config.seed)
    if config.self_tests:
        arms += self_test_arms(rows.row_ids, size, config.seed)
    return Construction(
        # The buckets of a statistic share one column: it is taken from the first of them.
        assignments={pool.column: rows.expand(codes) for pool, codes in arms if pool.code == 0},
        pools=tuple(pool for pool, _ in arms),
        size=size,
        draw_size=draw_size,
        eligible=len(rows),
        not_testable=tuple(
            NotTestable(name, found.reason)
            for name, found in probes.items()
            if found.reason is not None
        ),
        contrast={
            name: found.contrast for name, found in probes.items() if found.contrast is not None
        },
        missing={name: found.missing for name, found in probes.items()},
    )


def _pool_size(cuts: dict[str, Cut], probes: dict[str, Probe], config: PoolConfig) -> int:
    if not cuts:
        reasons = "; ".join(f"{name}: {found.reason}" for name, found in probes.items())
        raise BadInput(f"no statistic is testable: {reasons or 'there is none'}")
    smallest = {
        name: int(np.bincount(cut.codes[cut.codes >= 0], minlength=config.buckets).min())
        for name, cut in cuts.items()
    }
    limiting = min(smallest, key=smallest.__getitem__)
    if config.size == "auto":
        return smallest[limiting]
    if config.size > smallest[limiting]:
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


def _bucket_arms(
    rows: EligibleRows, cuts: dict[str, Cut], size: int, config: PoolConfig
) -> Iterator[Arm]:
    for name, cut in cuts.items():
        codes = trim(cut.codes, rows.row_ids, size, hash_key(config.seed, "trim", name))
        values = rows.column(name)
        for code, bucket in enumerate(config.bucket_names):
            inside = codes == code
            pool = Pool(
                id=f"{name}/{bucket}",
                kind=PoolKind.BUCKET,
                column=name,
                code=code,
                size=size,
                hash=pool_hash(rows.row_ids[inside]),
                statistic=name,
                bucket=bucket,
                low=float(values[inside].min()) + 0.0,  # which of -0.0 and 0.0 is least depends
                high=float(values[inside].max()) + 0.0,  # on row order: 0.0 stands for both
                ties=cut.ties[code],
            )
            yield pool, codes
