"""A small generated dataset and evaluation split, ingested once for all trial tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from trial_world import World

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.shapes import ShapesConfig, ShapesSource
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage.store import Storage


@pytest.fixture(scope="session")
def world(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("world")
    storage = Storage(str(folder))

    def make(samples: int, seed: int) -> Dataset:
        source = ShapesSource(ShapesConfig(type="shapes", samples=samples, seed=seed))
        return ingest(source, storage, max_rejected=0)

    return World(storage, make(600, 0), make(200, 1))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """What is left of a gradient that should be zero hangs on threads, and AdamW enlarges it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
