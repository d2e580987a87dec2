"""The rows of a ranking in sections and in words, the same for terminal, chart and page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from djsandbox_ray.records import PoolKind, RankingRow

HEADER = ("rank", "pool", "change", "interval", "q", "verdict", "seeds")
NOTHING = "-"


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


@dataclass(frozen=True)
class Section:
    """Rows that are shown together."""

    title: str
    rows: tuple[RankingRow, ...]


def sections(rows: Sequence[RankingRow]) -> list[Section]:
    """Return failed self-tests, pools, controls and passed self-tests, each in order of rank."""
    by_rank = sorted(rows, key=lambda row: row.rank)
    failed = [row for row in by_rank if row.self_test_failed]
    rest = [row for row in by_rank if not row.self_test_failed]
    parts = [
        Section("failed self-tests", tuple(failed)),
        *(
            Section(title, tuple(row for row in rest if row.kind is kind))
            for title, kind in (
                ("pools", PoolKind.BUCKET),
                ("controls", PoolKind.CONTROL),
                ("self-tests", PoolKind.SELF_TEST),
            )
        ),
    ]
    return [part for part in parts if part.rows]


def cells(row: RankingRow, unit: Unit) -> tuple[str, ...]:
    """Return the texts of a row under :data:`HEADER`."""
    return (
        str(row.rank),
        row.pool,
        unit.text(row.change),
        interval(row, unit),
        q_value(row.q),
        verdict(row),
        seeds(row),
    )


def header(unit: Unit) -> tuple[str, ...]:
    """Return :data:`HEADER` with the unit of the change."""
    return tuple(f"{name} {unit}" if name == "change" else name for name in HEADER)


def interval(row: RankingRow, unit: Unit) -> str:
    """Return the interval, or a dash where there is none."""
    if not (math.isfinite(row.low) and math.isfinite(row.high)):
        return NOTHING
    return f"{unit.text(row.low)} .. {unit.text(row.high)}"


def q_value(q: float) -> str:
    """Return a q-value with as many digits as mean something."""
    if not math.isfinite(q):
        return NOTHING
    return "<.001" if q < 0.001 else f"{q:.3f}"


def verdict(row: RankingRow) -> str:
    """Return the verdict; for a self-test, also whether it is the expected one."""
    if row.kind is not PoolKind.SELF_TEST:
        return row.verdict
    if row.self_test_failed:
        return f"{row.verdict} (must be {row.expected})"
    return f"{row.verdict} (ok)"


def seeds(row: RankingRow) -> str:
    """Return how many trials of a pool were completed, out of how many if some failed."""
    if not row.failed:
        return str(row.seeds)
    return f"{row.seeds}/{row.seeds + row.failed} ({row.failed} failed)"


def notes(rows: Sequence[RankingRow]) -> list[str]:
    """Return what a reader must know about a ranking, in plain words, the worst first."""
    lines = [
        f"SELF-TEST FAILED: {row.pool} is {row.verdict} but must be {row.expected}; do not trust "
        "this ranking before the reason is found."
        for row in sorted(rows, key=lambda row: row.rank)
        if row.self_test_failed
    ]
    tests = [row for row in rows if row.kind is PoolKind.SELF_TEST]
    if not tests:
        lines.append("This ranking has no self-tests.")
    elif not lines:
        lines.append(f"Self-tests passed: {len(tests)} of {len(tests)}.")
    failed = sum(row.failed for row in rows)
    if failed:
        total = failed + sum(row.seeds for row in rows)
        pools = ", ".join(row.pool for row in rows if row.failed)
        lines.append(f"{failed} of {total} trials failed and are left out: {pools}.")
    counts = Counter(row.verdict for row in rows if row.kind is PoolKind.BUCKET)
    total = counts.total()
    known = ("better", "worse", "undecided", "failed")
    said = ", ".join(f"{counts[name]} {name}" for name in known if counts[name] or name != "failed")
    lines.append(f"Of {total} pools: {said}.")
    return lines
