"""What a statistics pass cost: operations, and CPU-seconds as Ray itself accounts for them."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from conftest_stats import captions, pictures
from resource_meter import ResourceMeter

from djsandbox_ray.records import Cost, Dataset
from djsandbox_ray.stats import parts, unfinished
from djsandbox_ray.stats.compute import StatisticsConfig, compute_statistics
from djsandbox_ray.stats.operators import OperatorSpec, operator_id
from djsandbox_ray.storage.store import Storage

pytestmark = pytest.mark.usefixtures("ray_cluster")


def ingest(storage: Storage, rows: int, broken: int = 0) -> Dataset:
    """Write a table whose first images are broken."""
    dataset = Dataset("data-test", "datasets/data-test/samples.lance", rows, 0)
    images = [b"broken"] * broken + (pictures(50) * rows)[broken:rows]
    table = pa.table({"row_id": np.arange(rows), "text": captions(rows), "image": images})
    lance.write_dataset(table, storage.uri(dataset.table))
    return dataset


def marker(storage: Storage, dataset: Dataset, spec: OperatorSpec) -> dict[str, object]:
    found: dict[str, object] = storage.read_json(parts.marker(dataset.id, operator_id(spec)))
    return found


@pytest.mark.slow
def test_cpu_seconds_are_those_that_ray_accounts_for(storage: Storage, clip_folder: Path) -> None:
    rows = 5000
    dataset = ingest(storage, rows)
    operators = [
        OperatorSpec("text_length_filter"),
        OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)}),
    ]
    costs: list[Cost] = []
    with ResourceMeter() as meter:
        compute_statistics(
            storage, dataset, operators, settings=StatisticsConfig(actors=2), spent=costs.append
        )
    (cost,) = costs
    assert meter.seconds > 3
    assert cost.cpu_seconds == pytest.approx(meter.cpu_seconds, rel=0.05)
    assert cost.gpu_seconds == meter.gpu_seconds == 0
    assert (cost.stage, cost.samples) == ("statistics", rows)
    per_sample = [marker(storage, dataset, spec)["flops_per_sample"] for spec in operators]
    assert per_sample[0] == 0
    assert isinstance(per_sample[1], float)
    assert per_sample[1] > 1e5
    assert cost.flops == pytest.approx(rows * per_sample[1])


@pytest.mark.slow
def test_what_was_there_costs_nothing_and_what_a_killed_run_left_is_counted(
    storage: Storage, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "PART_ROWS", 1)  # every range is a part
    rows = 1500  # ranges of 512
    dataset = ingest(storage, rows)
    similarity = OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)})
    costs: list[Cost] = []
    statistics = compute_statistics(storage, dataset, [similarity], spent=costs.append)
    compute_statistics(storage, dataset, [similarity], spent=costs.append)
    assert len(costs) == 1
    whole = marker(storage, dataset, similarity)
    path = statistics.statistics[0].path
    storage.remove(parts.marker(dataset.id, statistics.statistics[0].operator_id))
    compute_statistics(storage, dataset, [similarity], spent=costs.append)
    left = costs[1]
    assert (left.samples, left.flops) == (rows, costs[0].flops)
    seconds = whole["seconds"]
    assert isinstance(seconds, float)
    assert left.cpu_seconds == pytest.approx(seconds * StatisticsConfig().cpus_per_actor, abs=1e-3)
    assert marker(storage, dataset, similarity) == whole
    storage.remove(parts.marker(dataset.id, statistics.statistics[0].operator_id))
    storage.remove(parts.part(path, 512))
    compute_statistics(storage, dataset, [similarity], spent=costs.append)
    assert costs[2].flops == costs[0].flops
    assert costs[2].cpu_seconds > left.cpu_seconds * 2 / 3


def test_operations_are_counted_on_the_first_samples_that_can_be_computed(
    storage: Storage, clip_folder: Path
) -> None:
    similarity = OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)})
    dataset = ingest(storage, 600, broken=40)  # more than the first batch
    compute_statistics(storage, dataset, [similarity])
    found = marker(storage, dataset, similarity)
    assert found["failed"] == 40
    assert isinstance(found["flops_per_sample"], float)
    assert found["flops_per_sample"] > 1e5


@pytest.mark.slow
def test_operations_that_nobody_could_count_are_not_taken_for_zero(
    storage: Storage, clip_folder: Path
) -> None:
    operators = [
        OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)}),
        OperatorSpec("text_length_filter"),
    ]
    dataset = ingest(storage, 520, broken=512)  # the whole first range
    costs: list[Cost] = []
    compute_statistics(storage, dataset, operators, spent=costs.append)
    assert marker(storage, dataset, operators[0])["flops_per_sample"] is None
    assert marker(storage, dataset, operators[1])["flops_per_sample"] == 0
    assert costs[0].flops is None
