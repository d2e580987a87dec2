"""Folders of models and word lists that operators name: local ones, or URLs brought to the node."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from djsandbox_ray.identity import canonical
from djsandbox_ray.storage.cache import cached
from djsandbox_ray.storage.store import Storage


def may_be_folder(name: str) -> bool:
    """Say whether a parameter of this name may hold a folder."""
    return name.startswith("hf_") or name.endswith("_dir")


def is_url(name: str, value: Any) -> bool:
    """Say whether a parameter names a folder by a URL."""
    return may_be_folder(name) and isinstance(value, str) and "://" in value


def is_there(path: str | Path) -> bool:
    """Say whether a local file or folder is there; what is too long for a path is not."""
    try:
        return Path(path).exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def names_at(url: str) -> list[str]:
    """Return what lies in the folder that a URL names; nothing if there is none."""
    storage, name = _place(url)
    return storage.names(name)


@contextmanager
def folder_at(url: str) -> Iterator[Path]:
    """Give the folder that a URL names as one of this node.

    Raises:
        BadInput: there is no such folder, or the URL cannot be opened.
    """
    storage, name = _place(url)
    with cached(storage, name) as folder:
        yield folder


@contextmanager
def on_this_node(params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the parameters of an operator with local folders in place of URLs.

    Raises:
        BadInput: as :func:`folder_at`.
    """
    with ExitStack() as held:
        yield {
            name: str(held.enter_context(folder_at(value))) if is_url(name, value) else value
            for name, value in params.items()
        }


def content_digest(root: Path) -> str:
    """Hash a file, or the files of a folder with their relative paths; 32 hex digits."""
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue  # download records and the like, which hold times
        with path.open("rb") as file:
            content = hashlib.file_digest(file, hashlib.blake2b).digest()
        digest.update(canonical([relative.as_posix()]) + content)
    return digest.hexdigest()


def _place(url: str) -> tuple[Storage, str]:
    parent, _, name = url.rstrip("/").rpartition("/")
    return Storage(parent), name
