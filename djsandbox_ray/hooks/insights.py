"""Says in sentences what the run observed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from djsandbox_ray.analysis.together.correlation import CoMoments
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Dataset,
    Diversity,
    DiversityRow,
    Insights,
    InteractionRow,
    Interactions,
    Pools,
    Ranking,
    RankingRow,
    Repetition,
    RepetitionRow,
    Scaling,
    Statistics,
    SurrogateRow,
)
from djsandbox_ray.reporting.insights import Observations, insights_markdown
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.stats.catalogue import catalogue
from djsandbox_ray.stats.parts import StatisticColumns

_CHUNK_ROWS = 65536


class WriteInsights(Hook):
    """Writes ``insights.md``."""

    VERSION = 2
    SECTIONS = ("evaluation",)

    def identity(self) -> Any:
        """Name of the run and unit of its effects, and what earlier jobs could not do."""
        return [self.config.name, self.config.evaluation.kind, *self.context.caveats]

    def run(
        self,
        dataset: Dataset,
        statistics: Statistics,
        pools: Pools,
        ranking: Ranking,
        confirmation: Confirmation | None = None,
        combination_ranking: Ranking | None = None,
        interactions: Interactions | None = None,
        repetition: Repetition | None = None,
        scaling: Scaling | None = None,
        diversity: Diversity | None = None,
    ) -> Insights:
        """Gather the tables that there are, and put them into words."""
        storage = self.storage
        told = storage.read_sealed(repetition.law) if repetition else {}
        scaled = storage.read_sealed(scaling.law) if scaling else {}
        found = Observations(
            unit=Unit.of(self.config.evaluation.kind),
            ranking=self.rows(RankingRow, ranking),
            modality=_modalities(statistics),
            not_testable=pools.not_testable,
            confirmed=self.rows(ConfirmationRow, confirmation),
            combined=self.rows(RankingRow, combination_ranking),
            interactions=self.rows(InteractionRow, interactions),
            surrogate=storage.read_rows(SurrogateRow, interactions.surrogate)
            if interactions
            else (),
            repetition=self.rows(RepetitionRow, repetition),
            repetition_lines=told.get("sentences", ()),
            scaling_lines=scaled.get("sentences", ()),
            diversity=self.rows(DiversityRow, diversity),
            correlations=self._correlations(dataset, statistics),
            caveats=self.context.caveats,
        )
        text = insights_markdown(self.config.name, found)
        path = self.write_bytes("insights.md", text.encode())
        return Insights(content_id("insights", text), path)

    def _correlations(
        self, dataset: Dataset, statistics: Statistics
    ) -> dict[tuple[str, str], float]:
        """Return Pearson's r of every pair of statistics."""
        columns = StatisticColumns(self.storage, statistics.statistics, dataset.rows)
        names = tuple(columns)
        moments = CoMoments(names)
        for chunk in _chunks(columns, dataset.rows):
            moments.add(chunk)
        matrix = moments.correlation().matrix
        return {
            (names[i], names[j]): float(matrix[i, j])
            for i in range(len(names))
            for j in range(i + 1, len(names))
        }


def _chunks(columns: StatisticColumns, rows: int) -> Iterator[np.ndarray]:
    """Yield chunks of rows, shape (rows, statistics); infinite values have no correlation."""
    whole = [columns[name] for name in columns]
    for start in range(0, rows, _CHUNK_ROWS):
        chunk = np.stack([column[start : start + _CHUNK_ROWS] for column in whole], axis=1)
        yield np.where(np.isfinite(chunk), chunk, np.nan)


def _modalities(statistics: Statistics) -> dict[str, str]:
    kinds = {entry.name: entry.modality for entry in catalogue()}
    return {item.name: kinds[item.operator] for item in statistics.statistics}
