"""What speaks for a recipe, and what against it: the JSON beside the YAML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.pools.eligible import inside
from djsandbox_ray.records import ConfirmationRow, Pool, Range, RankingRow
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.operators import OperatorSpec, statistic_names


@dataclass(frozen=True)
class PoolFindings:
    """What a run has found out about the pool behind a recipe."""

    pool: Pool | None = None
    """None where nothing was trained, or by a search."""
    first: RankingRow | None = None
    """Its row in the single-operator stage."""
    confirmed: ConfirmationRow | None = None
    combined: RankingRow | None = None
    """Its row among the combinations."""
    combinations: int = 0
    """Combinations that were compared."""
    searched: bool = False
    """Whether the pool is the best of a search."""

    @property
    def effect(self) -> float:
        """The change that stands behind a recipe: the confirmed one where there is one.

        Else that of the study of combinations, else the first; NaN without any.
        """
        changes = [
            self.confirmed.confirmed if self.confirmed else math.nan,
            self.combined.change if self.combined else math.nan,
            self.first.change if self.first else math.nan,
        ]
        return next((change for change in changes if math.isfinite(change)), math.nan)

    def to_json(self) -> dict[str, Any]:
        """Return the effects with their intervals as plain data; None for what was not measured."""
        first, again, combined = self.first, self.confirmed, self.combined
        return {
            "first": first and _effect(first, first.change) | {"shrunken": _number(first.shrunken)},
            "confirmed": again and _effect(again, again.confirmed),
            "combination": combined
            and _effect(combined, combined.change) | {"shrunken": _number(combined.shrunken)},
        }


@dataclass(frozen=True)
class Retained:
    """What one range keeps, by itself."""

    range: Range
    """As the operators apply it."""
    rows: int
    at_bounds: int
    """Of these, rows whose value is a bound."""


@dataclass(frozen=True)
class Retention:
    """What a recipe keeps of a dataset, by the statistics table."""

    rows: int
    dataset_rows: int
    ranges: tuple[Retained, ...]

    @property
    def share(self) -> float:
        """Share of the rows that are kept."""
        return self.rows / self.dataset_rows

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "rows": self.rows,
            "share": self.share,
            "ranges": [
                {**asdict(item.range), "rows": item.rows, "at_bounds": item.at_bounds}
                for item in self.ranges
            ],
        }


def retention(
    columns: Mapping[str, NDArray[np.float64]], ranges: Sequence[Range], mask: NDArray[np.bool_]
) -> Retention:
    """Count what a recipe keeps, reading one column at a time.

    Args:
        columns: statistics by name, each (rows,).
        ranges: as the operators apply them.
        mask: (rows,), the rows within all of them.
    """
    retained = []
    for r in ranges:
        values = columns[r.statistic]
        at_bounds = sum(int(np.sum(values == bound)) for bound in {r.low, r.high} - {None})
        retained.append(Retained(r, int(inside(values, r.low, r.high).sum()), at_bounds))
    return Retention(int(mask.sum()), len(mask), tuple(retained))


def about_several(operators: Sequence[OperatorSpec], statistics: Iterable[str]) -> list[str]:
    """Say where Data-Juicer decides otherwise on samples of several media, or of none.

    Args:
        operators: of the run.
        statistics: of which a range may be kept.
    """
    wanted = set(statistics)
    found = []
    for spec, names in zip(operators, statistic_names(operators), strict=True):
        kinds = inspection.compared_each(spec.filter_class)
        if kinds and spec.images is None and wanted.intersection(names):
            found.append(
                f"{spec.name} holds every {' or '.join(sorted(kinds))} of a sample against the "
                f"thresholds and keeps it if {spec.values['any_or_all']} of them pass, or if there "
                "is none; the statistic is their mean, and a sample without has no value: on such "
                "samples Data-Juicer keeps other rows than the statistics promise."
            )
    return found


def about_second(operators: Sequence[OperatorSpec], statistics: Iterable[str]) -> list[str]:
    """Say where Data-Juicer decides otherwise on samples without a second text; see above."""
    wanted = set(statistics)
    return [
        f"{spec.name} keeps a sample that has no text in {spec.second}, where the statistic has no "
        "value: of such samples Data-Juicer keeps other rows than the statistics promise."
        for spec, names in zip(operators, statistic_names(operators), strict=True)
        if spec.second is not None and wanted.intersection(names)
    ]


def caveats(
    findings: PoolFindings,
    *,
    parts: Sequence[Pool],
    wanted: Sequence[Range],
    retention: Retention,
) -> list[str]:
    """Return what a reader must know before trusting the recipe, in plain sentences.

    Args:
        findings: of the pool behind it.
        parts: the pools of the single-operator stage that it is made of.
        wanted: the ranges of the thresholds.
        retention: what the recipe keeps.
    """
    found = [*_about_effect(findings)]
    pool = findings.pool
    if pool is not None and retention.rows != pool.size:
        found.append(
            f"The recipe keeps {retention.rows} rows, the pool that was trained had {pool.size}: "
            "pools are trimmed to one size, and a range may span neighbouring buckets. The effect "
            "of the recipe itself was not measured."
        )
    at_bounds = {item.range.statistic: item.at_bounds for item in retention.ranges}
    for part in parts:
        if part.ties:
            found.append(
                f"Rows of one value of {part.statistic} are kept or dropped together "
                f"({at_bounds.get(str(part.statistic), 0)} lie exactly on a bound and are kept); "
                f"the pools split {part.ties} rows of one value by a hash."
            )
    given = {r.statistic: r for r in wanted}
    ranges = [item.range for item in retention.ranges]
    for r in ranges:
        if (r.low, r.high) != (given[r.statistic].low, given[r.statistic].high):
            found.append(
                f"Data-Juicer's thresholds cannot express {given[r.statistic].text}: "
                f"{r.text} is applied."
            )
    opened = [r.statistic for r in ranges if r.low is None or r.high is None]
    if opened:
        found.append(
            f"The ranges of {', '.join(opened)} are open to one side at least: on other data they "
            "keep values that this dataset did not have, of which nothing is known."
        )
    return found


def _about_effect(findings: PoolFindings) -> list[str]:
    first, again, combined = findings.first, findings.confirmed, findings.combined
    if findings.searched:
        if again is None:
            return ["The best of a search, by its own score, which is too good on average."]
    elif findings.pool is None:
        return ["No model was trained on what this recipe keeps: its effect is not known."]
    found = []
    if combined is not None and again is None:
        found.append(
            f"The pool is the choice among {findings.combinations} combinations by the study that "
            "measured them: its effect is too good on average, and was not confirmed."
        )
    elif again is None and not findings.searched:
        found.append(
            "The effect was not confirmed with fresh seeds: the pool was chosen by it, so it is "
            "too good on average; the shrunken one is the better guess."
        )
    if again is not None and again.verdict != "better":
        found.append(f"The confirmation called the pool {again.verdict}, not better.")
    for row in (first, combined):
        if row is not None and row.carried_by:
            found.append(
                f"The verdict on {row.pool} rests on one metric, {row.carried_by}: without it, it "
                "would be another."
            )
    return found


def _effect(row: Any, change: float) -> dict[str, Any]:
    low, high = _number(row.low), _number(row.high)
    return {
        "change": _number(change),
        "interval": [low, high],
        "verdict": row.verdict,
        "seeds": row.seeds,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
