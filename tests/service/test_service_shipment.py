from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from djsandbox_ray.errors import BadInput
from djsandbox_ray.outside.program import Snapshot
from djsandbox_ray.service.shipment import pack


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that must and all that must not be shipped."""
    here = tmp_path / "here"
    for name in (
        "mine.py",
        "notes.txt",
        "configs/x.yaml",
        "flows/mine.yaml",
        "shipped_package/__init__.py",
        "shipped_package/inner.py",
        "shipped_package/.hidden",
        ".venv/lib/other.py",
        ".git/config",
        "sandbox/runs/big.bin",
        "never_imported/__init__.py",
    ):
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    importlib.import_module("shipped_package.inner")  # as checking a configuration does
    yield here
    for name in ("shipped_package", "shipped_package.inner"):
        sys.modules.pop(name)


def test_exactly_what_is_needed_is_shipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invented = ModuleType("invented")
    invented.__file__ = "invented.py"  # torch has such modules
    monkeypatch.setitem(sys.modules, "invented", invented)
    target = tmp_path / "staging"
    target.mkdir()
    shipment = pack(target, {"name": "x"}, "configs/x.yaml", ["flows/mine.yaml"])
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("djsandbox_ray/")} == {
        "configs/x.yaml",
        "flows/mine.yaml",
        "mine.py",
        "shipped_package/__init__.py",
        "shipped_package/inner.py",
    }
    assert yaml.safe_load((target / "configs/x.yaml").read_text()) == {"name": "x"}
    assert not [name for name in found if "__pycache__" in name]
    assert shipment.size == sum((target / name).stat().st_size for name in found)
    assert "configs/x.yaml, flows/mine.yaml, mine.py, shipped_package (" in str(shipment)


def test_the_shipped_package_is_whole_and_goes_before_an_installed_one(
    folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "staging"
    target.mkdir()
    pack(target, {}, "/somewhere/else/y.yaml", [])
    assert (target / "y.yaml").exists()
    code = "import djsandbox_ray.records as r, importlib.resources as f; print(r.__file__); "
    code += "print(f.files('djsandbox_ray').joinpath('workflows/builtin/single_op.yaml').is_file())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=target, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(target / "djsandbox_ray/records/__init__.py"), "True"]


def test_a_program_is_the_same_on_the_nodes_as_here(folder: Path, tmp_path: Path) -> None:
    code = folder / "code"
    names = ("train.sh", "parts/a.part", "old.pyc", ".env", ".github/ci.yml", "node_modules/a.js")
    for name in names:
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(name)
    (code / "train.sh").chmod(0o755)
    target = tmp_path / "staging"
    target.mkdir()
    pack(target, {}, "x.yaml", ["code", "flows/mine.yaml"])
    shipped = target / "code"
    found = {path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.is_file()}
    assert found == {"train.sh", "parts/a.part", "old.pyc"}
    assert (shipped / "train.sh").stat().st_mode & 0o777 == 0o755
    here = Snapshot.of(["code", "flows/mine.yaml"])
    assert Snapshot.of([str(shipped), str(target / "flows/mine.yaml")]) == here


def test_too_much_is_an_error_that_names_the_largest(folder: Path, tmp_path: Path) -> None:
    (folder / "flows" / "weights.bin").write_bytes(b"0" * 3_000_000)
    target = tmp_path / "staging"
    target.mkdir()
    with pytest.raises(BadInput, match=r"2 MB at most; the largest: flows/weights.bin \(2.9 MB\)"):
        pack(target, {}, "x.yaml", ["flows"], limit=2 * 2**20)
    assert not list(target.iterdir())
