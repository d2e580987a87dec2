"""VBench's native dimensions: goldens of its own code, and cases whose value is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.video.board import in_range
from djsandbox_ray.evaluation.video.dimensions import (
    VideoValue,
    aesthetic_quality,
    appearance_style,
    consistency,
    mean_value,
    temporal_flickering,
)
from djsandbox_ray.evaluation.video.video_files import video_frames

# What vbench 0.1.5 has given for them.
OF_VBENCH = {
    "intel_bottle-detection_003.mp4": 0.9956396360,
    "intel_bottle-detection_004.mp4": 0.9993446614,
}


def test_flickering_is_what_vbench_gives(shared_data: Path) -> None:
    folder = shared_data / "videos_open" / "clips"
    frames = {name: video_frames((folder / name).read_bytes(), name) for name in OF_VBENCH}
    found = {name: temporal_flickering(frames[name]) for name in OF_VBENCH}
    assert {name: one.value for name, one in found.items()} == pytest.approx(OF_VBENCH, abs=1e-9)
    assert mean_value(list(found.values())) == pytest.approx(0.9974921487, abs=1e-9)


def still(value: int = 0, count: int = 4) -> np.ndarray:
    return np.full((count, 6, 8, 3), value, dtype=np.uint8)


def test_flickering_of_what_is_known() -> None:
    assert temporal_flickering(still()).value == 1  # the best of all: a video that stands still
    frames = still()
    frames[1:] = 51  # one of three changes, by a fifth of all there is
    assert temporal_flickering(frames).value == pytest.approx(1 - 1 / 15)
    frames = still()
    frames[1::2] = 255
    assert temporal_flickering(frames).value == 0


def test_the_consistency_is_the_mean_of_both_likenesses() -> None:
    features = np.array([[2.0, 0, 0], [0, 3, 0], [0, 1, 0], [-1, 0, 0]])
    # Frame by frame: (0, 0), (1, 0), (0, below 0 and so 0).
    assert consistency(features) == VideoValue(pytest.approx(0.5 / 3), 3)
    same = np.tile(np.array([[0.3, -0.2]], dtype=np.float32), (5, 1))
    assert consistency(same) == VideoValue(pytest.approx(1), 4)


def test_a_video_that_stands_still_has_a_value() -> None:
    """The product of a unit vector with itself is above 1 as often as below it."""
    rng = np.random.default_rng(0)
    stills = [np.tile(rng.normal(size=(1, 768)), (4, 1)).astype(np.float32) for _ in range(50)]
    values = [consistency(features).value for features in stills]
    assert max(values) > 1
    assert max(in_range("subject_consistency", value) for value in values) == 1


def test_style_is_the_mean_logit_of_a_hundred() -> None:
    features = np.array([[3.0, 4], [5, 0]])
    found = appearance_style(features, np.array([2.0, 0]), 100.0)
    assert found == VideoValue(pytest.approx((0.6 + 1) / 2), 2)
    assert appearance_style(features, np.array([2.0, 0]), 50.0).value == pytest.approx(0.4)


def test_the_rating_is_linear_in_unit_features() -> None:
    features = np.array([[3.0, 4], [10, 0]])
    found = aesthetic_quality(features, np.array([1.0, 2]), 3.0)
    assert found == VideoValue(pytest.approx(((0.6 + 1.6 + 3) + (1 + 3)) / 2 / 10), 1)
    with pytest.raises(BadInput, match="for features of 3 dimensions, these have 2"):
        aesthetic_quality(features, np.ones(3), 0.0)


def test_what_has_more_frames_counts_more_where_frames_count() -> None:
    assert mean_value([VideoValue(1.0, 1), VideoValue(0.0, 3)]) == 0.25
    assert mean_value([VideoValue(1.0), VideoValue(0.0)]) == 0.5
