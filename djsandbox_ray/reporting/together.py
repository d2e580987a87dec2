"""What becomes of pools together, and which statistics are alike, as chapters of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from djsandbox_ray.analysis.together.interactions import INTERACTION, strongest
from djsandbox_ray.records import InteractionRow, RankingRow, SurrogateRow
from djsandbox_ray.reporting.blocks import Block, Chapter, Picture, ReportTable
from djsandbox_ray.reporting.figures import bar_chart, png
from djsandbox_ray.reporting.ranking import NOTHING, Unit, page_table

COMBINATIONS = "Combinations of pools, all at one size"
"""The title of their ranking."""


def combinations_section(rows: Sequence[RankingRow], unit: Unit) -> ReportTable:
    """Tabulate the combinations by rank, beside the pools that they are made of."""
    return page_table(COMBINATIONS, sorted(rows, key=lambda row: row.rank), unit)


def combinations_chapter(
    rows: Sequence[RankingRow],
    interactions: Sequence[InteractionRow],
    surrogate: Sequence[SurrogateRow],
    notes: Sequence[str],
    unit: Unit,
) -> Chapter:
    """Return the combinations with their interactions; what there is none of is left out.

    Args:
        rows: the ranking of the combinations, in any order.
        interactions: of the factorial model.
        surrogate: combinations as main and pairwise effects predict them.
        notes: what else the factorial model has to say.
        unit: what effects are measured in.
    """
    found = interactions_notes(interactions, unit)
    blocks: list[Block] = []
    if rows:
        title = "Combinations: change against the controls of their size"
        picture = Picture(title, png(bar_chart(rows, title=title, unit=unit)))
        blocks += [combinations_section(rows, unit), picture]
    if interactions:
        blocks.append(interactions_section(interactions, unit))
    if surrogate:
        blocks.append(surrogate_section(surrogate, unit))
    lines = [*found, *surrogate_notes(surrogate), *notes]
    return Chapter("Combinations", lines, blocks, headline=found[0] if found else "")


def clusters_section(title: str, found: Mapping[str, Any], unit: Unit) -> ReportTable:
    """Tabulate clusters of statistics and the pool that is the best of each.

    Args:
        title: of the table.
        found: what a clustering job has written down.
        unit: what effects are measured in.
    """
    body = [
        [
            item["pool"] or NOTHING,
            NOTHING if item["effect"] is None else unit.text(item["effect"]),
            ", ".join(item["members"]),
            item["why"],
        ]
        for item in found["clusters"]
    ]
    return ReportTable(title, ["best pool", f"effect {unit}", "statistics alike", "why"], body)


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
    """Say which interactions are beyond noise, or that there is none: of two pools, then of more.

    Only two pools are said to help or hurt each other, the strongest first. What more of them do is
    set against what the effects of fewer add up to, which is another question.
    """
    found = [row for row in rows if row.kind == INTERACTION]
    pairs = [row for row in found if row.order == 2]
    return [*_of_pairs(pairs, unit), *_of_more([row for row in found if row.order > 2], unit)]


def beyond(row: InteractionRow) -> str:
    """Say what an interaction is measured against, and over which sets of the other pools."""
    if row.order == 2:
        than = "what they give apart"
    elif row.order == 3:
        than = "what their single and pairwise effects add up to"
    else:
        than = "what the effects of fewer of them add up to"
    return f"beyond {than}{_averaged(row)}"


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


def _of_pairs(pairs: Sequence[InteractionRow], unit: Unit) -> list[str]:
    if not pairs:
        return []
    best = strongest(pairs)
    if best is None:
        top = max(pairs, key=lambda row: abs(row.effect))
        count = "The one that was tested is" if len(pairs) == 1 else f"All {len(pairs)} are"
        return [
            f"No interaction of two pools is beyond noise. {count} undecided; the largest, "
            f"{top.parts}: {_effect(top, unit)}."
        ]
    more, verb = ("more", "help") if best.verdict == "helps" else ("less", "hurt")
    lines = [
        f"The strongest interaction of two pools: {best.parts} {verb} each other. Together they do "
        f"{unit.size(best.effect)} {more} than their effects apart add up to{_averaged(best)} "
        f"({_effect(best, unit)})."
    ]
    others = [row for row in pairs if row.verdict != "undecided" and row != best]
    if others:
        named = "; ".join(f"{row.parts} {_effect(row, unit)}" for row in others)
        lines.append(f"Further interactions of two pools beyond noise: {named}.")
    return lines


def _of_more(rows: Sequence[InteractionRow], unit: Unit) -> list[str]:
    decided = [row for row in rows if row.verdict != "undecided"]
    if rows and not decided:
        return ["No interaction of three or more pools is beyond noise."]
    return [f"Together, {row.parts}: {_effect(row, unit)} {beyond(row)}." for row in decided]


def _averaged(row: InteractionRow) -> str:
    """Say over which sets of the other pools an effect is averaged; nothing without others."""
    if row.all_contexts == 1:
        return ""
    others = "pool" if row.all_contexts == 2 else "pools"
    if row.contexts == row.all_contexts:
        return f", averaged over the other {others} being in or not"
    return (
        f", over {row.contexts} of the {row.all_contexts} ways in which the other {others} can be "
        "in or not"
    )


def _fate(row: SurrogateRow) -> str:
    if not row.held_out:
        return "not trained"
    return "as predicted" if row.low <= row.measured <= row.high else "not as predicted"


def _effect(row: InteractionRow, unit: Unit) -> str:
    return f"{unit.text(row.effect)} {unit} [{unit.between(row.low, row.high)}]"
