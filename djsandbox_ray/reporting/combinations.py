"""What becomes of pools together, and which statistics are alike, as chapters of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from djsandbox_ray.records import InteractionRow, RankingRow, SurrogateRow
from djsandbox_ray.reporting.blocks import Block, Chapter, Picture, ReportTable
from djsandbox_ray.reporting.figures import bar_chart
from djsandbox_ray.reporting.interactions import (
    interactions_notes,
    interactions_section,
    surrogate_notes,
    surrogate_section,
)
from djsandbox_ray.reporting.ranking import NOTHING, PAGE_COLUMNS, Unit

COMBINATIONS = "Combinations of pools, all at one size"
"""The title of their ranking."""


def combinations_section(rows: Sequence[RankingRow], unit: Unit) -> ReportTable:
    """Tabulate the combinations by rank, beside the pools that they are made of."""
    body = [
        [column.text(row, unit) for column in PAGE_COLUMNS]
        for row in sorted(rows, key=lambda row: row.rank)
    ]
    header = [column.title(unit) for column in PAGE_COLUMNS]
    return ReportTable(COMBINATIONS, header, body)


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
        picture = Picture(title, bar_chart(rows, title=title, unit=unit))
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
