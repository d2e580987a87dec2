"""Fixtures that several test folders share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def storage(tmp_path: Path):  # type: ignore[no-untyped-def]
    from djsandbox_ray.storage import Storage

    return Storage(str(tmp_path / "storage"))


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data packs (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray cluster of 2 CPUs for the whole test session."""
    import ray

    from djsandbox_ray.cluster import connect

    # Workers import classes of test modules by the names that pytest gives those.
    folders = [str(path) for path in Path(__file__).parent.iterdir() if path.is_dir()]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    connect(cpus=2)
    yield
    ray.shutdown()
