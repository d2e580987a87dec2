"""What a job gets from here: this package, the configuration, and the code and files it names.

The package is always shipped, also to nodes that have one installed, so that the code that runs is
the code of the one who submits. Its requirements are not: the nodes have them. The same content is
uploaded once.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import djsandbox_ray
from djsandbox_ray.errors import BadInput
from djsandbox_ray.outside.snapshot import is_left_out

LIMIT = 50 * 2**20
"""Bytes. Every node that works for the job gets all of it; data belong into the storage."""

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
