"""The section ``policies``: limits that hold whatever helps the score, and what breaks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.records import Pool, PoolKind
from djsandbox_ray.settings.sections import Section

_LIMITS = ("above", "below", "mean_at_most", "mean_at_least")


class PolicyConfig(Section):
    """A limit that a statistic of the kept rows must stay within; exactly one limit per entry.

    ``{statistic: image_nsfw_score, above: 0.5, share: 0.01}``: at most 1 % of them above 0.5.
    """

    statistic: str = Field(min_length=1)
    """Its name, as in ``pools.json``."""
    above: float | None = None
    """At most ``share`` of the rows may have a value above this, or none at all."""
    below: float | None = None
    """At most ``share`` of the rows may have a value below this, or none at all."""
    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows that may lie beyond ``above`` or ``below``."""
    mean_at_most: float | None = None
    """The mean of the rows may not be greater."""
    mean_at_least: float | None = None
    """The mean of the rows may not be less."""

    @model_validator(mode="after")
    def _one_limit(self) -> PolicyConfig:
        given = [name for name in _LIMITS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(_LIMITS)} is needed, not {len(given)}")
        if self.share and given[0] not in ("above", "below"):
            raise ValueError("share goes with above or below only")
        return self


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


def beyond(
    policies: Sequence[PolicyConfig], columns: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.bool_] | None:
    """Return which rows lie beyond a limit that a policy sets on single rows, (rows,).

    A row without a value counts as beyond it, as in :func:`broken`. None where no policy sets such
    a limit: a mean is nobody's fault.

    Args:
        policies: the section ``policies``.
        columns: as in :func:`broken`.

    Raises:
        BadInput: see :func:`broken`.
    """
    if lines := unknown_statistics(policies, columns):
        raise BadInput("\n".join(lines))
    found: NDArray[np.bool_] | None = None
    for policy in policies:
        if policy.above is not None or policy.below is not None:
            own = _beyond(policy, columns[policy.statistic])
            found = own if found is None else found | own
    return found


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
    if not policies:
        return tuple(pools)  # whatever their codes are, which may have to be read
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
    known = list(known)
    return [
        f"policies[{index}].statistic: {unknown('statistic', policy.statistic, known)}"
        for index, policy in enumerate(policies)
        if policy.statistic not in known
    ]


def _broken(policy: PolicyConfig, values: NDArray[np.float64]) -> str | None:
    if not len(values):
        return None
    missing = np.isnan(values)
    if policy.mean_at_most is not None or policy.mean_at_least is not None:
        return _broken_mean(policy, values[~missing])
    limits = [f"above {policy.above:g}"] if policy.above is not None else []
    limits += [f"below {policy.below:g}"] if policy.below is not None else []
    outside = _beyond(policy, values)
    share = float(outside.mean())
    if share <= policy.share:
        return None
    unknown = f" ({int(missing.sum())} of them without a value)" if missing.any() else ""
    return (
        f"{policy.statistic}: {int(outside.sum())} of {len(values)} rows ({share:.2%}) are "
        f"{' or '.join(limits)}{unknown}; {policy.share:.2%} are allowed"
    )


def _beyond(policy: PolicyConfig, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which values lie beyond a limit on single rows, or are none."""
    found = np.isnan(values)
    if policy.above is not None:
        found |= values > policy.above
    if policy.below is not None:
        found |= values < policy.below
    return found


def _broken_mean(policy: PolicyConfig, values: NDArray[np.float64]) -> str | None:
    most, least = policy.mean_at_most, policy.mean_at_least
    allowed = f"at most {most:g}" if most is not None else f"at least {least:g}"
    if not len(values):
        return f"{policy.statistic}: no row has a value; the mean must be {allowed}"
    mean = float(values.mean())
    if (most is None or mean <= most) and (least is None or mean >= least):
        return None
    return f"{policy.statistic}: the mean of {len(values)} rows is {mean:g}; it must be {allowed}"
