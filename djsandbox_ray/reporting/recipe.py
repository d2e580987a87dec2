"""The recipe, what speaks for it and what against it, as a chapter of the page and in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from djsandbox_ray.records import Acceptance, Recipe
from djsandbox_ray.reporting.blocks import Block, Chapter, Listing, ReportTable, Sentences
from djsandbox_ray.reporting.ranking import NOTHING, Unit

_STUDIES = {
    "first": "single operators",
    "confirmed": "confirmation, with fresh seeds",
    "combination": "combinations",
}


def recipe_line(recipe: Recipe, acceptance: Acceptance | None, unit: Unit) -> str:
    """Say what a recipe keeps, what it is expected to do, and whether Data-Juicer agrees."""
    effect = "its effect was not measured"
    if math.isfinite(recipe.effect):
        looked = "confirmed" if recipe.confirmed else "not confirmed by a second look"
        size = f"{unit.text(recipe.effect)} {unit}"
        effect = f"the effect of the pool behind it, {looked}: {size}"
    outcome = _outcome(recipe, acceptance)
    return f"The recipe keeps {100 * recipe.retention:.1f} % of the rows; {effect}; {outcome}."


def recipe_chapter(
    recipe: Recipe,
    text: str,
    evidence: Mapping[str, Any],
    acceptance: Acceptance | None,
    unit: Unit,
) -> Chapter:
    """Return the recipe and its evidence.

    Args:
        recipe: the record.
        text: the YAML; empty for a recipe that was not exported.
        evidence: the JSON beside it.
        acceptance: of Data-Juicer; None where it was not asked.
        unit: what effects are measured in.
    """
    headline = recipe_line(recipe, acceptance, unit)
    kept, rows = evidence["retention"]["rows"], evidence["dataset"]["rows"]
    lines = [
        headline,
        f"By the statistics it keeps {kept:,} of {rows:,} rows of {evidence['dataset']['id']}; "
        f"proposed by {evidence['thresholds']['source']}.",
        *(f"It breaks a policy: {policy}." for policy in recipe.broken_policies),
    ]
    blocks: list[Block] = [_ranges(evidence["retention"]["ranges"])]
    if effects := _effects(evidence["effect"], unit):
        pool = evidence["pool"]["id"] if evidence["pool"] else "a search"
        header = ["study", f"change {unit}", "interval", "verdict", "seeds"]
        blocks.append(ReportTable(f"Measured on {pool}", header, effects))
    if text:
        blocks.append(Listing(f"The file {recipe.path}", text))
    if evidence["caveats"]:
        blocks.append(Sentences("Caveats", evidence["caveats"]))
    return Chapter("Recipe", lines, blocks, headline=headline)


def _outcome(recipe: Recipe, acceptance: Acceptance | None) -> str:
    if recipe.broken_policies:
        return "not exported, because it breaks a policy"
    if acceptance is None:
        return "not yet accepted: Data-Juicer was not asked to run it"
    if acceptance.differing:
        return f"NOT accepted: Data-Juicer decides otherwise on {acceptance.differing:,} rows"
    if acceptance.several:
        return (
            f"accepted: Data-Juicer keeps {acceptance.kept:,} of {acceptance.rows:,} rows that it "
            f"was tried on, the same ones but for {acceptance.several:,} of which their values say "
            "so: it compares each of several images or videos, and keeps a row without"
        )
    return (
        f"accepted: Data-Juicer keeps the same {acceptance.kept:,} of {acceptance.rows:,} rows "
        "that it was tried on"
    )


def _ranges(ranges: list[dict[str, Any]]) -> ReportTable:
    body = [
        [item["statistic"], _bound(item["low"]), _bound(item["high"]), f"{item['rows']:,}"]
        for item in ranges
    ]
    header = ["statistic", "from", "to", "rows kept by this alone"]
    return ReportTable("What is kept, bounds included", header, body)


def _effects(effect: Mapping[str, Any], unit: Unit) -> list[list[str]]:
    """Return a row for every study that measured the pool behind a recipe."""
    found = {said: effect[key] for key, said in _STUDIES.items() if effect[key]}
    return [
        [
            said,
            unit.text(_float(row["change"])),
            unit.between(*map(_float, row["interval"])),
            row["verdict"],
            str(row["seeds"]),
        ]
        for said, row in found.items()
    ]


def _bound(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.6g}"


def _float(value: float | None) -> float:
    return math.nan if value is None else value
