"""The two images of a sample, compared with each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest_stats import picture, wide_table

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Dataset
from djsandbox_ray.stats.catalogue import catalogue
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.operators import OperatorSpec, lacking, parse_process
from djsandbox_ray.storage.store import Storage

NAME, KEY = "image_pair_similarity_filter", "image_pair_similarity"
FIRST, SECOND = picture(40, 30, 0), picture(30, 40, 1)
PAIRS = [[FIRST, SECOND], [SECOND, FIRST], [FIRST, FIRST], [SECOND, picture(50, 50, 2)]]


def spec(clip: Path) -> OperatorSpec:
    (parsed,) = parse_process([{NAME: {"hf_clip": str(clip)}}])
    return parsed


ALONE = """
import json, sys
from data_juicer.ops.filter.image_pair_similarity_filter import ImagePairSimilarityFilter
from transformers import CLIPModel
of_library = CLIPModel.get_image_features
CLIPModel.get_image_features = lambda self, pixels: of_library(self, pixels).pooler_output
operator = ImagePairSimilarityFilter(hf_clip=sys.argv[1])
rows = [{"text": "", "images": images, "__dj__stats__": {}} for images in json.loads(sys.argv[2])]
found = [operator.compute_stats_single(row)["__dj__stats__"] for row in rows]
print(json.dumps([float(row["image_pair_similarity"][0]) for row in found]))
"""


def alone(clip: Path, folder: Path) -> list[float]:
    """Return what Data-Juicer computes in a process without this project.

    It is written for a CLIP that returns tensors, as that of transformers 4 does. Its ``run``
    cannot write the statistic down: it is a tensor that knows how it was computed.
    """
    rows = []
    for number, images in enumerate(PAIRS):
        paths = [folder / f"{number}-{place}.png" for place in range(2)]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)
        rows.append([*map(str, paths)])
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(clip), json.dumps(rows)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    values: list[float] = json.loads(done.stdout.splitlines()[-1])
    return values


def test_values_are_those_of_data_juicer_alone(clip_folder: Path, tmp_path: Path) -> None:
    fused = FusedOperators([spec(clip_folder), OperatorSpec("image_shape_filter")])
    computed, _ = fused(["a dog"] * 4, PAIRS, [0, 1])
    assert computed.failures == []
    column = computed.columns[KEY]
    np.testing.assert_allclose(column, alone(clip_folder, tmp_path), rtol=0, atol=1e-6)
    assert column[0] == pytest.approx(column[1])
    assert column[2] == pytest.approx(1)
    assert column[3] != pytest.approx(column[0])
    assert fused.flops_per_sample(["a dog"], PAIRS[:1], 0) > 0


def test_a_sample_of_another_number_has_no_value_and_says_so(clip_folder: Path) -> None:
    images = [[FIRST, SECOND], [FIRST], [], [FIRST, SECOND, FIRST], [FIRST, SECOND]]
    (computed,) = FusedOperators([spec(clip_folder)])(["a dog"] * 5, images, [0])
    column = computed.columns[KEY]
    assert np.isnan(column).tolist() == [False, True, True, True, False]
    assert column[0] == column[4]
    assert [(failure.row, failure.reason) for failure in computed.failures] == [
        (row, f"ValueError: it compares 2 images; this sample has {count}")
        for row, count in ((1, 1), (2, 0), (3, 3))
    ]


def test_samples_of_one_image_are_refused_beforehand(storage: Storage) -> None:
    compared, shape = OperatorSpec(NAME), OperatorSpec("image_shape_filter")
    assert lacking(compared, ["text", "image"], pairs=True) == ["a second image"]
    assert lacking(compared, ["text", "image"], pairs=False) == []
    assert lacking(compared, ["text"], pairs=False) == ["image"]
    assert lacking(shape, ["text", "image"], pairs=True) == []
    pairs = Dataset("data-pairs", "samples.lance", 1, 0, pairs=True)
    with pytest.raises(BadInput, match=f"{NAME} reads a second image, but the samples of data-pai"):
        compute_statistics(storage, pairs, [compared])


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_documents_with_two_images_are_computed_and_others_counted(
    storage: Storage, clip_folder: Path
) -> None:
    dataset = wide_table(storage, ["a dog"] * 5, [*PAIRS, [FIRST]])
    (statistic,) = compute_statistics(storage, dataset, [spec(clip_folder)]).statistics
    marker = storage.read_sealed(f"{statistic.path.removesuffix('.parquet')}.json")
    assert (marker["missing"], marker["failed"]) == ({KEY: 1}, 1)
    assert marker["failures"][0]["reason"].endswith("this sample has 1")


def test_the_operator_is_listed_with_what_it_needs() -> None:
    (listed,) = [one for one in catalogue() if one.name == NAME]
    assert listed.obstacle is None
    assert any(need.startswith("2 images in a sample") for need in listed.needs)
