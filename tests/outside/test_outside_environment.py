"""Environments are made once, whole, by one process at a time; files and variables of a node."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.outside.config import EnvironmentConfig
from djsandbox_ray.outside.environment import FOLDER, Environment, node_folder, scratch
from djsandbox_ray.outside.process import variables, without_values
from djsandbox_ray.outside.program import Snapshot
from djsandbox_ray.storage import own
from djsandbox_ray.storage.own import MARKER, locked

SMALL = Environment("3.11", ("packaging==21.3",))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path / "node"))
    return tmp_path / "node"


def test_an_environment_has_its_packages_and_none_of_ours() -> None:
    python = SMALL.made() / "bin" / "python"
    asked = "import packaging, sys; print(packaging.__version__); import pydantic"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "21.3"
    assert "No module named 'pydantic'" in done.stderr


def test_it_is_made_once_and_never_used_half_made() -> None:
    marker = SMALL.made() / "made.json"
    first = marker.stat().st_mtime_ns
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(SMALL.made())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert marker.stat().st_mtime_ns == first
    # As a killed maker leaves it:
    marker.unlink()
    (found[0] / "bin" / "python").unlink()
    assert (SMALL.made() / "bin" / "python").exists()


def _full(folder: Path, *_: object) -> None:
    (folder / MARKER).touch()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _beginning(environment: Environment, folder: Path) -> None:
    (folder / "bin").mkdir()


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_a_full_disk_or_a_kill_has_left_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(own, "mark", _full)
        with pytest.raises(OSError, match="No space left"):
            SMALL.made()
    with monkeypatch.context() as patch:
        patch.setattr(Environment, "_make", _beginning)
        patch.setattr(Environment, "_said", property(_killed))
        with pytest.raises(KeyboardInterrupt):
            SMALL.made()
    assert list(folder.glob("environments/*/bin"))
    monkeypatch.setattr(Environment, "_make", _beginning)
    with monkeypatch.context() as patch:  # while that is removed, too
        patch.setattr(os, "rmdir", _killed)
        with pytest.raises(KeyboardInterrupt):
            SMALL.made()
    assert (SMALL.made() / "made.json").exists()
    assert not list((folder / "scratch").iterdir())


def test_what_cannot_be_had_is_said(folder: Path) -> None:
    nowhere = Environment("3.11", ("packaging==0.0.1.dev9",))
    with pytest.raises(BadInput, match=r"cannot be had:.*packaging==0\.0\.1\.dev9"):
        nowhere.check()
    with pytest.raises(SandboxError, match=r"cannot be made:.*packaging==0\.0\.1\.dev9"):
        nowhere.made()
    assert not list(folder.rglob("made.json"))
    SMALL.check()


def test_a_file_of_requirements_counts_by_its_contents(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("packaging==21.3  # old\n")
    config = EnvironmentConfig(requirements=str(file))
    assert Environment.read(config) == SMALL
    file.write_text("packaging==22.0\n")
    assert Environment.read(config).id != SMALL.id


def test_a_scratch_folder_of_a_killed_process_is_removed(folder: Path) -> None:
    code = (
        "import os; from djsandbox_ray.outside.environment import scratch\n"
        "with scratch() as folder: (folder / 'big').write_text('x'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(folder.glob("scratch/*/files/big"))) == 1
    with scratch() as own, scratch() as other:
        assert not list(folder.glob("scratch/*/files/big"))
        root = folder / "scratch"
        assert {own.parent, other.parent} == {path for path in root.iterdir() if path.is_dir()}
    assert not list((folder / "scratch").iterdir())


@pytest.mark.parametrize("linked", [False, True])
def test_an_environment_never_takes_the_place_of_what_is_not_ours(
    tmp_path: Path, linked: bool
) -> None:
    home, project = node_folder("environments") / SMALL.id, tmp_path / "project"
    (project if linked else home).mkdir()
    if linked:
        home.symlink_to(project)
    (home / "made.json").write_text("of another tool")
    with pytest.raises(SandboxError, match="is in the way, and is not ours"):
        SMALL.made()
    assert [path.name for path in home.iterdir()] == ["made.json"]


def test_a_lock_is_held_by_one(folder: Path) -> None:
    path = node_folder("locks") / "one"
    with locked(path), pytest.raises(BlockingIOError), locked(path, wait=False):
        pass


def test_a_program_sees_few_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {
        "AWS_SECRET_ACCESS_KEY": "planted-1",
        "HF_TOKEN": "planted-2",
        "PYTHONPATH": "/ours",
        "VIRTUAL_ENV": "/ours",
        "RAY_ADDRESS": "ours",
        "CUDA_VISIBLE_DEVICES": "3,5",
        "PATH": f"{sys.prefix}/bin:/usr/bin",
    }
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    found = variables(env={"A": "b"}, pass_env=["HF_TOKEN"], cpus=2.5, gpus=2)
    assert not {"AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "VIRTUAL_ENV", "RAY_ADDRESS"} & set(found)
    assert found["HF_TOKEN"] == "planted-2"
    assert (found["A"], found["OMP_NUM_THREADS"]) == ("b", "2")
    assert found["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert found["PATH"] == "/usr/bin"
    assert without_values("token planted-2!", ["HF_TOKEN"]) == "token ***!"
    assert variables(env={}, pass_env=[], cpus=0.5, gpus=0)["CUDA_VISIBLE_DEVICES"] == ""
    with pytest.raises(BadInput, match="NOT_THERE: not set on this node"):
        variables(env={}, pass_env=["NOT_THERE"], cpus=1, gpus=0)


def test_code_is_the_same_everywhere(tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "deep").mkdir(parents=True)
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "a.pyc").write_text("")
    (code / "deep" / "a.py").write_text("1")
    (code / "run.sh").write_text("2")
    (code / "run.sh").chmod(0o755)
    taken = Snapshot.of([str(code)])
    taken.unpack(tmp_path / "there")
    there = {path.name for path in (tmp_path / "there").rglob("*")}
    assert there == {"deep", "a.py", "run.sh"}
    assert (tmp_path / "there" / "run.sh").stat().st_mode & 0o100
    assert Snapshot.of([str(code)]) == taken
    (code / "deep" / "a.py").write_text("3")
    assert Snapshot.of([str(code)]).hash != taken.hash
    (tmp_path / "run.sh").write_text("other")
    with pytest.raises(BadInput, match=r"'run\.sh' is both"):
        Snapshot.of([str(code), str(tmp_path / "run.sh")])
    (code / "link").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="is a link to a folder"):
        Snapshot.of([str(code)])
