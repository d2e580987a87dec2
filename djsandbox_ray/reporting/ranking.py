"""The rows of a ranking in sections and in words, the same for terminal, chart and page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from djsandbox_ray.records import PoolKind, RankingRow
from djsandbox_ray.reporting.blocks import ReportTable

NOTHING = "-"
_NAMED = 5
"""Trials that collapsed of which a sentence tells."""


class Unit(StrEnum):
    """What a change is measured in."""

    PERCENT = "%"
    """Relative to the controls; a change of 0.05 is +5 %."""
    SD = "sd"
    """Standard deviations of the controls, as the aggregate ``standardized`` gives."""

    @classmethod
    def of(cls, aggregate: str) -> Unit:
        """Return the unit of the changes that an aggregate gives."""
        return cls.SD if aggregate == "standardized" else cls.PERCENT

    def scaled(self, change: float) -> float:
        """Return a change as the number that is shown."""
        return 100 * change if self is Unit.PERCENT else change

    def text(self, change: float) -> str:
        """Return the number that is shown as text with its sign, without the unit."""
        return f"{self.scaled(change):+.2f}" if math.isfinite(change) else NOTHING

    def between(self, low: float, high: float) -> str:
        """Return an interval as text, or a dash where there is none."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return NOTHING
        return f"{self.text(low)} .. {self.text(high)}"

    def size(self, change: float) -> str:
        """Return how large a change is, without a sign and with the unit."""
        return f"{self.scaled(abs(change)):.2f} {self}"


@dataclass(frozen=True)
class RankingSection:
    """Rows that are shown together."""

    title: str
    rows: tuple[RankingRow, ...]


GIVEN_UP = "given up early"
"""The section of the pools that were stopped."""


def sections(rows: Sequence[RankingRow]) -> list[RankingSection]:
    """Return the rows in sections, each in order of rank.

    Failed self-tests come first, then pools, those that were given up early, controls and passed
    self-tests.
    """
    titles = ("failed self-tests", "pools", GIVEN_UP, "controls", "self-tests")
    parts: dict[str, list[RankingRow]] = {title: [] for title in titles}
    for row in sorted(rows, key=lambda row: row.rank):
        if row.self_test_failed:
            parts["failed self-tests"].append(row)
        elif row.kind is PoolKind.BUCKET:
            parts["pools" if row.stopped_at is None else GIVEN_UP].append(row)
        else:
            parts["controls" if row.kind is PoolKind.CONTROL else "self-tests"].append(row)
    return [RankingSection(title, tuple(found)) for title, found in parts.items() if found]


@dataclass(frozen=True)
class RankingColumn:
    """A column of a ranking."""

    name: str
    text: Callable[[RankingRow, Unit], str]
    number: bool = True
    """Whether it is set flush right."""
    has_unit: bool = False

    def title(self, unit: Unit) -> str:
        """Return the name, with the unit where the numbers have one."""
        return f"{self.name} {unit}" if self.has_unit else self.name


def interval(row: RankingRow, unit: Unit) -> str:
    """Return the interval, or a dash where there is none."""
    return unit.between(row.low, row.high)


def q_value(q: float) -> str:
    """Return a q-value with as many digits as mean something."""
    if not math.isfinite(q):
        return NOTHING
    return "<.001" if q < 0.001 else f"{q:.3f}"


def verdict(row: RankingRow) -> str:
    """Return the verdict; for a self-test, also whether it is the expected one."""
    if row.stopped_at is not None:
        return f"{row.verdict} at {row.stopped_at:,}"
    if row.kind is not PoolKind.SELF_TEST:
        return row.verdict
    if row.self_test_failed:
        return f"{row.verdict} (must be {row.expected})"
    return f"{row.verdict} (ok)"


def seeds(row: RankingRow) -> str:
    """Return how many trials of a pool were completed, out of how many if some failed."""
    if row.stopped_at is not None:
        return NOTHING
    if not row.failed:
        return str(row.seeds)
    return f"{row.seeds}/{row.seeds + row.failed} ({row.failed} failed)"


