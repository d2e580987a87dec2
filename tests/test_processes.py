"""How the tests themselves are run: in two processes, again and again until all have passed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONFTEST = """
import os
from pathlib import Path
from one_cluster import OneCluster
from resume import Resume

def pytest_xdist_make_scheduler(config, log):
    return OneCluster(config, log)

def pytest_configure(config):
    resume = Resume(Path("passed"), getattr(config, "workerinput", None))
    config.pluginmanager.register(resume)
"""
ON_RAY = """
import os
# ray_cluster

def test_first():
    note("first")

def test_second():
    note("second")

def note(name):
    with open("ran", "a") as file:
        file.write(f"{name} {os.getpid()}\\n")
"""
PLAIN = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(12))
def test_plain(number):
    with open("ran", "a") as file:
        file.write(f"{number} {os.getpid()}\\n")
    if number == 3 and not Path("mended").exists():
        os.kill(os.getpid(), 9)
    assert number != 7 or Path("mended").exists()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("conftest.py", CONFTEST),
        ("test_a.py", ON_RAY),
        ("test_b.py", PLAIN),
        ("test_c.py", ON_RAY.replace("first", "third").replace("second", "fourth")),
        ("pytest.ini", "[pytest]\n"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def told(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout


def ran(folder: Path) -> dict[str, list[str]]:
    """Return the processes that ran each test."""
    found: dict[str, list[str]] = {}
    for line in (folder / "ran").read_text().splitlines():
        name, process = line.split()
        found.setdefault(name, []).append(process)
    (folder / "ran").unlink()
    return found


def test_a_run_goes_on_behind_a_process_that_ended_and_is_resumed(folder: Path) -> None:
    said = told(folder, "--numprocesses", "2")
    assert "2 failed, 14 passed" in said, said
    first = ran(folder)
    on_ray = {process for name in ("first", "second", "third", "fourth") for process in first[name]}
    assert len(on_ray) == 1
    assert all(len(processes) == 1 for processes in first.values()), "nothing is run twice"
    assert len(first) == 16
    passed = (folder / "passed").read_text().splitlines()
    assert len(passed) == len({*passed}) == 14
    assert not {"test_b.py::test_plain[3]", "test_b.py::test_plain[7]"} & {*passed}

    (folder / "mended").touch()
    said = told(folder, "--numprocesses", "2")
    assert "2 passed" in said, said
    assert "14 tests passed before and were not run again" in said
    assert {*ran(folder)} == {"3", "7"}
    assert not (folder / "passed").exists()


def test_one_process_is_resumed_likewise(folder: Path) -> None:
    (folder / "passed").write_text("test_b.py::test_plain[3]\n")
    assert "1 failed, 14 passed, 1 deselected" in told(folder)
    assert "3" not in ran(folder)
    (folder / "mended").touch()
    assert "1 passed, 15 deselected" in told(folder)
    assert not (folder / "passed").exists()
