"""Which pools help or hurt each other, and how well a simple model foresees it."""

from __future__ import annotations

from collections.abc import Sequence

from djsandbox_ray.analysis.interactions import INTERACTION, strongest
from djsandbox_ray.records import InteractionRow, SurrogateRow
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.ranking import Unit


def interactions_section(rows: Sequence[InteractionRow], unit: Unit) -> ReportTable:
    """Tabulate main effects, interactions and Shapley values with their intervals."""
    header = ["quantity", "pools", f"effect {unit}", "interval", "verdict"]
    body = [
        [
            row.kind,
            row.parts,
            unit.text(row.effect),
            unit.between(row.low, row.high),
            row.verdict,
        ]
        for row in rows
    ]
    return ReportTable("What combined pools do together and apart", header, body)


def surrogate_section(rows: Sequence[SurrogateRow], unit: Unit) -> ReportTable:
    """Set what main and pairwise effects predict beside what was measured."""
    header = ["pool", f"predicted {unit}", "interval", f"measured {unit}", ""]
    body = [
        [
            row.pool,
            unit.text(row.predicted),
            unit.between(row.low, row.high),
            unit.text(row.measured),
            _fate(row),
        ]
        for row in rows
    ]
    return ReportTable("Combinations predicted from main and pairwise effects", header, body)


def interactions_notes(rows: Sequence[InteractionRow], unit: Unit) -> list[str]:
    """Say which interactions are beyond noise, the strongest first, or that there is none."""
    found = [row for row in rows if row.kind == INTERACTION]
    if not found:
        return []
    best = strongest(found)
    if best is None:
        top = max(found, key=lambda row: abs(row.effect))
        count = "The one interaction is" if len(found) == 1 else f"All {len(found)} are"
        return [
            f"No interaction is beyond noise. {count} undecided; the largest, {top.parts}: "
            f"{_effect(top, unit)}."
        ]
    more, verb = ("more", "help") if best.verdict == "helps" else ("less", "hurt")
    lines = [
        f"The strongest interaction: {best.parts} {verb} each other. Together they do "
        f"{unit.size(best.effect)} {more} than their effects apart add up to "
        f"({_effect(best, unit)})."
    ]
    others = [row for row in found if row.verdict != "undecided" and row != best]
    if others:
        named = "; ".join(f"{row.parts} {_effect(row, unit)}" for row in others)
        lines.append(f"Further interactions beyond noise: {named}.")
    return lines


def surrogate_notes(rows: Sequence[SurrogateRow]) -> list[str]:
    """Say how many of the held-out combinations came out as predicted."""
    held_out = [row for row in rows if row.held_out]
    if not held_out:
        return []
    missed = [row.pool for row in held_out if not row.low <= row.measured <= row.high]
    lines = [
        f"Main and pairwise effects foresee {len(held_out) - len(missed)} of {len(held_out)} "
        "held-out combinations of three and more pools."
    ]
    if missed:
        lines.append(f"Not as predicted: {', '.join(missed)}.")
    return lines


def _fate(row: SurrogateRow) -> str:
    if not row.held_out:
        return "not trained"
    return "as predicted" if row.low <= row.measured <= row.high else "not as predicted"


def _effect(row: InteractionRow, unit: Unit) -> str:
    return f"{unit.text(row.effect)} {unit} [{unit.between(row.low, row.high)}]"