_FIRST = (
    RankingColumn("rank", lambda row, unit: str(row.rank)),
    RankingColumn("pool", lambda row, unit: row.pool, number=False),
    RankingColumn("change", lambda row, unit: unit.text(row.change), has_unit=True),
    RankingColumn("interval", interval),
)
_LAST = (
    RankingColumn("q", lambda row, unit: q_value(row.q)),
    RankingColumn("verdict", lambda row, unit: verdict(row), number=False),
    RankingColumn("seeds", lambda row, unit: seeds(row), number=False),
)
_SHRUNKEN = RankingColumn("shrunken", lambda row, unit: unit.text(row.shrunken), has_unit=True)

COLUMNS = (*_FIRST, *_LAST)
"""What the terminal shows."""
_PAGE_COLUMNS = (*_FIRST, _SHRUNKEN, *_LAST)
"""What the page shows, which has more room."""


def page_table(title: str, rows: Sequence[RankingRow], unit: Unit) -> ReportTable:
    """Tabulate rows of a ranking for the page, in the order given."""
    return ReportTable(
        title,
        [column.title(unit) for column in _PAGE_COLUMNS],
        [[column.text(row, unit) for column in _PAGE_COLUMNS] for row in rows],
        numbers=[place for place, column in enumerate(_PAGE_COLUMNS) if column.number],
    )


def notes(rows: Sequence[RankingRow]) -> list[str]:
    """Return what a reader must know about a ranking, in plain words, the worst first."""
    by_rank = sorted(rows, key=lambda row: row.rank)
    lines = [
        f"SELF-TEST FAILED: {row.pool} is {row.verdict} but must be {row.expected}; do not trust "
        "this ranking before the reason is found."
        for row in by_rank
        if row.self_test_failed
    ]
    tests = [row for row in rows if row.kind is PoolKind.SELF_TEST]
    if not tests:
        lines.append("This ranking has no self-tests.")
    elif not lines:
        lines.append(f"Self-tests passed: {len(tests)} of {len(tests)}.")
    if failed := [row for row in by_rank if row.failed]:
        count = sum(row.failed for row in failed)
        names = ", ".join(row.pool for row in failed)
        fate = "trial failed and is" if count == 1 else "trials failed and are"
        lines.append(f"{count} {fate} left out: {names}.")
    lines.append(tally(rows))
    carried = [row for row in by_rank if row.carried_by and row.kind is PoolKind.BUCKET]
    if carried:
        names = ", ".join(f"{row.pool} ({row.verdict}: {row.carried_by})" for row in carried)
        lines.append(f"Carried by one metric, without which the verdict would not stand: {names}.")
    return [*lines, *_collapses(by_rank)]


def _collapses(rows: Sequence[RankingRow]) -> list[str]:
    """Name the trials that collapsed, and the verdicts that are others without them."""
    named = [f"{row.pool} ({row.collapsed})" for row in rows if row.collapsed]
    if not named:
        return []
    others = [
        f"{row.pool} ({row.verdict}, without them {row.without_collapsed})"
        for row in rows
        if row.without_collapsed not in (None, row.verdict)
    ]
    shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" * (len(named) > _NAMED))
    if others:
        changes = f"other verdicts without them: {', '.join(others)}"
    elif any(row.without_collapsed for row in rows):
        changes = "no verdict changes"
    else:
        changes = "without them too few controls are left to judge by"
    return [f"Trials that collapsed, far below the rest of their arm: {shown}; {changes}."]


def tally(rows: Sequence[RankingRow]) -> str:
    """Say how many pools got which verdict."""
    counts = Counter(row.verdict for row in rows if row.kind is PoolKind.BUCKET)
    words = {"stopped": GIVEN_UP}
    said = [f"{counts[name]} {name}" for name in ("better", "worse", "undecided")]
    said += [
        f"{counts[name]} {words.get(name, name)}" for name in ("stopped", "failed") if counts[name]
    ]
    return f"Of {counts.total()} pools: {', '.join(said)}."
