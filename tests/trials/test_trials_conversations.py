"""Samples as turns and images: each with its own text, or with that of another one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_tables import written

from djsandbox_ray.dataset.media import IMAGE_TOKEN, Media, Turn
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.trials.conversations import Conversations


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGES = tuple(png(number) for number in range(3))
TOLD = [
    ((IMAGES[0],), f"{IMAGE_TOKEN}\nWhat is it?"),
    ((), "Who are you?"),
    ((IMAGES[1], IMAGES[2]), f"One: {IMAGE_TOKEN} Two: {IMAGE_TOKEN} Alike?"),
]
"""A conversation about one image, one about none, and one about two."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SampleTable:
    samples = []
    for number, (images, question) in enumerate(TOLD):
        turns = (Turn("user", question), Turn("assistant", f"answer {number}"))
        media = tuple(Media("image", data) for data in images)
        samples.append(Sample(b"", f"answer {number}", f"s#{number}", {}, media, turns))
    return written(list(samples), tmp_path_factory.mktemp("told"))[0]


def test_each_is_read_with_its_own_images(table: SampleTable) -> None:
    told = Conversations(table.uri, np.arange(3)).take(np.array([2, 0, 1]))
    assert [one.images for one in told] == [TOLD[row][0] for row in (2, 0, 1)]
    assert [one.turns[0].text for one in told] == [TOLD[row][1] for row in (2, 0, 1)]


def test_a_text_about_other_images_fits_all_the_same(table: SampleTable) -> None:
    """As a self-test reads them, whose pool has conversations about images and about none."""
    rows, texts = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 0, 2, 0, 1])
    told = Conversations(table.uri, rows, texts).take(np.arange(6))
    assert [one.turns[1].text for one in told] == [f"answer {text}" for text in texts]
    assert [one.images for one in told] == [(), IMAGES[:1], (), (), IMAGES[1:2], ()]
    assert [one.turns[0].text for one in told] == [
        "Who are you?",
        f"One: {IMAGE_TOKEN} Two:  Alike?",
        "\nWhat is it?",
        "One:  Two:  Alike?",
        f"{IMAGE_TOKEN}\nWhat is it?",
        "Who are you?",
    ]


def test_a_caption_of_another_row_is_shuffled_as_ever(tmp_path: Path) -> None:
    pairs = [Sample(IMAGES[row], f"caption {row}", f"s#{row}") for row in range(3)]
    table = written(list(pairs), tmp_path, wide=False)[0]
    rows = np.arange(3)
    told = Conversations(table.uri, rows, np.roll(rows, 1)).take(rows)
    assert [one.images for one in told] == [(data,) for data in IMAGES]
    assert [one.turns[1].text for one in told] == ["caption 2", "caption 0", "caption 1"]
    assert all(one.turns[0].text.count(IMAGE_TOKEN) == 1 for one in told)
