"""The moving world shows what its captions say, and its defects are what they are called."""

from __future__ import annotations

import io
from collections import Counter
from itertools import pairwise

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from djsandbox_ray.dataset.clips import encoded
from djsandbox_ray.dataset.media import VideosConfig
from djsandbox_ray.dataset.moving_world import DIRECTIONS, MovingScene, draw_frames
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Sample, Source

ALL = {"static": 0.2, "noise": 0.1, "mismatched": 0.2, "fast": 0.1, "cut": 0.1}


def samples(source: Source) -> list[Sample]:
    shards = prepared(source, videos=VideosConfig(check="all"))
    return [item for shard in shards for item in shard.read()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def world(open_source) -> list[Sample]:
    return samples(open_source("clips", samples=200, seed=5, defects=ALL))


def pixels(data: bytes) -> NDArray[np.float64]:
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(float)


def test_every_clip_can_be_used_and_every_defect_has_its_number(world) -> None:
    counts = Counter(sample.meta["defect"] for sample in world)
    assert counts == {**{name: 200 * share for name, share in ALL.items()}, "clean": 60}
    assert {pixels(sample.media[0].data).shape for sample in world[:10]} == {(9, 32, 32, 3)}


def test_captions_say_what_is_shown_unless_they_are_another_ones(world) -> None:
    for sample in world:
        scene = sample.meta
        told = (
            f"a {scene['colour']} {scene['shape']} moves {scene['direction']} on "
            f"{scene['background']}"
        )
        if scene["defect"] != "mismatched":
            assert sample.text == told
            continue
        words, true = sample.text.split(), told.split()
        assert all(words[place] != true[place] for place in (1, 4, 6))
    assert len({sample.text for sample in world}) > 50


def test_the_same_sample_is_the_same_file(open_source, world) -> None:
    again = samples(open_source("clips", samples=130, seed=5, defects=ALL))
    assert [item.media[0].digest for item in again] == [
        item.media[0].digest for item in world[:130]
    ]
    assert [item.text for item in again] == [item.text for item in world[:130]]
    other = samples(open_source("clips", samples=5, seed=6, defects=ALL))
    assert other[0].media[0].digest != world[0].media[0].digest


def test_defects_can_be_seen(world) -> None:
    by_defect: dict[str, list[NDArray[np.float64]]] = {}
    for sample in world:
        changes = np.abs(np.diff(pixels(sample.media[0].data), axis=0)).mean((1, 2, 3))
        by_defect.setdefault(sample.meta["defect"], []).append(changes)
    mean = {name: np.mean(changes) for name, changes in by_defect.items()}
    assert mean["static"] < 0.2 * mean["clean"]
    assert mean["noise"] > 3 * mean["clean"]
    assert mean["fast"] > 1.8 * mean["clean"]
    assert 0.8 * mean["clean"] < mean["mismatched"] < 1.25 * mean["clean"]
    assert all(np.argmax(changes) == 3 for changes in by_defect["cut"])


@pytest.mark.parametrize("direction", list(DIRECTIONS))
@pytest.mark.parametrize(("fast", "step"), [(False, 1), (True, 4)])
def test_shapes_move_a_twentieth_of_the_picture(direction: str, fast: bool, step: int) -> None:
    scene = MovingScene("circle", "red", "white", direction)
    frames = draw_frames(scene, np.random.default_rng(0), 20, 21, fast=fast).astype(int)
    x, y = DIRECTIONS[direction]
    for before, after in pairwise(frames):
        moved = np.roll(before, (step * int(y), step * int(x)), axis=(0, 1))
        assert np.abs(moved - after).max() <= 1
    assert np.abs(frames[0] - frames[20]).max() <= 1  # once around


def test_pairs_are_the_first_frames_of_the_same_clips(open_source, world) -> None:
    shards = prepared(open_source("clips", samples=20, seed=5, defects=ALL, content="pairs"))
    pairs = [item for shard in shards for item in shard.read()]
    assert all(pair.is_pair for pair in pairs)
    assert [pair.text for pair in pairs] == [sample.text for sample in world[:20]]
    assert [pair.meta for pair in pairs] == [sample.meta for sample in world[:20]]
    for pair, sample in zip(pairs, world[:20], strict=True):
        image = np.asarray(Image.open(io.BytesIO(pair.image)), float)
        assert np.abs(image - pixels(sample.media[0].data)[0]).mean() < 20


def test_sizes_and_numbers_of_frames_are_chosen(open_source) -> None:
    (clip,) = samples(open_source("clips", samples=1, frames=17, size=48))
    assert pixels(clip.media[0].data).shape == (17, 48, 48, 3)
    assert b"Lavf" not in encoded(np.zeros((2, 16, 16, 3), np.uint8))


def test_several_defects_may_meet(open_source) -> None:
    options = {"defects": {"static": 0.5, "mismatched": 0.5}, "independent": True}
    found = {item.meta["defect"] for item in samples(open_source("clips", samples=100, **options))}
    assert found == {"clean", "static", "mismatched", "mismatched+static"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 33}, "even number"),
        ({"frames": 1}, "frames"),
        ({"defects": {"statik": 0.1}}, "did you mean 'static'"),
        ({"defects": {"static": 0.6, "noise": 0.6}}, "add up to 1.2"),
        ({"defects": {"noise": 0.005}}, "whole number of percent"),
    ],
)
def test_what_makes_no_world_is_an_error(open_source, options, said) -> None:
    with pytest.raises(ValidationError, match=said):
        open_source("clips", samples=10, **options)
