"""The extension point: a builder picks rows that no bucket of a statistic stands for."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator, model_validator

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.pools.eligible import RESERVED, Columns, EligibleRows, check_statistics, inside
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import MOST_NAME, Component, Section

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class StatisticRange(Section):
    """Values of a statistic, bounds included; a row without a value is outside."""

    statistic: str
    """Its name, as the console lists it."""
    low: float | None = None
    """Least value; by default there is no bound."""
    high: float | None = None
    """Greatest value; by default there is no bound."""

    @model_validator(mode="after")
    def _ordered(self) -> StatisticRange:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low is {self.low:g}, which is above high, {self.high:g}")
        return self


class BuilderConfig(Component):
    """What every pool builder is told."""

    name: str = Field(pattern=f"^{_NAME}$", max_length=MOST_NAME)
    """Begins the ids of its pools, ``<name>/<part>``."""

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"the names {' and '.join(RESERVED)} stand for other pools")
        return name


class PoolBuilder(ABC):
    """Picks the rows of one or more pools, which are trained and ranked like buckets."""

    Config: ClassVar[type[BuilderConfig]] = BuilderConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, statistics: Iterable[str]) -> None:  # noqa: B027 - optional
        """Raise :class:`BadInput` if this cannot run; called before anything is computed.

        Args:
            statistics: the names of all statistics that there will be.
        """

    @abstractmethod
    def build(self, row_ids: NDArray[np.int64], columns: Columns) -> Mapping[str, ArrayLike]:
        """Return the rows of every pool, by the name of the part that it is.

        A pool may hold more rows than it will keep: all are cut to one size by a seeded hash. What
        is picked should not depend on the order of the rows.

        Args:
            row_ids: (n,), of the rows that may be in a pool, in any order.
            columns: statistics by name, each (n,), NaN for no value; read when asked for.

        Returns:
            Per part, a boolean mask of shape (n,), or row ids, each once.
        """


BUILDERS: Registry[PoolBuilder] = Registry(
    "pool builder",
    PoolBuilder,  # type: ignore[type-abstract]
    {
        "range": "djsandbox_ray.pools.builder:RangePool",
    },
)


def built_masks(
    builder: PoolBuilder, rows: EligibleRows, statistics: Iterable[str]
) -> dict[str, NDArray[np.bool_]]:
    """Return which of the eligible rows a builder picks, shape (len(rows),), by pool id.

    Args:
        builder: of one entry of ``pools.extra``.
        rows: the rows that may be in a pool.
        statistics: the names of their statistics.

    Raises:
        BadInput: the builder raised an error, or gave something else than parts of these rows.
    """
    name = builder.config.name
    row_ids = rows.row_ids.view()
    row_ids.flags.writeable = False
    try:
        parts = builder.build(row_ids, _Columns(rows, statistics))
    except SandboxError as error:
        raise BadInput(f"the pool builder {name!r}: {error}") from error
    except Exception as error:  # a user's code may raise anything
        raise BadInput(f"the pool builder {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(parts, Mapping) or not parts:
        raise BadInput(
            f"the pool builder {name!r}: rows by the name of a part are needed, not {parts!r}"
        )
    masks = {}
    for part, picked in parts.items():
        if not isinstance(part, str) or not re.fullmatch(_NAME, part):
            raise BadInput(
                f"the pool builder {name!r}: a part cannot be named {part!r}: letters, digits and "
                ". _ - are possible"
            )
        masks[f"{name}/{part}"] = _mask(f"{name}/{part}", picked, rows.row_ids)
    return masks


def _mask(pool: str, picked: ArrayLike, row_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Read what stands for the rows of a pool."""
    needed = f"a boolean mask of shape ({len(row_ids)},) or row ids are needed"
    try:
        found = np.asarray(picked)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the pool {pool!r}: {needed}: {error}") from error
    if found.dtype == np.bool_:
        if found.shape != row_ids.shape:
            raise BadInput(f"the pool {pool!r}: {needed}, not a mask of shape {found.shape}")
        return found.copy()
    if found.shape == (0,):  # of an empty list, numpy makes floating-point numbers
        return np.zeros(len(row_ids), dtype=np.bool_)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise BadInput(f"the pool {pool!r}: {needed}, not {found.dtype} of shape {found.shape}")
    different, counts = np.unique(found, return_counts=True)
    if len(different) < len(found):
        twice = different[counts > 1]
        raise BadInput(
            f"the pool {pool!r}: {len(twice)} row ids occur more than once, such as {twice[0]}"
        )
    unknown = np.setdiff1d(different, row_ids)
    if len(unknown):
        raise BadInput(
            f"the pool {pool!r}: {len(unknown)} row ids are not among those that may be in a pool, "
            f"such as {unknown[0]}"
        )
    return np.isin(row_ids, different)


class _Columns(Mapping[str, NDArray[np.float64]]):
    """The statistics of the eligible rows, one read at a time, not to be changed."""

    def __init__(self, rows: EligibleRows, names: Iterable[str]) -> None:
        self._rows = rows
        self._names = tuple(names)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        check_statistics([name], self._names)
        column = self._rows.column(name).view()
        column.flags.writeable = False
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class RangeConfig(BuilderConfig, StatisticRange):
    """Thresholds that somebody has in mind."""

    @model_validator(mode="after")
    def _bounded(self) -> RangeConfig:
        if self.low is None and self.high is None:
            raise ValueError("low or high is needed, or both")
        return self


class RangePool(PoolBuilder):
    """One pool, ``<name>/inside``: the rows whose statistic is within given thresholds."""

    Config = RangeConfig
    config: RangeConfig

    def check(self, statistics: Iterable[str]) -> None:
        """Find a statistic that there will not be."""
        check_statistics([self.config.statistic], statistics)

    def build(self, row_ids: NDArray[np.int64], columns: Columns) -> Mapping[str, ArrayLike]:
        """Compare the statistic with both thresholds; they are inside."""
        values = columns[self.config.statistic]
        return {"inside": inside(values, self.config.low, self.config.high)}
