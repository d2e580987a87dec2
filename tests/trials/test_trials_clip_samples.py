from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from trial_world import World

from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.trials.clip import samples
from djsandbox_ray.trials.clip.arch import load_arch
from djsandbox_ray.trials.clip.samples import Packed, Streamed, preprocess, share


def _png(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "height"), [(32, 32), (100, 40), (40, 100), (5, 300), (1, 1)])
def test_every_shape_becomes_a_square(width: int, height: int) -> None:
    assert preprocess(_png(width, height), 32).shape == (32, 32, 3)


def test_the_right_size_is_left_alone() -> None:
    data = _png(32, 32)
    assert np.array_equal(preprocess(data, 32), np.asarray(Image.open(io.BytesIO(data))))


def test_packed_and_streamed_give_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, uri = load_arch("tiny"), world.uri(world.train)
    monkeypatch.setattr(samples, "_BLOCK_ROWS", 64)  # more than one block
    packed, held = share(uri, arch, NodeKind())
    streamed = Streamed(uri, arch, threads=2)
    assert isinstance(packed, Packed)
    assert held > 0
    assert len(packed.image_blocks) == 10
    rows = np.random.default_rng(0).permutation(world.train.rows)[:300]
    assert np.array_equal(packed.images(rows), streamed.images(rows))
    assert np.array_equal(packed.tokens(rows), streamed.tokens(rows))


def test_a_table_too_large_for_the_store_is_streamed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_STORE_SHARE", 1e-9)
    found, held = share(world.uri(world.train), load_arch("tiny"), NodeKind())
    assert isinstance(found, Streamed)
    assert held == 0
