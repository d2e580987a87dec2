"""Motion of made videos beside real ones: what stands still has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_videos import SMALL, DrawsSquares
from written_tables import written

from djsandbox_ray.dataset.clips import ClipsConfig, ClipsSource
from djsandbox_ray.dataset.media import Media
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.answer_store import AnswerStore
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.video.motion import Motion, MotionConfig, energy
from djsandbox_ray.evaluation.video.video_files import video_bytes
from djsandbox_ray.storage.store import Storage

ROWS = 8


def clips(folder: Path) -> EvaluationSet:
    config = ClipsConfig(type="clips", samples=ROWS, size=48)
    samples = [ClipsSource.sample(config, index, ()) for index in range(ROWS)]
    table, _ = written(list(samples), folder)
    return EvaluationSet.read("set-1", table.uri)


def config(**more: object) -> MotionConfig:
    given = {"type": "motion", "sampling": SMALL, "videos": 6, **more}
    return MotionConfig.model_validate(given)


def test_the_energy_is_the_mean_difference_of_neighbours() -> None:
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1] = 51
    assert energy(frames) == pytest.approx(0.2)
    frames[1, 0] = 255  # neither wraps around
    assert energy(frames) == pytest.approx((1.0 + 0.2) / 2)
    assert energy(np.full((4, 2, 2, 3), 7, np.uint8)) == 0


def test_what_stands_still_has_none(tmp_path: Path) -> None:
    data, storage = clips(tmp_path), Storage(str(tmp_path / "storage"))
    judged, maker = Suite([config()], [data]), DrawsSquares()
    store = AnswerStore(storage, "training-1", 64)
    found = judged.run(maker, store)
    assert 0 < found["motion/energy"] < 0.2
    assert 0.3 < found["motion/ratio"] <= 1
    assert len(maker.made) == 6
    again = DrawsSquares()
    assert judged.run(again, store) == found
    assert judged.rescored(found, store) == found
    assert again.made == []
    still = judged.run(DrawsSquares(still=True), AnswerStore(storage, "training-2", 64))
    assert still == {"motion/energy": 0.0, "motion/ratio": 0.0}
    assert len(storage.names("videos/reference")) == 1  # real ones were looked at once
    assert [one.prompt for one in Motion(config()).wanted(data)] == [
        data.texts[row] for row in data.some(6)
    ]


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    data = clips(tmp_path / "moving")
    with pytest.raises(BadInput, match="9 videos are compared with as many real ones, but set-1"):
        Suite([config(videos=9)], [data])
    store = AnswerStore(Storage(str(tmp_path / "storage")), "training-1", 64)
    with pytest.raises(BadInput, match="two frames are needed"):
        Suite([config(stride=20)], [data]).run(DrawsSquares(), store)
    black = Media("video", video_bytes(np.zeros((5, 32, 32, 3), np.uint8), 8))
    samples = [Sample(b"", f"nothing {row}", "", {}, (black,)) for row in range(ROWS)]
    table, _ = written(samples, tmp_path / "still")
    frozen = EvaluationSet.read("set-1", table.uri)
    with pytest.raises(BadInput, match="nothing moves in the videos of set-1"):
        Suite([config()], [frozen]).run(
            DrawsSquares(), AnswerStore(Storage(str(tmp_path / "other")), "training-1", 64)
        )
