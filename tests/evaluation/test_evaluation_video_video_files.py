"""Videos as files: what is lost, which names there can be, and what is no video."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from djsandbox_ray.dataset import mp4
from djsandbox_ray.dataset.moving_world import draw_frames, random_scene
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.video.dimensions import temporal_flickering
from djsandbox_ray.evaluation.video.video_files import (
    LONGEST,
    Frames,
    file_name,
    video_bytes,
    video_frames,
)


def world(seed: int = 0, size: int = 32, count: int = 9) -> Frames:
    rng = np.random.default_rng(seed)
    return draw_frames(random_scene(rng), rng, size, count)


def test_frames_survive_but_for_rounding_and_the_file_is_the_same_twice() -> None:
    for seed in range(3):
        frames = world(seed)
        data = video_bytes(frames, 8)
        again = video_frames(data, "a")
        assert again.shape == frames.shape
        assert np.abs(again.astype(int) - frames).mean() < 1.0
        assert np.abs(again.astype(int) - frames).max() <= 4
        assert video_bytes(frames, 8) == data
    assert video_bytes(frames, 7.5) != data


def test_what_is_measured_hardly_moves_but_at_the_usual_quality_it_does() -> None:
    noise = np.random.default_rng(0).normal(0, 6, (9, 64, 64, 3))
    frames = np.clip(world(size=64) + noise, 0, 255).astype(np.uint8)
    raw = temporal_flickering(frames).value
    usual = mp4.encoded(frames, rate=8, pixels="yuv420p", options={"crf": "23"})
    kept, lost = (video_frames(data, "a") for data in (video_bytes(frames, 8), usual))
    assert temporal_flickering(kept).value == pytest.approx(raw, abs=1e-3)
    assert temporal_flickering(lost).value > raw + 5e-3


def test_odd_sizes_are_kept() -> None:
    assert video_frames(video_bytes(world()[:, :31, :17], 8), "a").shape == (9, 31, 17, 3)


@pytest.mark.parametrize(
    "frames", [world()[:1], world().astype(np.float32), world()[..., :1], world()[0]]
)
def test_what_are_no_frames(frames: np.ndarray) -> None:
    with pytest.raises(BadInput, match="two or more frames of bytes"):
        video_bytes(frames, 8)


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(world()[0]).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("data", [b"", b"nothing", picture(), video_bytes(world(), 8)[:600]])
def test_what_is_no_video(data: bytes) -> None:
    with pytest.raises(SandboxError, match=r"a-0\.mp4: it cannot be decoded"):
        video_frames(data, "a-0.mp4")


def test_videos_are_named_as_vbench_names_them() -> None:
    assert file_name("a bird and a cat", 4) == "a bird and a cat-4.mp4"
    longest = "é" * (LONGEST // 2)
    assert len(file_name(longest, 4).encode()) <= 255
    for prompt, what in [
        ("the/bund", "holds '/'"),
        ("two\nlines", r"holds '\\n'"),
        (longest + "a", "has 241 bytes"),
        (" ", "has 1 bytes"),
    ]:
        with pytest.raises(BadInput, match=what):
            file_name(prompt, 0)
