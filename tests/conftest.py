"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from s3_server import S3Server
    from small_runs import Ran

    from djsandbox_ray.storage.store import Storage

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # beside other processes, threads wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine an example takes as long as it likes.
settings.register_profile(
    "any machine",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any machine")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from one_cluster import OneCluster

    return OneCluster(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "file with the tests that have passed: they are not run again; gone when all have"
    parser.addoption("--resume", type=Path, help=said)


def pytest_configure(config: pytest.Config) -> None:
    if (file := config.getoption("resume")) is not None:
        from resume import Resume

        config.pluginmanager.register(Resume(file, getattr(config, "workerinput", None)))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    from djsandbox_ray.storage.store import Storage

    return Storage(str(tmp_path / "storage"))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """Give what mounts a small disk in memory at an empty folder, until the test has ended."""
    places: list[Path] = []

    def mount(place: Path, size: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no disk may be mounted here")
        places.append(place)

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=False)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    from s3_server import s3_here

    with s3_here(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["disk", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Return a storage of each kind."""
    from djsandbox_ray.storage.store import Storage

    name = uuid.uuid4().hex
    if request.param == "s3":
        return Storage(f"{request.getfixturevalue('s3').url}/{name}")
    return Storage(str(tmp_path) if request.param == "disk" else f"memory://{name}")


@pytest.fixture(scope="session")
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
    here = Path(__file__).parent
    folders = [here, *(path for path in here.iterdir() if path.is_dir())]
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    connect(cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def finished_run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A small run of all that a run can do; tests read it and leave it as it is."""
    from small_runs import WHOLE, run

    return run(tmp_path_factory.mktemp("whole"), base=WHOLE)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the demo, run once per test session as the README says; takes minutes."""
    from small_runs import ROOT, said

    folder = tmp_path_factory.mktemp("demo")
    said("run", "configs/demo.yaml", "--storage", str(folder), cwd=ROOT)
    return folder
