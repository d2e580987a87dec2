"""Samples with any number of media: values are Data-Juicer's, each operator sees its part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_stats import pictures, wide_table

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Dataset
from djsandbox_ray.stats import worker
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.operators import OperatorSpec
from djsandbox_ray.stats.worker import OperatorTask, StatisticsWorker
from djsandbox_ray.storage.store import Storage

IMAGE, VIDEO, END = "<__dj__image>", "<__dj__video>", "<|__dj__eoc|>"
LENGTH, SHAPE = OperatorSpec("text_length_filter"), OperatorSpec("image_shape_filter")
TEXTS = [
    "a dog alone",
    f"{IMAGE} a dog {END} and {IMAGE} a cat {IMAGE} {END}",
    "a dog before a house",
    "nothing but words",
    f"{IMAGE} a small cat {END}",
]
COUNTS = [1, 3, 2, 0, 1]


@pytest.fixture(scope="module")
def images() -> list[list[bytes]]:
    made = iter(pictures(sum(COUNTS)))
    return [[next(made) for _ in range(count)] for count in COUNTS]


def theirs(
    spec: OperatorSpec, texts: list[str], images: list[list[bytes]], folder: Path
) -> list[dict[str, Any]]:
    """Run one operator as Data-Juicer does, images from files."""
    from data_juicer.core.data import NestedDataset

    rows = []
    for row, (text, files) in enumerate(zip(texts, images, strict=True)):
        paths = [folder / f"{row}-{place}.png" for place in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        rows.append({"text": text, "images": [str(path) for path in paths]})
    operator = spec.filter_class(auto_op_parallelism=False, **spec.params)
    done = operator.run(NestedDataset.from_list(rows), reduce=False)
    return [row[load().stats_field] for row in done]


@pytest.mark.slow
def test_values_of_many_images_are_those_of_data_juicer(
    images: list[list[bytes]], clip_folder: Path, tmp_path: Path
) -> None:
    clip = OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)})
    specs = [SHAPE, OperatorSpec("image_aspect_ratio_filter"), clip]
    tagged = [
        text if text.startswith(IMAGE) else " ".join([*[IMAGE] * count, text, END])
        for text, count in zip(TEXTS, COUNTS, strict=True)
    ]
    for spec, computed in zip(specs, FusedOperators(specs)(TEXTS, images, range(3)), strict=True):
        assert computed.failures == []
        rows = theirs(spec, tagged, images, tmp_path)
        for key, column in computed.columns.items():
            expected = [np.mean(row[key]) if np.size(row[key]) else np.nan for row in rows]
            tolerance = 1e-6 if spec is clip else 1e-9
            np.testing.assert_allclose(column, expected, rtol=0, atol=tolerance, err_msg=key)


def test_a_sample_without_an_image_has_no_value_and_is_no_failure(
    images: list[list[bytes]],
) -> None:
    shape, length = FusedOperators([SHAPE, LENGTH])(TEXTS, images, [0, 1])
    assert np.isnan(shape.columns["image_width"]).tolist() == [not count for count in COUNTS]
    assert shape.failures == length.failures == []


def test_text_operators_see_no_tokens() -> None:
    (length,) = FusedOperators([LENGTH])(TEXTS, None, [0])
    seen = ["a dog alone", "a dog  and  a cat", "a dog before a house", "nothing but words"]
    assert length.columns["text_len"].tolist() == [*map(len, [*seen, "a small cat"])]


def test_one_broken_image_of_several_costs_its_sample_alone(images: list[list[bytes]]) -> None:
    broken = [*images[:2], [images[2][0], b"no image"], *images[3:]]
    (shape,) = FusedOperators([SHAPE])(TEXTS, broken, [0])
    assert [failure.row for failure in shape.failures] == [2]
    assert np.isfinite(shape.columns["image_width"][[0, 1, 4]]).all()


@pytest.mark.parametrize("room", [1, 1 << 25], ids=["a sample at a time", "all at once"])
def test_rows_are_read_with_their_media_however_little_room_there_is(
    storage: Storage, images: list[list[bytes]], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    dataset = wide_table(storage, TEXTS, images)
    monkeypatch.setattr(worker, "READ_BYTES", room)
    job = OperatorTask(storage.url, dataset.table, (), (), "", batch_size=4, threads=1, gpu=False)
    batches = list(StatisticsWorker(job)._batches(0, 5, ["image"]))
    assert np.concatenate([batch.row_ids for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    read = [sample for batch in batches if batch.images for sample in batch.images]
    assert read == images
    assert [len(batch.texts) for batch in batches] == ([1] * 5 if room == 1 else [4, 1])


def test_what_no_sample_has_is_refused_before_anything_is_computed(storage: Storage) -> None:
    dataset = Dataset("data-texts", "nowhere.lance", 4, 0, modalities=("text",), pairs=False)
    with pytest.raises(BadInput, match="image_shape_filter reads image, but the samples of data-t"):
        compute_statistics(storage, dataset, [LENGTH, SHAPE])
