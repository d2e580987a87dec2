"""DESIGN section 3, read from the source: imports run one way, and modules stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import djsandbox_ray

ROOT = Path(djsandbox_ray.__file__).parent
PACKAGE = "djsandbox_ray"

BASE = {
    "__init__",
    "cache",
    "cluster",
    "errors",
    "filesystems",
    "identity",
    "masking",
    "node_folder",
    "placement",
    "records",
    "registry",
    "resources",
    "room",
    "sections",
    "storage",
    "yaml_input",
}
"""Modules that every tier may import."""
TRACKING_PROTOCOL = f"{PACKAGE}.tracking.tracker"
TOP = {"__main__", "cli", "options", "service", "workflows"}
"""Above the hooks."""
MIDDLE = {"config", "hooks"}
"""Above the capabilities: the config gathers their sections."""
PURE = ["pools", "analysis", "ledger"]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT.parent).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def part(module: str) -> str:
    """Return the package or module right below the root that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


@cache
def imports(module: str) -> frozenset[str]:
    """Return the full names of all modules that a module imports, inside functions too."""
    tree = ast.parse(MODULES[module].read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return frozenset(found)


def called(module: str, function: str) -> Iterator[str]:
    """Yield the first argument of calls such as ``require("torch", ...)``."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(function) and node.args:
            yield ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "?"


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == PACKAGE}


def tier(module: str) -> int:
    """Return how high a module stands; it may import what stands no higher."""
    name = part(module)
    if name in TOP:
        return 3
    if name in MIDDLE:
        return 2
    return 0 if name in BASE or module == TRACKING_PROTOCOL else 1


CAPABILITIES = sorted({part(name) for name in MODULES if tier(name) == 1})


def test_the_source_is_read() -> None:
    assert len(MODULES) > 50
    assert f"{PACKAGE}.pools.cuts" in MODULES
    assert "numpy" in imports(f"{PACKAGE}.pools.cuts")
    assert f"{PACKAGE}.config" in imports(f"{PACKAGE}.hooks.hook")
    assert "ray" in reached("trials")
    assert "torch" in set(called(f"{PACKAGE}.trials.clip.family", "require"))
    assert {"pools", "analysis", "trials", "evaluation", "stats", "dataset"} <= set(CAPABILITIES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    higher = {name for name in ours(module) if tier(name) > tier(module)}
    assert not higher


@pytest.mark.parametrize("module", MODULES)
def test_base_modules_import_base_modules_only(module: str) -> None:
    if tier(module) == 0 and module != TRACKING_PROTOCOL:
        assert {part(name) for name in ours(module)} <= BASE


def test_hooks_do_not_know_each_other() -> None:
    for module in MODULES:
        if part(module) == "hooks" and module != f"{PACKAGE}.hooks":
            others = {name for name in ours(module) if part(name) == "hooks"} - {module}
            shared = {"hook", "plans", "results", "study", "watch", "writing"}
            assert others <= {f"{PACKAGE}.hooks.{name}" for name in shared}, module


def test_capabilities_know_only_the_protocol_of_tracking() -> None:
    for module in MODULES:
        if tier(module) <= 1 and part(module) != "tracking":
            known = {name for name in ours(module) if part(name) == "tracking"}
            assert known <= {TRACKING_PROTOCOL}, module


def test_no_two_packages_need_each_other() -> None:
    needs: dict[str, set[str]] = {}
    for module in MODULES:
        needed = {part(name) for name in ours(module)} - {part(module)}
        needs.setdefault(part(module), set()).update(needed)
    while ready := [name for name, needed in needs.items() if not needed & needs.keys()]:
        for name in ready:
            del needs[name]
    assert not needs, f"circle among {sorted(needs)}"


def reached(package: str) -> set[str]:
    """Return everything that a package imports, and what of ours that imports, and so on."""
    seen: set[str] = set()
    waiting = {name for name in MODULES if part(name) == package}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        if module in MODULES:
            parents = {module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)}
            waiting |= (imports(module) | parents) - seen
    return seen


@pytest.mark.parametrize("package", [name for name in PURE if (ROOT / name).is_dir()])
def test_pure_packages_need_neither_ray_nor_torch(package: str) -> None:
    found = reached(package)
    assert f"{PACKAGE}.errors" in found
    heavy = {"ray", "torch", "open_clip", "transformers", "data_juicer", "mlflow", "lance"}
    assert not {name for name in found if name.split(".")[0] in heavy}
    lazily = {
        name
        for module in found & MODULES.keys()
        if part(module) == package
        for function in ("require", "import_module")
        for name in called(module, function)
    }
    assert not lazily


def test_pure_packages_load_neither_ray_nor_torch() -> None:
    names = [f"{PACKAGE}.{name}" for name in PURE if (ROOT / name).is_dir()]
    code = (
        f"import sys, {', '.join(names)}\n"
        "print(sorted({'ray', 'torch', 'data_juicer', 'mlflow'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


EXTRAS = {"torch", "torchvision", "open_clip", "transformers", "deepspeed", "av", "cv2"}


@pytest.mark.parametrize("module", MODULES)
def test_packages_of_extras_are_never_imported_outright(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] in EXTRAS}


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_small_and_say_what_they_are(module: str) -> None:
    text = MODULES[module].read_text()
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text))
    assert not {"utils", "util", "helpers", "misc", "common"} & set(module.split("."))
