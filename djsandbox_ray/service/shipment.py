"""What a job gets from here: this package, the configuration, and the code and files it names.

The package is always shipped, also to nodes that have one installed, so that the code that runs is
the code of the one who submits. Its requirements are not: the nodes have them. The same content is
uploaded once.

Of the paths that a configuration names, whatever is absolute or a URL must be there for the nodes.
Relative paths are relative to the working folder here, which nodes do not see: small files such as
a workflow or an architecture are shipped, data and models are not.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import yaml

import djsandbox_ray
from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput
from djsandbox_ray.outside.program import is_left_out
from djsandbox_ray.workflows.language.workflow import continued_files

LIMIT = 50 * 2**20
"""Bytes. Every node that works for the job gets all of it; data belong into the storage."""

Leaf = tuple[tuple[str | int, ...], str]
"""A text of the configuration, with its place."""

_NO_PATHS = frozenset({"name", "type", "storage", "experiment", "uri", "score", "metric"})
_PATHS = frozenset({"files", "requirements"})
"""Keys whose values are paths even where they look like words."""
_MODELS = "hf_"
"""Keys that begin so name models: a folder, or a name of the Hugging Face hub."""
_PACKAGE = Path(djsandbox_ray.__file__).resolve().parent
_LARGEST = 3


@dataclass(frozen=True)
class Shipment:
    """A staging folder that becomes the job's working folder on every node."""

    folder: Path
    config: str
    """The configuration in it, with all replacements in place."""
    shipped: tuple[str, ...]
    """What it holds beside this package and the configuration."""
    size: int
    """Bytes, before compression."""

    def __str__(self) -> str:
        others = "".join(f", {name}" for name in self.shipped)
        return (
            f"djsandbox_ray {djsandbox_ray.__version__}, {self.config}{others} "
            f"({self.size / 2**20:.1f} MB)"
        )


def pack(
    folder: Path, document: dict[str, Any], config: str, named: Sequence[str], limit: int = LIMIT
) -> Shipment:
    """Gather what a job needs.

    Args:
        folder: an empty one.
        document: the configuration.
        config: the file it was read from.
        named: files and folders of the working folder that it names.
        limit: bytes.

    Raises:
        BadInput: it is more than ``limit``; names what is largest.
    """
    own = [*_modules(), *named]
    sources = {f"{_PACKAGE.name}/{file.relative_to(_PACKAGE)}": file for file in _files(_PACKAGE)}
    for name in own:
        here = Path(name)
        inside = [here] if here.is_file() else _files(here)
        sources |= {file.as_posix(): file for file in inside}
    _check_size(sources, limit)
    for name, source in sources.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)  # what can be executed here can be there
    kept = _place(config)
    (folder / kept).parent.mkdir(parents=True, exist_ok=True)
    (folder / kept).write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    size = sum(file.stat().st_size for file in _files(folder))
    return Shipment(folder, kept, tuple(sorted(set(own))), size)


def _modules() -> list[str]:
    """Return the user's code: modules in the working folder, and packages that were imported.

    Checking the configuration has imported every ``package.module:Class`` that it names.
    """
    here = Path.cwd().resolve()
    found = {path.name for path in here.glob("*.py")}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not Path(file).is_absolute():
            continue  # none, or an invented name, as torch's own "_ops.py"
        if not (path := Path(file).resolve()).is_relative_to(here):
            continue
        parts = path.relative_to(here).parts
        if not any(map(is_left_out, parts)) and not path.is_relative_to(_PACKAGE):
            found.add(parts[0])
    return sorted(found)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that may be shipped: nothing hidden, nothing compiled."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        for name in sorted(names):
            if not is_left_out(name):
                yield Path(root) / name


def _check_size(sources: dict[str, Path], limit: int) -> None:
    sizes = {name: source.stat().st_size for name, source in sources.items()}
    if (size := sum(sizes.values())) <= limit:
        return
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:_LARGEST]
    listed = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MB)" for name in largest)
    raise BadInput(
        f"{size / 2**20:.1f} MB are to be shipped with the job, {limit / 2**20:.0f} MB at most; "
        f"the largest: {listed}; data belong where all nodes see them"
    )


def _place(config: str) -> str:
    """Return where the configuration lies in the shipment: as here, or at its top."""
    path = Path(os.path.normpath(config))
    inside = not path.is_absolute() and ".." not in path.parts
    return path.as_posix() if inside else path.name


def named_files(document: dict[str, Any], config: RunConfig) -> tuple[list[str], list[str]]:
    """Return the relative paths to ship, and what is wrong, one line per key.

    Args:
        document: the configuration as it was read.
        config: the same, checked.
    """
    shipped: list[str] = []
    wrong = _storage_problems(config) + _cluster_problems(config)
    for place, text in _leaves(document, ()):
        if not _is_relative(place, text):
            continue
        where = _text(place)
        if not Path(text).exists() and _key(place) != "path":
            continue  # a word with a dot or a slash; if it is a path, reading it is an error
        if _is_data(place):
            wrong.append(
                f"{where}: {text!r} is relative, and the nodes do not see this folder; give a URL "
                "or an absolute path that all nodes see"
            )
        elif os.path.normpath(text).startswith(".."):
            wrong.append(f"{where}: {text!r} lies outside the working folder")
        else:
            shipped.append(os.path.normpath(text))
    with suppress(BadInput):  # said by whoever checks the workflow
        for text in filter(partial(_is_relative, ("workflow",)), continued_files(config.workflow)):
            if text.startswith(".."):
                wrong.append(f"workflow: {text!r}, which it continues, lies outside the folder")
            else:
                shipped.append(text)
    return sorted(set(shipped)), wrong


def _storage_problems(config: RunConfig) -> list[str]:
    if "://" in config.storage or "::" in config.storage or PurePath(config.storage).is_absolute():
        return []
    return [
        f"storage: {config.storage!r} is relative: every node would have its own; give a URL "
        "(s3://bucket/prefix) or an absolute path that all nodes share, here or with --storage"
    ]


def _cluster_problems(config: RunConfig) -> list[str]:
    found = []
    if config.cluster.cpus is not None:
        found.append("cluster.cpus: is for a new local cluster; a job uses the one it is given to")
    if config.cluster.dashboard:
        found.append("cluster.dashboard: is for a new local cluster; this one has its own")
    if config.cluster.address not in (None, "auto"):
        found.append("cluster.address: a job uses the cluster it is given to; leave the key out")
    return found


def _leaves(value: Any, place: tuple[str | int, ...]) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*place, index))
    elif isinstance(value, str):
        yield place, value


def _key(place: tuple[str | int, ...]) -> str:
    return next((key for key in reversed(place) if isinstance(key, str)), "")


def _is_relative(place: tuple[str | int, ...], text: str) -> bool:
    key = _key(place)
    if key in _NO_PATHS or "://" in text or "${" in text or not 0 < len(text) < 4096:
        return False
    if PurePath(text).is_absolute():
        return False
    always = key == "path" or key in _PATHS or key.startswith(_MODELS)
    return always or "/" in text or bool(PurePath(text).suffix)


def _is_data(place: tuple[str | int, ...]) -> bool:
    return place[0] == "operators" or _key(place) == "path"


def _text(place: tuple[str | int, ...]) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return "".join(parts).removeprefix(".")
