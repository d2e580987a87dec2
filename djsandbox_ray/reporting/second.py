"""What a second study says of the first: confirmed effects, and verdicts that flip."""

from __future__ import annotations

import math
from collections.abc import Sequence

from djsandbox_ray.records import ConfirmationRow, FlipRow
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.ranking import Unit


def confirmation_section(rows: Sequence[ConfirmationRow], unit: Unit) -> ReportTable:
    """Set the effect that a pool was chosen by beside the shrunken and the confirmed one."""
    header = ["pool", f"first {unit}", f"shrunken {unit}", f"confirmed {unit}", "verdict"]
    body = [
        [
            row.pool,
            _effect(row.first, row.first_low, row.first_high, unit),
            unit.text(row.shrunken),
            _effect(row.confirmed, row.low, row.high, unit),
            row.verdict,
        ]
        for row in rows
    ]
    return ReportTable("Confirmed with fresh seeds and fresh controls", header, body)


def confirmation_notes(rows: Sequence[ConfirmationRow]) -> list[str]:
    """Say how many of the chosen pools are better in the second study too."""
    if not rows:
        return []
    better = sum(row.verdict == "better" for row in rows)
    lines = [f"Confirmed: {better} of {len(rows)} pools that were called better are better again."]
    if worse := [row.pool for row in rows if row.verdict == "worse"]:
        lines.append(f"Contradicted, worse in the second study: {', '.join(worse)}.")
    return lines


def flips_section(rows: Sequence[FlipRow], unit: Unit) -> ReportTable:
    """Set the verdicts at two learning rates side by side; those that differ come first."""
    header = ["pool", f"change {unit}", "verdict", f"second change {unit}", "second verdict", ""]
    body = [
        [
            row.pool,
            unit.text(row.change),
            row.verdict,
            unit.text(row.second_change),
            row.second_verdict,
            "flips" if row.flips else "",
        ]
        for row in sorted(rows, key=lambda row: not row.flips)
    ]
    return ReportTable("At a second learning rate", header, body)


def flips_notes(rows: Sequence[FlipRow]) -> list[str]:
    """Say which verdicts are not the same at a second learning rate."""
    if not rows:
        return []
    changed = [f"{r.pool} ({r.verdict}, then {r.second_verdict})" for r in rows if r.flips]
    if not changed:
        return [f"All {len(rows)} decided verdicts are the same at the second learning rate."]
    return [
        f"{len(changed)} of {len(rows)} decided verdicts flip at the second learning rate: "
        f"{', '.join(changed)}."
    ]


def _effect(value: float, low: float, high: float, unit: Unit) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return unit.text(value)
    return f"{unit.text(value)} [{unit.scaled(low):.2f}, {unit.scaled(high):.2f}]"
