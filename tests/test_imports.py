"""DESIGN section 3, read from the source: imports run one way, and a name means one thing."""

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

BASE = {"__init__", "errors", "identity", "masking", "nodes", "records", "settings", "storage"}
"""What every tier may import."""
TOP = {"__main__", "cli", "notebook", "service", "workflows"}
"""Above the hooks."""
MIDDLE = {"config", "cross_checks", "hooks"}
"""Above the capabilities: the config gathers their sections."""
PURE = ["pools", "analysis", "ledger"]
SHARED_HOOKS = {"conduct", "hook", "made_videos", "plans", "results", "study", "watch", "writing"}
"""What hooks have in common; else they know each other by what they hand on."""
TRACKING_PROTOCOL = f"{PACKAGE}.tracking.tracker"


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
    return 0 if name in BASE else 1


CAPABILITIES = sorted({part(name) for name in MODULES if tier(name) == 1})


def test_the_source_is_read() -> None:
    assert len(MODULES) > 50
    assert f"{PACKAGE}.pools.cuts" in MODULES
    assert "numpy" in imports(f"{PACKAGE}.pools.cuts")
    assert f"{PACKAGE}.config" in imports(f"{PACKAGE}.hooks.hook")
    assert "ray" in reached("trials")
    assert "torch" in set(called(f"{PACKAGE}.trials.clip.family", "require"))
    assert {"pools", "analysis", "trials", "evaluation", "stats", "dataset"} <= set(CAPABILITIES)


def test_imports_run_one_way() -> None:
    higher = {
        (module, name) for module in MODULES for name in ours(module) if tier(name) > tier(module)
    }
    assert not higher


def test_tests_import_public_names() -> None:
    """What a module keeps to itself may change, and no test with it."""
    private = {
        (path.name, alias.name)
        for path in Path(__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    }
    assert not private


def test_hooks_do_not_know_each_other() -> None:
    for module in MODULES:
        if part(module) == "hooks" and module != f"{PACKAGE}.hooks":
            others = {name for name in ours(module) if part(name) == "hooks"} - {module}
            assert others <= {f"{PACKAGE}.hooks.{name}" for name in SHARED_HOOKS}, module


def test_capabilities_know_only_the_protocol_of_tracking() -> None:
    for module in MODULES:
        if tier(module) <= 1 and part(module) != "tracking":
            known = {name for name in ours(module) if part(name) == "tracking"}
            assert known <= {TRACKING_PROTOCOL}, module


def in_circles(needs: dict[str, set[str]]) -> set[str]:
    """Return what needs itself in the end, or something that does."""
    left = dict(needs)
    while ready := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in ready:
            del left[name]
    return set(left)


def test_no_two_modules_or_packages_need_each_other() -> None:
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}
    assert not in_circles({module: ours(module) - {module} for module in MODULES})
    packages: dict[str, set[str]] = {}
    for module in MODULES:
        needed = {part(name) for name in ours(module)} - {part(module)}
        packages.setdefault(part(module), set()).update(needed)
    assert not in_circles(packages)


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


@pytest.mark.parametrize("package", PURE)
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
    names = [name for name in MODULES if part(name) in PURE]
    code = (
        f"import sys, {', '.join(names)}\n"
        "print(sorted({'ray', 'torch', 'data_juicer', 'mlflow'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


EXTRAS = {
    *("torch", "torchvision", "open_clip", "transformers", "diffusers", "peft", "deepspeed"),
    *("av", "cv2"),
}


def test_packages_of_extras_are_never_imported_outright() -> None:
    outright = {
        (module, name)
        for module in MODULES
        for name in imports(module)
        if name.split(".")[0] in EXTRAS
    }
    assert not outright


def test_modules_tell_one_story_each() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert max(lengths.values()) <= 600, max(lengths, key=lengths.__getitem__)
    assert 100 <= sum(lengths.values()) / len(lengths) <= 220, "cut too fine, or too coarse"
    for module, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), module
        assert not {"utils", "util", "helpers", "misc", "common"} & set(module.split("."))


def test_a_class_has_a_name_of_its_own() -> None:
    """``Config`` inside a class is of that class; private ones nobody else reads."""
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert not {name: where for name, where in homes.items() if len(where) > 1}
