"""What must not stand in the source: unsafe loading, shells, built code, unchecked servers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import djsandbox_ray
from djsandbox_ray.errors import BadInput
from djsandbox_ray.settings import strict_yaml, yaml_input

ROOT = Path(djsandbox_ray.__file__).parent
PATHS = sorted(ROOT.rglob("*.py"))

PICKLES = {
    # Shards, schemas and errors on their way from the driver to its own tasks and back, by Ray.
    "dataset/fragments.py",
    "dataset/ingest.py",
    "dataset/tasks.py",
    # What Tune has written of an error in its folder on the driver's machine.
    "trials/reporter.py",
}
"""Where something is unpickled: never what lies in a storage or comes from a user."""


def found(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and kind of what must not be there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if kind := _kind(ast.unparse(node.func), words):
                yield node.lineno, kind
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            names = {alias.name for alias in node.names}
            if module in ("pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"):
                yield node.lineno, "unpickling"  # by a name that says nothing
            if module == "os" and names & {"system", "popen"}:
                yield node.lineno, "shell"


def _kind(name: str, words: dict[str, str]) -> str | None:
    """Say what is wrong with a call."""
    owner, _, method = name.rpartition(".")
    if words.get("shell", "False") != "False" or name in (
        "os.system",
        "os.popen",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
    ):
        return "shell"
    if name in ("eval", "exec", "compile", "__import__"):
        return "built code"
    if words.get("verify") == "False" or name.endswith("_create_unverified_context"):
        return "unchecked server"
    if method == "mktemp":
        return "guessable file"
    unpacks = method in ("extractall", "unpack_archive") or (method == "extract" and "tar" in owner)
    if unpacks and words.get("filter") != "'data'":  # which refuses what leads out of the folder
        return "unpacking"
    if owner == "yaml" and (
        method in ("full_load", "unsafe_load", "full_load_all", "unsafe_load_all")
        or (method in ("load", "load_all") and "Safe" not in _loader(words))
    ):
        return "unsafe YAML"
    if owner.endswith("pickle") and method in ("load", "loads", "Unpickler"):
        return "unpickling"
    if name == "torch.load" and words.get("weights_only") != "True":
        return "unpickling"
    if words.get("allow_pickle") == "True" or words.get("trust_remote_code") == "True":
        return "unpickling"
    return None


def _loader(words: dict[str, str]) -> str:
    loader = words.get("Loader", "")
    return "Safe" if loader in STRICT else loader


STRICT = {"_StrictLoader"}
"""Our own loaders; each must be a safe one, which is checked below."""


def test_nothing_unsafe_stands_there() -> None:
    names = {path.relative_to(ROOT).as_posix(): path for path in PATHS}
    problems = [
        f"{name}:{line}: {kind}"
        for name, path in names.items()
        for line, kind in found(path.read_text())
        if not (kind == "unpickling" and name in PICKLES)
    ]
    assert not problems


def test_the_exceptions_are_still_needed_and_the_loader_is_safe() -> None:
    for name in PICKLES:
        assert "unpickling" in {kind for _, kind in found((ROOT / name).read_text())}
    for name in STRICT:
        loader = getattr(strict_yaml, name)
        assert issubclass(loader, yaml.constructor.SafeConstructor)
        assert not issubclass(loader, yaml.constructor.FullConstructor)  # which extends it
    for text in ("!!python/object/apply:os.system [id]", "!!python/name:os.system"):
        with pytest.raises(BadInput, match="not valid YAML"):
            yaml_input.read_value(text, "x")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("yaml.load(text)", "unsafe YAML"),
        ("yaml.load(text, Loader=yaml.Loader)", "unsafe YAML"),
        ("yaml.unsafe_load(text)", "unsafe YAML"),
        ("yaml.load(text, Loader=_StrictLoader)", None),
        ("yaml.safe_load(text)", None),
        ("pickle.loads(data)", "unpickling"),
        ("cloudpickle.load(file)", "unpickling"),
        ("from pickle import loads", "unpickling"),
        ("torch.load(path)", "unpickling"),
        ("torch.load(path, weights_only=False)", "unpickling"),
        ("torch.load(path, weights_only=True)", None),
        ("np.load(path, allow_pickle=True)", "unpickling"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "unpickling"),
        ("subprocess.run(command, shell=True)", "shell"),
        ("subprocess.run(command, shell=flag)", "shell"),
        ("subprocess.run(command)", None),
        ("os.system(command)", "shell"),
        ("from os import system", "shell"),
        ("eval(text)", "built code"),
        ("model.eval()", None),
        ("tempfile.mktemp()", "guessable file"),
        ("requests.get(url, verify=False)", "unchecked server"),
        ("archive.extractall(folder)", "unpacking"),
        ("tar.extract(member)", "unpacking"),
        ("archive.extractall(folder, filter='data')", None),
    ],
)
def test_the_search_finds_them(source: str, kind: str | None) -> None:
    assert [what for _, what in found(source)] == ([kind] if kind else [])
