from __future__ import annotations

import ast
import importlib
import pickle
import tomllib
from pathlib import Path

import pytest

import djsandbox_ray
from djsandbox_ray.errors import BadInput, MissingExtra, PlanRefused, SandboxError, require
from djsandbox_ray.stats.operators import BadProcess

PACKAGE = Path(djsandbox_ray.__file__).parent
PROJECT = PACKAGE.parent


@pytest.mark.parametrize(
    ("error", "code"), [(SandboxError, 1), (BadInput, 2), (MissingExtra, 2), (PlanRefused, 3)]
)
def test_exit_codes_are_those_of_the_design(error: type[SandboxError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, SandboxError)


@pytest.mark.parametrize(
    "error",
    [
        SandboxError("a [b]"),
        BadInput("where: what"),
        PlanRefused("too much"),
        MissingExtra("open_clip", "clip"),
        BadProcess([("operators[0]", "unknown")]),
    ],
)
def test_errors_survive_the_way_from_a_ray_worker(error: SandboxError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code


def test_the_package_raises_no_error_without_a_kind() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert ast.unparse(node.exc.func) not in ("Exception", "SystemExit"), path


def test_require_gives_the_module() -> None:
    assert require("json.decoder", "clip") is importlib.import_module("json.decoder")


@pytest.mark.parametrize("module", ["nosuchpackage", "nosuchpackage.part"])
def test_a_missing_package_names_the_extra(module: str) -> None:
    with pytest.raises(MissingExtra) as caught:
        require(module, "clip")
    assert "pip install 'djsandbox-ray[clip]'" in str(caught.value)
    assert repr(module) in str(caught.value)


def test_a_broken_package_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import nosuchpackage")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nosuchpackage"):
        require("half_installed", "clip")


def test_every_extra_that_is_named_exists() -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    extras = set(pyproject["project"]["optional-dependencies"])
    named = {
        call.args[1].value
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("require", "MissingExtra")
        and len(call.args) == 2
        and isinstance(call.args[1], ast.Constant)
    }
    assert named
    assert named <= extras
