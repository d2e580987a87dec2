"""Folders with models of transformers: what is in them, how they are had, and what is read of them.

A folder may lie anywhere that a storage reaches. Only its own files of known kinds are read, and
weights from safetensors alone. A pipeline of diffusers is a folder of such folders.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput, SandboxError, unknown
from djsandbox_ray.identity import content_id
from djsandbox_ray.storage.cache import cached
from djsandbox_ray.storage.seals import Seal
from djsandbox_ray.storage.store import Storage

_CONTENTS: dict[str, dict[str, Any]] = {}
_READ = (".json", ".safetensors", ".model", ".txt", ".jinja")
"""Files of a model's folder that are read."""


def folder_content(url: str, nested: bool = False) -> dict[str, Any]:
    """Return size and digest of every file of a model's folder, by name.

    Args:
        url: of the folder.
        nested: whether it is a folder of folders; a name then is the path below it.

    Raises:
        BadInput: there is no such folder, or it has no weights as safetensors.
    """
    storage, name = _place(url)
    key = content_id("folder", url, storage.stamps(name))
    if key not in _CONTENTS:
        with cached(storage, name) as folder:
            _CONTENTS[key] = {
                file.relative_to(folder).as_posix(): Seal.of_file(file, sys.maxsize).plain
                for file in _files(folder, url, nested)
            }
    return _CONTENTS[key]


def is_there(url: str) -> bool:
    """Say whether there is anything in a model's folder."""
    storage, name = _place(url)
    return bool(storage.names(name))


def local_folder(url: str) -> AbstractContextManager[Path]:
    """Give a folder or URL with a model as a local folder, to be read only."""
    storage, name = _place(url)
    return cached(storage, name)


def made_base(base: str | None) -> AbstractContextManager[Path]:
    """Give the folder of a base, as trials are told of it, as a local one.

    Raises:
        SandboxError: there is none.
    """
    if base is None:
        raise SandboxError("the model has a base, but nobody has made it")
    return local_folder(base)


def read_file(url: str, name: str) -> bytes | None:
    """Return a file below a model's folder, without the others being brought; None without any."""
    storage, folder = _place(url)
    try:
        return storage.read_bytes(f"{folder}/{name}")
    except FileNotFoundError:
        return None


def copy_model(source: Path, target: Path, nested: bool = False) -> None:
    """Copy what is read of a model's folder.

    Args:
        source: a local folder.
        target: an existing one.
        nested: see :func:`folder_content`.

    Raises:
        BadInput: it has no weights as safetensors.
    """
    for file in _files(source, str(source), nested):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def shipped_arch(package: str, name: str) -> dict[str, Any]:
    """Return a small architecture of a base that a package has in its folder ``archs``.

    Raises:
        BadInput: there is none of that name.
    """
    archs = resources.files(package) / "archs"
    known = sorted(entry.name.removesuffix(".json") for entry in archs.iterdir())
    if name not in known:
        raise unknown("base", name, known)
    return dict(json.loads((archs / f"{name}.json").read_text()))


def without_dropout(config: Any) -> None:
    """Set every chance of dropout in a configuration of transformers to 0, its inner ones too."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "model_type"):
            without_dropout(value)
        elif "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _files(folder: Path, url: str, nested: bool = False) -> list[Path]:
    if not folder.is_dir():
        raise BadInput(f"{url}: there is no such folder")
    found = folder.rglob("*") if nested else folder.iterdir()
    files = sorted(path for path in found if path.suffix in _READ and path.is_file())
    if not any(file.suffix == ".safetensors" for file in files):
        raise BadInput(f"{url}: there are no weights as safetensors")
    return files


def _place(url: str) -> tuple[Storage, str]:
    parent, _, name = url.rstrip("/").rpartition("/")
    return Storage(parent or ("/" if url.startswith("/") else ".")), name
