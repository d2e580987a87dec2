"""Limits that hold whatever helps the score: which of them a set of rows breaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.config import PolicyConfig
from djsandbox_ray.recipes.refiner import known_statistics
from djsandbox_ray.records import Pool, PoolKind


def broken(
    policies: Sequence[PolicyConfig],
    columns: Mapping[str, NDArray[np.float64]],
    kept: NDArray[np.bool_],
) -> list[str]:
    """Return what a set of rows breaks, one sentence per policy; empty if it breaks none.

    A row without a value counts as beyond a limit on single rows, for nobody knows that it is
    within; a mean is that of the rows that have one, and is broken if none has.

    Args:
        policies: the section ``policies``.
        columns: statistics by name, each (rows,), NaN for no value; read one at a time.
        kept: (rows,), the rows in question.

    Raises:
        BadInput: a policy names an unknown statistic; says which and lists the known ones.
    """
    if lines := unknown_statistics(policies, columns):
        raise BadInput("\n".join(lines))
    sentences = (_broken(policy, columns[policy.statistic][kept]) for policy in policies)
    return [sentence for sentence in sentences if sentence]


def marked(
    pools: Iterable[Pool],
    assignments: Mapping[str, NDArray[np.int8]],
    policies: Sequence[PolicyConfig],
    columns: Mapping[str, NDArray[np.float64]],
) -> tuple[Pool, ...]:
    """Return pools, with what each breaks; controls and self-tests are never exported anyway.

    Args:
        pools: in any order.
        assignments: their columns of codes, each (rows,).
        policies: the section ``policies``.
        columns: as in :func:`broken`.

    Raises:
        BadInput: see :func:`broken`.
    """
    return tuple(
        replace(
            pool,
            breaks=tuple(broken(policies, columns, assignments[pool.column] == pool.code)),
        )
        if pool.kind is PoolKind.BUCKET
        else pool
        for pool in pools
    )


def unknown_statistics(policies: Sequence[PolicyConfig], known: Iterable[str]) -> list[str]:
    """Return one line, with its YAML path, per policy on a statistic that there is none of."""
    listed, lines = list(known), []
    for index, policy in enumerate(policies):
        try:
            known_statistics([policy.statistic], listed)
        except BadInput as error:
            lines.append(f"policies[{index}].statistic: {error}")
    return lines


def _broken(policy: PolicyConfig, values: NDArray[np.float64]) -> str | None:
    if not len(values):
        return None
    missing = np.isnan(values)
    if policy.mean_at_most is not None or policy.mean_at_least is not None:
        return _broken_mean(policy, values[~missing])
    beyond, limits = missing, []
    if policy.above is not None:
        beyond, limits = beyond | (values > policy.above), [f"above {policy.above:g}"]
    if policy.below is not None:
        beyond, limits = beyond | (values < policy.below), [*limits, f"below {policy.below:g}"]
    share = float(beyond.mean())
    if share <= policy.share:
        return None
    unknown = f" ({int(missing.sum())} of them without a value)" if missing.any() else ""
    return (
        f"{policy.statistic}: {int(beyond.sum())} of {len(values)} rows ({share:.2%}) are "
        f"{' or '.join(limits)}{unknown}; {policy.share:.2%} are allowed"
    )


def _broken_mean(policy: PolicyConfig, values: NDArray[np.float64]) -> str | None:
    most, least = policy.mean_at_most, policy.mean_at_least
    allowed = f"at most {most:g}" if most is not None else f"at least {least:g}"
    if not len(values):
        return f"{policy.statistic}: no row has a value; the mean must be {allowed}"
    mean = float(values.mean())
    if (most is None or mean <= most) and (least is None or mean >= least):
        return None
    return f"{policy.statistic}: the mean of {len(values)} rows is {mean:g}; it must be {allowed}"
