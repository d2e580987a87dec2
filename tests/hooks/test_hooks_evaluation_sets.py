"""The trusted split and benchmarks with samples of their own: each read once, and leaks in all.

Shards are read in this process, without Ray.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from planted_world import context_of

from djsandbox_ray.config import checked
from djsandbox_ray.dataset.source import SOURCES, Source
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.hooks.ingest import Ingest, IngestEvaluation, Leaks
from djsandbox_ray.hooks.results import evaluation_sets
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage

pytestmark = pytest.mark.usefixtures("read_here")


class OwnDataConfig(Component):
    path: str


class OwnData(Evaluator):
    """Measured on the files of a folder of its own."""

    Config = OwnDataConfig

    def identity(self) -> Any:
        return {}

    def source(self) -> Source:
        kind = SOURCES.get("parquet")
        return kind(kind.Config.model_validate({"type": "parquet", "path": self.config.path}))

    def evaluate(self, model: Encoder, data: EvaluationSet) -> dict[str, float]:
        return {"own/rows": float(data.rows)}


def folder(tmp_path: Path, name: str, *pairs: tuple[int, str]) -> str:
    """Write pairs of a grey picture and a caption, and return their folder."""
    path = tmp_path / name
    path.mkdir()
    images = []
    for shade, _ in pairs:
        file = io.BytesIO()
        Image.new("L", (8, 8), shade).save(file, "PNG")
        images.append(file.getvalue())
    texts = [text for _, text in pairs]
    pq.write_table(pa.table({"image": images, "text": texts}), path / "a.parquet")
    return str(path)


def own(path: str) -> dict[str, Any]:
    return {"type": f"{__name__}:OwnData", "path": path}


def test_every_source_is_read_once_and_leaks_are_looked_for_in_all(
    storage: Storage, tmp_path: Path
) -> None:
    train = folder(tmp_path, "train", (1, "one"), (2, "two"), (3, "three"), (4, "four"))
    trusted = folder(tmp_path, "trusted", (1, "one"), (9, "nine"))
    bench = folder(tmp_path, "bench", (2, "which shade?"), (1, "one"), (8, "eight"))
    copy = folder(tmp_path, "copy", (2, "which shade?"), (1, "one"), (8, "eight"))
    metrics = [{"type": "planted_world:Measure"}, own(bench), own(copy)]
    context, said = context_of(
        storage,
        dataset={"type": "parquet", "path": train},
        evaluation={"dataset": {"type": "parquet", "path": trusted}, "metrics": metrics},
    )
    dataset, hook = Ingest(context).run(), IngestEvaluation(context)
    evaluation = hook.run()
    assert [one.rows for one in evaluation.sets] == [2, 3], "equal benchmarks are one set"
    assert [one.use for one in evaluation.sets] == ["evaluation"] * 2
    split, other = (one.id for one in evaluation.sets)
    assert evaluation.measured == (split, other, other)
    assert evaluation.id not in (split, other)
    assert hook.broken(evaluation) == {}
    first, second, third = evaluation_sets(storage, evaluation)
    assert (first.texts, second.texts) == (("one", "nine"), ("which shade?", "one", "eight"))
    assert second is third
    assert second.take([2, 0], ["text"])["text"].to_pylist() == ["eight", "which shade?"]

    leak = Leaks(context).run(dataset, evaluation)
    rows = [tuple(row.values()) for row in storage.read_table(leak.path).to_pylist()]
    assert sorted(rows) == sorted(
        [(0, 0, "sample", split), (0, 1, "sample", other), (1, 0, "image", other)]
    )
    assert (leak.rows, leak.by_medium, leak.removed) == (2, 1, True)
    assert "2 training rows occur in evaluation sets too" in said.getvalue()
    storage.remove(f"datasets/{other}/rejected.parquet")
    assert list(hook.broken(evaluation)) == [f"datasets/{other}/rejected.parquet"]


def test_the_id_of_a_benchmark_is_part_of_what_trials_are_known_by(
    storage: Storage, tmp_path: Path
) -> None:
    identities = []
    for name, text in (("one", "a"), ("two", "b"), ("moved", "a")):
        bench = folder(tmp_path, name, (1, text))
        context, _ = context_of(storage, evaluation={"metrics": [own(bench)]})
        settings = context.config.evaluation
        sets = evaluation_sets(storage, IngestEvaluation(context).run())
        identities.append(Suite(settings.metrics, sets).identity())
        assert identities[-1][0] is None, "no trusted split is read"
    assert identities[0] == identities[2], "where it lies does not count"
    assert identities[0] != identities[1]


def test_without_a_trusted_split_there_is_nothing_to_leak_from_but_benchmarks(
    storage: Storage, tmp_path: Path
) -> None:
    train = folder(tmp_path, "train", (1, "one"))
    reported = [{"type": "reported", "metrics": ["loss"]}]
    context, _ = context_of(
        storage, dataset={"type": "parquet", "path": train}, evaluation={"metrics": reported}
    )
    dataset, evaluation = Ingest(context).run(), IngestEvaluation(context).run()
    assert (evaluation.sets, evaluation.measured) == ((), ("",))
    assert [one.rows for one in evaluation_sets(storage, evaluation)] == [0]
    leak = Leaks(context).run(dataset, evaluation)
    assert (leak.rows, leak.by_medium) == (0, 0)


def test_who_needs_the_trusted_split_says_so_before_anything_runs(tmp_path: Path) -> None:
    shapes = {"type": "shapes", "samples": 10}
    document = {
        "name": "none",
        "storage": str(tmp_path),
        "dataset": shapes,
        "operators": ["text_length_filter"],
        "trials": {"model": {"type": "clip"}, "budget": 20, "seeds": 2},
        "evaluation": {"metrics": [{"type": "retrieval"}]},
    }
    told = r"evaluation\.dataset: missing; evaluation\.metrics\[0\] \('retrieval'\) is measured on"
    with pytest.raises(BadInput, match=told):
        checked(document, "config.yaml")
