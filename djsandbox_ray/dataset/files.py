"""Finding the files of a source: paths, folders and globs on any fsspec filesystem."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import IO, Any, cast

from djsandbox_ray.errors import BadInput
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.filesystems import filesystem, reaching

_BLOCK = 8 << 20
"""Bytes that are read ahead of an object store; ten times as many would mostly be thrown away."""


@dataclass(frozen=True)
class SourceFile:
    """A file, with a name that does not depend on where the data lies."""

    fs: Any
    path: str
    name: str
    """Path below the common folder of all files of the source."""
    stamp: dict[str, Any]
    """Size and time of the last change."""

    def open(self) -> IO[bytes]:
        """Open the file for reading."""
        return cast("IO[bytes]", self.fs.open(self.path, "rb", block_size=_BLOCK))


def find_files(paths: str | tuple[str, ...], suffixes: tuple[str, ...]) -> list[SourceFile]:
    """Return the files of a path, a folder (searched deeply for ``suffixes``) or a glob.

    Several paths keep their order; the files of a folder or glob are sorted by path.

    Raises:
        BadInput: nothing there, no match, or a file named twice.
    """
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for path in (paths,) if isinstance(paths, str) else paths:
        fs, infos = _match(path, suffixes)
        for name in sorted(infos):
            if name in found:
                raise BadInput(f"{name!r} is named twice by path: {paths!r}")
            found[name] = (fs, infos[name])
    if not found:
        raise BadInput(f"path: {paths!r} names no file")
    try:
        root = posixpath.commonpath([posixpath.dirname(path) for path in found])
    except ValueError as error:
        raise BadInput(f"path: all of {paths!r} must lie on one filesystem") from error
    return [
        SourceFile(fs, path, _name(path, root), _stamp(info)) for path, (fs, info) in found.items()
    ]


def _match(path: str, suffixes: tuple[str, ...]) -> tuple[Any, dict[str, dict[str, Any]]]:
    try:
        fs, inside = filesystem(path)
    except BadInput as error:
        raise BadInput(f"path {error}") from None
    with reaching(path):
        return fs, _found(fs, path, inside, suffixes)


def _found(fs: Any, path: str, inside: str, suffixes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    if fs.exists(inside) and not fs.isdir(inside):
        return {inside: fs.info(inside)}
    if fs.isdir(inside):
        below = fs.find(inside, detail=True)
        infos = {name: info for name, info in below.items() if name.endswith(suffixes)}
        if not infos:
            raise BadInput(f"the folder {path!r} holds no file that ends with {_either(suffixes)}")
        return infos
    if not any(sign in path for sign in "*?["):
        raise BadInput(f"path {path!r} does not exist")
    matched = fs.glob(inside, detail=True)
    infos = {name: info for name, info in matched.items() if info["type"] == "file"}
    if not infos:
        raise BadInput(f"no file matches {path!r}")
    return infos


def _name(path: str, root: str) -> str:
    # A signed address ends with its signature: a secret, and another one tomorrow.
    return without_secrets(posixpath.relpath(path, root or "."), environment=False)


def _stamp(info: dict[str, Any]) -> dict[str, Any]:
    # Filesystems name the time of the last change differently; object stores also have a hash.
    keys = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag")
    return {"size": info.get("size"), **{key: str(info[key]) for key in keys if key in info}}


def _either(suffixes: tuple[str, ...]) -> str:
    return " or ".join(suffixes)
