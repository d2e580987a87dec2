"""How varied the captions and images of every pool are, beside what the pool does."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from djsandbox_ray.analysis.scale.diversity import Captions, Measure, embedding_diversity
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.kinds import bundle
from djsandbox_ray.pools.draws import members
from djsandbox_ray.pools.order import hash_key, least
from djsandbox_ray.records import (
    Cost,
    Dataset,
    Diversity,
    DiversityRow,
    Pools,
    Ranking,
    RankingRow,
    Scorer,
)
from djsandbox_ray.stats.embeddings import ImageEmbedder
from djsandbox_ray.storage.cache import cached
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.family import device_for

FEWEST_ROWS, MOST_ROWS = 10, 20_000
"""Rows per pool: for an interval, and for the memory of the driver."""
_TASK_ROWS = 2_048
"""Rows that one Ray task reads and embeds."""
_CHUNK_ROWS = 256
"""Rows whose images are in the memory of a task at once."""
_CPUS = 1

Ints = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Read:
    """What a task has read of some rows."""

    captions: list[str]
    vectors: Vectors | None
    seconds: float


class MeasureDiversity(Hook):
    """Writes ``diversity.csv``."""

    VERSION = 1

    def run(
        self,
        dataset: Dataset,
        pools: Pools,
        ranking: Ranking | None,
        scorer: Scorer | None,
        rows: int = 2000,
    ) -> Diversity | None:
        """Measure as many rows of every pool: the fewer, of ``rows`` and the smallest pool.

        A pool's rows are those of least hash among its own, with one hash for all pools: a simple
        random sample of each, in which pools share as many rows as they can. So fewer rows are
        read and embedded, and what two pools share does not blur their difference.

        Raises:
            BadInput: ``rows`` is out of bounds.
        """
        if not FEWEST_ROWS <= rows <= MOST_ROWS:
            raise BadInput(f"diversity: rows is {rows}; {FEWEST_ROWS} to {MOST_ROWS} are possible")
        size = min(rows, *(pool.size for pool in pools.pools))
        if size < FEWEST_ROWS:
            self.note(f"diversity: the smallest pool has {size} rows; {FEWEST_ROWS} are needed")
            return None
        if scorer is not None and not dataset.pairs:
            self.note("diversity: embeddings are of the images of pairs; here, texts alone count")
            scorer = None
        elif scorer is None:
            self.note("diversity: without a scorer there are no embeddings to measure")
        self.context.progress.stage("diversity")
        samples = self._samples(pools, size)
        found = self._measured(dataset, samples, scorer)
        changes = {row.pool: row.change for row in self.rows(RankingRow, ranking)}
        table = [
            DiversityRow(
                pool, measure, value.value, value.low, value.high, changes.get(pool, math.nan)
            )
            for pool, measures in found.items()
            for measure, value in measures.items()
        ]
        if lost := sorted({row.measure for row in table if math.isnan(row.value)}):
            self.note(f"diversity: not defined in some pools: {', '.join(lost)}")
        self.note(f"diversity: {size} rows of each of {len(samples)} pools")
        path, text = self.write_rows(DiversityRow, "diversity.csv", table)
        return Diversity(content_id("diversity", text), path)

    def _samples(self, pools: Pools, size: int) -> dict[str, Ints]:
        """Return the row ids that stand for every pool, ascending, shape (size,)."""
        key = hash_key(pools.seed, "diversity")
        samples = {}
        for pool in pools.pools:
            table = self.storage.read_table(pools.assignments, ["row_id", pool.column])
            rows = members(table["row_id"].to_numpy(), table[pool.column].to_numpy(), pool)
            samples[pool.id] = np.sort(rows[least(rows, size, key)])
        return samples

    def _measured(
        self, dataset: Dataset, samples: dict[str, Ints], scorer: Scorer | None
    ) -> dict[str, dict[str, Measure]]:
        """Read every row once and measure every pool, in Ray tasks."""
        start, storage = time.perf_counter(), self.storage
        table = SampleTable(storage.uri(dataset.table))
        model = scorer.path if scorer else None
        gpus = self.config.statistics.gpus_per_actor if scorer else 0.0
        every = np.unique(np.concatenate(list(samples.values())))
        nodes = self.config.statistics.resources
        self.context.await_room([bundle(_CPUS, gpus, nodes)], "statistics.resources")
        read = ray.remote(num_cpus=_CPUS, num_gpus=gpus)(_read).options(
            name="read captions", resources=nodes.demand()
        )
        parts = [
            read.remote(table, every[at : at + _TASK_ROWS], storage.url, model, gpus)
            for at in range(0, len(every), _TASK_ROWS)
        ]
        known: list[_Read] = ray.get(parts)
        captions = ray.put([text for part in known for text in part.captions])
        vectors = ray.put(_stacked(known))
        measure = ray.remote(num_cpus=_CPUS)(_measure).options(
            name="measure diversity", resources=nodes.demand()
        )
        tasks = [
            measure.remote(captions, vectors, np.searchsorted(every, rows))
            for rows in samples.values()
        ]
        results: list[tuple[dict[str, Measure], float]] = ray.get(tasks)
        reading = sum(part.seconds for part in known)
        self.account(
            Cost(
                stage="diversity",
                samples=len(every),
                flops=None if scorer else 0.0,
                cpu_seconds=_CPUS * (reading + sum(seconds for _, seconds in results)),
                gpu_seconds=gpus * reading,
                wall_seconds=time.perf_counter() - start,
            )
        )
        return {pool: found for pool, (found, _) in zip(samples, results, strict=True)}


def _stacked(parts: list[_Read]) -> Vectors | None:
    found = [part.vectors for part in parts if part.vectors is not None]
    return np.concatenate(found) if found else None


def _read(table: SampleTable, rows: Ints, url: str, model: str | None, gpus: float) -> _Read:
    """Read the captions of some rows, and embed their images if there is a model."""
    start = time.perf_counter()
    embed = None
    if model is not None:
        with cached(Storage(url), model) as folder:
            embed = ImageEmbedder(str(folder), device_for(_CPUS, gpus))
    columns = ["text"] if model is None else ["text", "image"]
    captions: list[str] = []
    vectors = []
    for at in range(0, len(rows), _CHUNK_ROWS):
        ids = rows[at : at + _CHUNK_ROWS]
        found = table.take(ids, columns)
        captions += found["text"].to_pylist()
        if embed is not None:
            vectors.append(embed(found["image"].to_pylist(), ids.tolist()))
    embedded = np.concatenate(vectors) if vectors else None
    return _Read(captions, embedded, time.perf_counter() - start)


def _measure(
    captions: list[str], vectors: Vectors | None, places: NDArray[np.intp]
) -> tuple[dict[str, Measure], float]:
    """Return the measures of the rows at ``places``, and the seconds it took."""
    start = time.perf_counter()
    sample = Captions()
    sample.add(captions[place] for place in places)
    found: dict[str, Any] = dict(sample.measures())
    if vectors is not None:
        found["embedding"] = embedding_diversity(vectors[places])
    return found, time.perf_counter() - start
