"""A text that is compared with another one, a field of the sample's meta data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from conftest_stats import data_juicer_alone

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.records import Dataset
from djsandbox_ray.stats.catalogue import catalogue, describe
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.operators import (
    BadProcess,
    OperatorSpec,
    meta_text,
    operator_id,
    parse_process,
)
from djsandbox_ray.stats.worker import OperatorTask, StatisticsWorker
from djsandbox_ray.storage.store import Storage

NAME, FIELD = "text_pair_similarity_filter", "meta.title"
TEXTS = ["a dog on grass", "a red house", "a cat", "a small tree", "of the house", "a photo", "dog"]
METAS: list[dict[str, Any]] = [
    {"title": "a small dog"},
    {"title": "a red house"},
    {"title": ""},
    {"other": "a tree"},
    {"title": 5},
    {"title": None},
    {"title": "the photo of a red cat"},
]
TITLES = ["a small dog", "a red house", "", "", "", "", "the photo of a red cat"]


def spec(clip: Path, field: str = FIELD) -> OperatorSpec:
    (parsed,) = parse_process([{NAME: {"hf_clip": str(clip), "text_key_second": field}}])
    return parsed


def write_table(storage: Storage, *, wide: bool) -> Dataset:
    """Write a table as an ingest does, with the columns that are read here."""
    columns: dict[str, Any] = {
        "row_id": np.arange(len(TEXTS)),
        "text": TEXTS,
        "meta": [json.dumps(meta) for meta in METAS],
        "image": pa.array([b""] * len(TEXTS), pa.large_binary()),
    }
    if wide:
        columns["media"] = ["[]"] * len(TEXTS)
    dataset = Dataset("data-pairs", "samples.lance", len(TEXTS), 0, pairs=not wide)
    lance.write_dataset(pa.table(columns), storage.uri(dataset.table))
    return dataset


def alone(clip: Path, folder: Path) -> list[float]:
    """Return what ``op.run`` gives in a process without this project."""
    params = {"hf_clip": str(clip), "text_key_second": FIELD}
    rows = [{"text": t, "media": {FIELD: s}} for t, s in zip(TEXTS, TITLES, strict=True)]
    (found,) = data_juicer_alone(folder, [(NAME, params, False)], rows)
    assert isinstance(found, list), found
    values = [row["text_pair_similarity"] for row in found]
    return [value[0] if value else np.nan for value in values]


def test_values_are_those_of_data_juicer_alone(clip_folder: Path, tmp_path: Path) -> None:
    fused = FusedOperators([spec(clip_folder), OperatorSpec("text_length_filter")])
    assert fused.reads_fields([0, 1]) == [FIELD]
    assert fused.reads_fields([1]) == []
    computed, _ = fused(TEXTS, None, [0, 1], fields={FIELD: TITLES})
    assert computed.failures == []
    column = computed.columns["text_pair_similarity"]
    np.testing.assert_allclose(column, alone(clip_folder, tmp_path), rtol=0, atol=1e-6)
    assert np.isnan(column).tolist() == [not title for title in TITLES]
    assert column[1] == pytest.approx(1)
    assert len({*np.round(column[~np.isnan(column)], 6)}) == 3
    assert fused.flops_per_sample(TEXTS[:2], None, 0, fields={FIELD: TITLES[:2]}) > 0


def test_the_field_is_asked_for(clip_folder: Path) -> None:
    """Without it every sample would seem to have no second text."""
    with pytest.raises(KeyError, match=r"meta\.title"):
        FusedOperators([spec(clip_folder)])(TEXTS, None, [0])


@pytest.mark.parametrize("wide", [False, True])
def test_a_worker_reads_the_field_of_the_meta_data(storage: Storage, wide: bool) -> None:
    dataset = write_table(storage, wide=wide)
    job = OperatorTask(storage.url, dataset.table, (), (), "", batch_size=4, threads=1, gpu=False)
    batches = list(StatisticsWorker(job)._batches(0, len(TEXTS), [], [FIELD, "meta.other"]))
    assert [title for batch in batches for title in batch.fields[FIELD]] == TITLES
    assert [text for batch in batches for text in batch.fields["meta.other"]][3] == "a tree"
    assert batches[0].only([1, 3]).fields[FIELD] == ["a red house", ""]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_samples_without_a_second_text_have_no_value_and_are_counted(
    storage: Storage, clip_folder: Path
) -> None:
    dataset = write_table(storage, wide=False)
    (statistic,) = compute_statistics(storage, dataset, [spec(clip_folder)]).statistics
    marker = storage.read_sealed(f"{statistic.path.removesuffix('.parquet')}.json")
    assert (marker["missing"], marker["failed"]) == ({"text_pair_similarity": 4}, 0)
    with pytest.raises(SandboxError, match=r"none of the samples has a text in meta\.titel"):
        compute_statistics(storage, dataset, [spec(clip_folder, "meta.titel")])


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("meta.title", "a"),
        ("meta.page.title", "b"),
        ("meta.page.more.title", "c"),
        ("meta.with.dots", "d"),
        ("meta.page.with.dots", "e"),
        ("meta.page", ""),
        ("meta.title.more", ""),
        ("meta.nothing", ""),
        ("meta.list", ""),
    ],
)
def test_a_field_may_lie_in_an_object_or_have_dots(field: str, text: str) -> None:
    page = {"title": "b", "more": {"title": "c"}, "with.dots": "e"}
    meta = {"title": "a", "page": page, "with.dots": "d", "list": ["a"]}
    assert meta_text(json.dumps(meta), field) == text


@pytest.mark.parametrize("field", ["text", "title", "meta", "meta.", "meta..title", ".title", 5])
def test_what_is_no_field_of_the_meta_data_is_refused(field: Any) -> None:
    with pytest.raises(BadProcess) as caught:
        parse_process([{NAME: {"text_key_second": field}}])
    (where, said), *_ = caught.value.problems
    assert where == f"operators[0].{NAME}.text_key_second"
    assert said.startswith("a field of the samples' meta data is needed, such as meta.title, not ")


def test_a_second_text_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(BadProcess, match=r"text_key_second: compares .* such as meta\.title"):
        parse_process([NAME])


def test_the_field_is_a_part_of_what_is_computed(clip_folder: Path) -> None:
    assert operator_id(spec(clip_folder)) != operator_id(spec(clip_folder, "meta.other"))


def test_the_operator_is_listed_with_what_it_needs(clip_folder: Path) -> None:
    (listed,) = [one for one in catalogue() if one.name == NAME]
    assert listed.obstacle is None
    assert any(need.startswith("text_key_second: a text among") for need in listed.missing)
    (page,) = describe(NAME, [spec(clip_folder)])
    assert page.obstacle is None
    assert [(n.there, n.where) for n in page.needs if "text_key_second" in n.what] == [
        (True, FIELD)
    ]
