"""What followed the ranking, read from the storage and put into the chapters of the page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.records import (
    Acceptance,
    Choice,
    Diversity,
    DiversityRow,
    Evolution,
    EvolutionMetric,
    EvolutionRow,
    Insights,
    InteractionRow,
    Interactions,
    Ranking,
    RankingRow,
    Recipe,
    Repetition,
    RepetitionRow,
    Scaling,
    ScalingRow,
    SurrogateRow,
)
from djsandbox_ray.reporting.blocks import Block, Chapter, Picture
from djsandbox_ray.reporting.evolution import evolution_chapter
from djsandbox_ray.reporting.insights import insights_chapter
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.recipe import recipe_chapter
from djsandbox_ray.reporting.scale import diversity_chapter, repetition_chapter, scaling_chapter
from djsandbox_ray.reporting.together import clusters_section, combinations_chapter
from djsandbox_ray.storage.store import Storage

Row = TypeVar("Row")

_CLUSTERINGS = {
    "statistic_clusters": "Clusters of statistics that tell the same about a sample",
    "metric_clusters": "Clusters of statistics that move the same metrics",
}


@dataclass(frozen=True)
class Later:
    """What a workflow found out after the ranking of single operators, as far as it did."""

    combination_ranking: Ranking | None = None
    interactions: Interactions | None = None
    statistic_clusters: Choice | None = None
    metric_clusters: Choice | None = None
    repetition: Repetition | None = None
    scaling: Scaling | None = None
    diversity: Diversity | None = None
    recipe: Recipe | None = None
    acceptance: Acceptance | None = None
    insights: Insights | None = None
    evolution: Evolution | None = None

    @property
    def ids(self) -> list[str]:
        """Of all that there is, in order."""
        return [record.id for record in vars(self).values() if record is not None]


class Chapters:
    """Makes the chapters of a page.

    Args:
        storage: of the run.
        unit: what effects are measured in.
    """

    def __init__(self, storage: Storage, unit: Unit) -> None:
        self._storage = storage
        self._unit = unit

    def of(self, later: Later) -> list[Chapter]:
        """Return a chapter for everything that there is, what is for use first.

        Raises:
            BadInput: a table is not what its record says.
        """
        return list(self._chapters(later))

    def _chapters(self, later: Later) -> Iterator[Chapter]:
        storage, unit = self._storage, self._unit
        if recipe := later.recipe:
            text = self._text(recipe.path) if recipe.path else ""
            evidence = storage.read_sealed(recipe.evidence)
            yield recipe_chapter(recipe, text, evidence, later.acceptance, unit)
        if later.insights:
            yield insights_chapter(self._text(later.insights.path))
        if later.combination_ranking or later.interactions:
            yield self._combinations(later.combination_ranking, later.interactions)
        if blocks := [*self._clusterings(later)]:
            yield Chapter("Statistics that are alike", [], blocks)
        if found := later.repetition:
            rows = self._rows(RepetitionRow, found.path)
            yield repetition_chapter(rows, *self._law(found), unit)
        if scaled := later.scaling:
            yield scaling_chapter(self._rows(ScalingRow, scaled.path), *self._law(scaled))
        if chain := later.evolution:
            stages = self._rows(EvolutionRow, chain.path)
            yield evolution_chapter(stages, self._rows(EvolutionMetric, chain.metrics))
        if later.diversity:
            yield diversity_chapter(self._rows(DiversityRow, later.diversity.path), unit)

    def _combinations(self, ranking: Ranking | None, interactions: Interactions | None) -> Chapter:
        return combinations_chapter(
            self._storage.read_rows(RankingRow, ranking.path) if ranking else [],
            self._rows(InteractionRow, interactions.path) if interactions else [],
            self._rows(SurrogateRow, interactions.surrogate) if interactions else [],
            interactions.notes if interactions else (),
            self._unit,
        )

    def _clusterings(self, later: Later) -> Iterator[Block]:
        """Yield a table and a heat map of each way to cluster."""
        for name, title in _CLUSTERINGS.items():
            choice: Choice | None = getattr(later, name)
            if choice is None:
                continue
            found = self._storage.read_sealed(choice.path)
            if "clusters" in found:  # another way of choosing makes none
                yield clusters_section(title, found, self._unit)
            if choice.figure is not None:
                yield Picture(title, self._storage.read_bytes(choice.figure))

    def _law(self, found: Repetition | Scaling) -> tuple[list[str], bytes]:
        """Return what a study says of its own, and its figure."""
        said = self._storage.read_sealed(found.law).get("sentences", [])
        return said, self._storage.read_bytes(found.figure)

    def _rows(self, kind: type[Row], path: str) -> list[Row]:
        return self._storage.read_rows(kind, path)

    def _text(self, path: str) -> str:
        return self._storage.read_bytes(path).decode()


def label_shares(
    labels: Iterable[list[str]], membership: Iterable[NDArray[np.bool_]]
) -> tuple[list[str], NDArray[np.float64]]:
    """Return what share of every pool has which label.

    Args:
        labels: the label of every row, in chunks.
        membership: per chunk, which rows are in which pool; shape (pools, rows of the chunk).

    Returns:
        The different labels, the most frequent first, and the shares, shape (pools, labels).
    """
    counts: Counter[str] = Counter()
    in_pools: list[Counter[str]] = []
    for chunk, mask in zip(labels, membership, strict=True):
        in_pools = in_pools or [Counter() for _ in mask]
        values = np.array(chunk, dtype=object)
        counts.update(chunk)
        for counter, members in zip(in_pools, mask, strict=True):
            counter.update(values[members])
    names = [name for name, _ in counts.most_common()]
    table = np.array([[counter[name] for name in names] for counter in in_pools], dtype=np.float64)
    totals = table.sum(axis=1, keepdims=True)
    return names, np.divide(table, totals, out=np.zeros_like(table), where=totals > 0)


def read_labels(meta: Iterable[list[str]], key: str) -> Iterator[list[str]]:
    """Yield the label under ``key`` of every row from chunks of metadata in JSON."""
    for chunk in meta:
        yield [str(json.loads(text).get(key, "(none)")) for text in chunk]
