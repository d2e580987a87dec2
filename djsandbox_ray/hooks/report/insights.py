"""Says in sentences what the run observed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

from djsandbox_ray.analysis.confirmation import read_confirmation
from djsandbox_ray.analysis.correlation import CoMoments
from djsandbox_ray.analysis.ranking_csv import read_csv
from djsandbox_ray.analysis.rows_csv import read_rows
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Confirmation,
    Dataset,
    Diversity,
    DiversityRow,
    Insights,
    InteractionRow,
    Interactions,
    Pools,
    Ranking,
    Repetition,
    RepetitionRow,
    Scaling,
    Statistics,
    SurrogateRow,
)
from djsandbox_ray.reporting import Unit
from djsandbox_ray.reporting.insights import Findings, insights_markdown
from djsandbox_ray.stats.catalogue import catalogue
from djsandbox_ray.stats.table import StatisticColumns

Row = TypeVar("Row")

_CHUNK_ROWS = 65536


class WriteInsights(Hook):
    """Writes ``insights.md``."""

    def identity(self) -> Any:
        """Name of the run and unit of its effects."""
        return [self.config.name, self.config.evaluation.aggregate]

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
        told = self.context.storage.read_json(repetition.law) if repetition else {}
        scaled = self.context.storage.read_json(scaling.law) if scaling else {}
        found = Findings(
            unit=Unit.of(self.config.evaluation.aggregate),
            ranking=read_csv(self._text(ranking.path)),
            modality=_modalities(statistics),
            not_testable=pools.not_testable,
            confirmed=read_confirmation(self._text(confirmation.path)) if confirmation else [],
            combined=read_csv(self._text(combination_ranking.path)) if combination_ranking else [],
            interactions=self._rows(InteractionRow, interactions.path if interactions else None),
            surrogate=self._rows(SurrogateRow, interactions.surrogate if interactions else None),
            repetition=self._rows(RepetitionRow, repetition.path if repetition else None),
            repetition_lines=told.get("sentences", ()),
            scaling_lines=scaled.get("sentences", ()),
            diversity=self._rows(DiversityRow, diversity.path if diversity else None),
            correlations=self._correlations(dataset, statistics),
        )
        text = insights_markdown(self.config.name, found)
        path = f"{self.context.folder}/insights.md"
        self.context.storage.write_bytes(path, text.encode())
        return Insights(content_id("insights", text), path)

    def _text(self, path: str) -> str:
        return self.context.storage.read_bytes(path).decode()

    def _rows(self, kind: type[Row], path: str | None) -> list[Row]:
        return [] if path is None else read_rows(kind, self._text(path), path)

    def _correlations(
        self, dataset: Dataset, statistics: Statistics
    ) -> dict[tuple[str, str], float]:
        """Return Pearson's r of every pair of statistics."""
        columns = StatisticColumns(self.context.storage, statistics.statistics, dataset.rows)
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
