"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# On a busy machine an example takes as long as it likes.
settings.register_profile(
    "any machine",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any machine")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def storage(tmp_path: Path):  # type: ignore[no-untyped-def]
    from djsandbox_ray.storage.store import Storage

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

    from djsandbox_ray.nodes.connection import connect

    # Workers import classes of test modules by the names that pytest gives those.
    folders = [str(path) for path in Path(__file__).parent.iterdir() if path.is_dir()]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    connect(cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the demo, run once per test session as the README says; takes minutes."""
    folder = tmp_path_factory.mktemp("demo")
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "djsandbox_ray", "run", "configs/demo.yaml"]
    done = subprocess.run(
        [*command, "--storage", str(folder)],
        cwd=Path(__file__).resolve().parents[1],
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder
