"""The 31 operators of the paper's Table 4, on photos that people captioned and on real clips.

The table itself is in docs/operators.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import table4_models as small
from conftest_stats import data_juicer_alone
from table4_models import MODELS, TABLE_4

from djsandbox_ray.dataset.media import without_tokens
from djsandbox_ray.stats import datajuicer
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.inspection import needs_tokens
from djsandbox_ray.stats.needs import needs
from djsandbox_ray.stats.operators import OperatorSpec

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]
ROWS = 8
BESIDE = (
    "alphanumeric_filter: tokens",
    "image_face_count_filter",
    "video_nsfw_filter: uniform",
    "video_watermark_filter: uniform",
)
"""What also failed once, or could."""
CLIPS = (0, 1, 20, 40, 75, 113)
"""Of the pack, which is sorted by its sources."""


@dataclass(frozen=True)
class Captioned:
    """Captions, and what they describe, which lies in files too."""

    texts: list[str]
    media: list[bytes]
    paths: list[str]

    def rows(self, key: str, token: str) -> list[dict[str, Any]]:
        """Return the samples as Data-Juicer reads them."""
        return [
            {"text": text, "tagged": f"{token} {text} <|__dj__eoc|>", "media": {key: [path]}}
            for text, path in zip(self.texts, self.paths, strict=True)
        ]


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    path = shared_data / "coco_open_photos" / "coco_open_photos_256.parquet"
    rows = pq.read_table(path, columns=["text", "image"]).slice(0, ROWS).to_pydict()
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{index}.jpg" for index in range(ROWS)]
    for place, image in zip(paths, rows["image"], strict=True):
        place.write_bytes(image)
    return Captioned(rows["text"], rows["image"], [str(place) for place in paths])


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> Captioned:
    folder = shared_data / "videos_open"
    lines = (folder / "clips.jsonl").read_text().splitlines()
    rows = [json.loads(lines[index]) for index in CLIPS]
    paths = [folder / row["videos"][0] for row in rows]
    texts = [without_tokens(row["text"]) for row in rows]
    return Captioned(texts, [path.read_bytes() for path in paths], [*map(str, paths)])


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer_folder: Path,
    photos: Captioned,
) -> Iterator[Path]:
    """Make the folder of model files, where Data-Juicer in this process looks too."""
    folder = tmp_path_factory.mktemp("models_home")
    with pytest.MonkeyPatch.context() as patch:
        datajuicer.load()
        from data_juicer.utils import model_utils

        patch.setenv(datajuicer.HOME, str(folder))
        patch.setenv("NLTK_DATA", str(folder / "nltk_data"))
        patch.setattr(model_utils, "DJEMH", str(folder))
        if find_spec("nltk"):
            import nltk

            # It reads and writes in the folders of its path only.
            patch.setattr(nltk.data, "path", [str(folder / "nltk_data")])
        home = small.home(folder, photos.texts, tokenizer_folder)
        if (detector := home / small.DETECTOR_HOME).exists():
            patch.setenv("EASYOCR_MODULE_PATH", str(detector))
        yield home


@pytest.fixture(scope="module")
def specs(
    models: Path, tokenizer_folder: Path, clip_folder: Path, tmp_path_factory: Any
) -> dict[str, OperatorSpec]:
    place = tmp_path_factory.mktemp("table4")
    params = small.parameters(place, tokenizer_folder, clip_folder)
    found = {name: OperatorSpec(name, params.get(name, {})) for name in TABLE_4}
    found[BESIDE[0]] = OperatorSpec("alphanumeric_filter", {"tokenization": True})
    found[BESIDE[1]] = OperatorSpec(BESIDE[1])
    for name in BESIDE[2:]:
        plain = found[name.partition(":")[0]]
        uniform = {"frame_sampling_method": "uniform", "frame_num": 4}
        found[name] = OperatorSpec(plain.name, {**plain.params, **uniform})
    return found


def lacking(spec: OperatorSpec) -> list[str]:
    return [need.what for need in needs(spec) if not need.there]


@pytest.fixture(scope="module")
def theirs(
    specs: dict[str, OperatorSpec],
    models: Path,
    photos: Captioned,
    clips: Captioned,
    tmp_path_factory: Any,
) -> dict[str, list[dict[str, Any]]]:
    """Statistics per row by Data-Juicer alone, of the operators that can be run here."""
    place = tmp_path_factory.mktemp("alone")
    possible = {name: spec for name, spec in specs.items() if not lacking(spec)}
    nltk_data = models / "nltk_data"
    operators = [
        (spec.name, dict(spec.params), needs_tokens(spec.filter_class))
        for spec in possible.values()
    ]
    answer = data_juicer_alone(
        place,
        operators,
        photos.rows("images", "<__dj__image>"),
        videos=clips.rows("videos", "<__dj__video>"),
        nltk_data=str(nltk_data) if nltk_data.exists() else None,
    )
    return dict(zip(possible, answer, strict=True))


def test_the_table_has_31_of_which_9_read_videos() -> None:
    assert len(set(TABLE_4)) == 31
    assert sum(name.startswith("video") for name in TABLE_4) == 9


@pytest.mark.parametrize("name", [*TABLE_4, *BESIDE])
def test_values_are_those_of_data_juicer_alone(
    name: str,
    specs: dict[str, OperatorSpec],
    theirs: dict[str, list[dict[str, Any]]],
    photos: Captioned,
    clips: Captioned,
) -> None:
    spec = specs[name]
    if missing := lacking(spec):
        pytest.skip(f"needs {'; '.join(missing)}")
    fused = FusedOperators([spec])
    if fused.reads_videos([0]):
        (computed,) = fused(clips.texts, None, [0], [[clip] for clip in clips.media])
    else:
        images = photos.media if fused.reads_images([0]) else None
        (computed,) = fused(photos.texts, images, [0])
    assert computed.failures == []
    assert isinstance(theirs[name], list), theirs[name]
    for key, column in computed.columns.items():
        expected = [np.mean(row[key]) if np.size(row[key]) else np.nan for row in theirs[name]]
        tolerance = 1e-6 if spec.name in MODELS else 1e-9
        np.testing.assert_allclose(column, expected, rtol=0, atol=tolerance, err_msg=key)
        assert np.isfinite(column).any(), key


def test_operators_on_videos_share_what_is_open_and_change_no_value(
    specs: dict[str, OperatorSpec], models: Path, clips: Captioned
) -> None:
    """Of two that sample frames alike, one gets the frames of the other."""
    possible = [
        spec for name, spec in specs.items() if name.startswith("video") and not lacking(spec)
    ]
    files = [[clip] for clip in clips.media]
    together = FusedOperators(possible)(clips.texts, None, range(len(possible)), files)
    for spec, computed in zip(possible, together, strict=True):
        single = FusedOperators([spec])
        (alone,) = single(clips.texts, None, [0], files)
        counted = single.flops_per_sample(clips.texts, None, 0, files)
        assert bool(counted) == (spec.name in MODELS)
        assert computed.failures == []
        for key, column in computed.columns.items():
            np.testing.assert_allclose(column, alone.columns[key], rtol=0, atol=1e-6, err_msg=key)
