from __future__ import annotations

import math
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from factories import ranking_row
from planted_world import context_of

from djsandbox_ray.analysis.scale.diversity import Captions, embedding_diversity
from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.shapes import ShapesConfig, ShapesSource
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.diversity import MeasureDiversity
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.pools.build import construct
from djsandbox_ray.records import (
    Dataset,
    DiversityRow,
    Pools,
    Ranking,
    RankingRow,
    Scorer,
)
from djsandbox_ray.stats.embeddings import ImageEmbedder
from djsandbox_ray.storage.rows import from_csv, to_csv
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.clip.arch import build_model, load_arch
from djsandbox_ray.trials.clip.export import export_hugging_face

SAMPLES = 300


@dataclass(frozen=True)
class Made:
    hook: MeasureDiversity
    said: StringIO
    storage: Storage
    dataset: Dataset
    pools: Pools
    captions: list[str]

    def rows(self, path: str) -> dict[tuple[str, str], DiversityRow]:
        text = self.storage.read_bytes(path).decode()
        return {(r.pool, r.measure): r for r in from_csv(DiversityRow, text, "diversity")}


@pytest.fixture
def made(ray_cluster: None, storage: Storage) -> Made:
    """Pools by the length of the captions."""
    context, said = context_of(storage)
    source = ShapesSource(ShapesConfig(type="shapes", samples=SAMPLES, seed=0))
    dataset = ingest(source, storage, max_rejected=0)
    captions = SampleTable(storage.uri(dataset.table)).column("text").to_pylist()
    lengths = np.array([float(len(text)) for text in captions])
    ids = np.arange(SAMPLES)
    built = construct(ids, {"text_len": lengths}, context.config.pools)
    path = f"{context.folder}/assignments.parquet"
    storage.write_table(path, pa.table({"row_id": ids, **built.assignments}))
    pools = Pools("pools-1", path, built.pools, built.size, built.draw_size, built.eligible, 0)
    return Made(MeasureDiversity(context), said, storage, dataset, pools, captions)


def test_captions_of_every_pool(made: Made) -> None:
    assert HOOKS.get("diversity") is MeasureDiversity
    row = ranking_row("text_len/high", 0.25)
    made.storage.write_bytes("ranking.csv", to_csv(RankingRow, [row]).encode())
    found = made.hook.run(made.dataset, made.pools, Ranking("r", "ranking.csv"), None)
    assert found is not None
    rows = made.rows(found.path)
    measures = ["word_entropy", "distinct_1", "distinct_2", "distinct_3"]
    assert list(rows) == [(pool.id, m) for pool in made.pools.pools for m in measures]
    assert rows["text_len/high", "word_entropy"].change == 0.25
    assert math.isnan(rows["text_len/low", "word_entropy"].change)
    # Fewer rows than 2,000 are in a pool: all of them are measured.
    table = made.storage.read_table(made.pools.assignments)
    pool = next(pool for pool in made.pools.pools if pool.id == "text_len/low")
    sample = Captions()
    sample.add(made.captions[i] for i in np.flatnonzero(table[pool.column].to_numpy() == pool.code))
    for name, measure in sample.measures():
        got = rows["text_len/low", name]
        assert (got.value, got.low, got.high) == pytest.approx(
            (measure.value, measure.low, measure.high)
        )
        assert got.low < got.value < got.high
    assert made.hook.spent.cpu_seconds > 0
    assert made.hook.spent.samples == SAMPLES
    assert "without a scorer" in made.said.getvalue()


def test_equal_samples_that_pools_share(made: Made) -> None:
    samples = made.hook._samples(made.pools, 40)
    assert {len(rows) for rows in samples.values()} == {40}
    # 3 buckets and 6 controls of 40 rows: those of the buckets are nearly all.
    assert len(np.unique(np.concatenate(list(samples.values())))) < 6 * 40
    first = made.hook.run(made.dataset, made.pools, None, None, rows=40)
    again = made.hook.run(made.dataset, made.pools, None, None, rows=40)
    assert first == again
    assert first != made.hook.run(made.dataset, made.pools, None, None, rows=50)


def scorer(storage: Storage) -> Scorer:
    folder = Path(storage.uri("models/scorer-1"))
    folder.mkdir(parents=True)
    arch = load_arch("tiny")
    export_hugging_face(build_model(arch, 0).eval(), arch, folder)
    return Scorer("scorer-1", "models/scorer-1")


def test_images_with_a_scorer(made: Made) -> None:
    model = scorer(made.storage)
    found = made.hook.run(made.dataset, made.pools, None, model, rows=30)
    assert found is not None
    rows = made.rows(found.path)
    samples = made.hook._samples(made.pools, 30)
    table = SampleTable(made.storage.uri(made.dataset.table))
    ids = samples["text_len/high"]
    images = table.take(ids, ["image"])["image"].to_pylist()
    vectors = ImageEmbedder(made.storage.uri(model.path))(images, ids.tolist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    measure = embedding_diversity(vectors)
    got = rows["text_len/high", "embedding"]
    assert got.value == pytest.approx(measure.value, abs=1e-5)
    assert got.low < got.value < got.high
    assert made.hook.spent.flops is None  # nobody counted them


def test_of_what_is_no_pair_texts_alone_are_measured(made: Made) -> None:
    """Such samples have no one image: a scorer that operators use is no reason to fail."""
    model = scorer(made.storage)
    found = made.hook.run(replace(made.dataset, pairs=False), made.pools, None, model, rows=30)
    assert found is not None
    measures = {measure for _, measure in made.rows(found.path)}
    assert measures == {"word_entropy", "distinct_1", "distinct_2", "distinct_3"}
    assert "embeddings are of the images of pairs" in made.said.getvalue()


def test_a_broken_image_is_named(made: Made) -> None:
    model = scorer(made.storage)
    with pytest.raises(SandboxError, match="image of row 17 of the sample table: not an image"):
        ImageEmbedder(made.storage.uri(model.path))([b"no image"], [17])


def test_captions_without_a_pair_of_words(made: Made) -> None:
    path = "datasets/words.lance"
    lance.write_dataset(pa.table({"text": ["word"] * SAMPLES}), made.storage.uri(path))
    dataset = replace(made.dataset, table=path)
    found = made.hook.run(dataset, made.pools, None, None, rows=20)
    assert found is not None
    rows = made.rows(found.path)
    assert rows["control/0", "word_entropy"].value == 0
    assert math.isnan(rows["control/0", "distinct_2"].value)
    assert "not defined in some pools: distinct_2, distinct_3" in made.said.getvalue()


def test_too_few_rows(made: Made) -> None:
    with pytest.raises(BadInput, match="rows is 5; 10 to 20000 are possible"):
        made.hook.run(made.dataset, made.pools, None, None, rows=5)
    small = replace(made.pools, pools=(replace(made.pools.pools[0], size=3),))
    assert made.hook.run(made.dataset, small, None, None) is None
    assert "the smallest pool has 3 rows" in made.said.getvalue()
