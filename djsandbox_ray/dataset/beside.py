"""Images and videos that lie beside the file that names them, by paths relative to it."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from os.path import realpath
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.dataset.faults import (
    Unusable,
    described,
    is_about_one_file,
    is_failing,
    shown,
)
from djsandbox_ray.dataset.media import Kind, Media, Place
from djsandbox_ray.dataset.source_files import MOST_BYTES, SourceFile, opened, uri_of
from djsandbox_ray.errors import BadInput, SandboxError


def placed(file: SourceFile, folder: str, key: str = "images") -> SourceFile:
    """Return a file as if it lay in another folder, where its media are.

    Args:
        file: that names them.
        folder: where they are.
        key: of the configuration, which says so.

    Raises:
        BadInput: there is no such folder.
    """
    fs, inside = opened(folder)
    if isinstance(fs, LocalFileSystem) and not Path(inside).is_dir():
        raise BadInput(f"{key}: {folder!r} is no folder")
    return replace(file, fs=fs, path=posixpath.join(inside, posixpath.basename(file.path)))


def read_beside(file: SourceFile, path: str, kind: Kind = "image") -> bytes:
    """Read a file by a path that stands in another one.

    Args:
        file: the one with the path.
        path: relative to the folder of ``file``; it stays inside it, or inside the file's root.
        kind: what is to lie there.

    Raises:
        Unusable: the path leads out of the folder, to no file, or is none.
        SandboxError: disk or network fail.
    """
    local = isinstance(file.fs, LocalFileSystem)
    try:
        full = _inside(file, path, local)
        if local and not Path(full).is_file():  # a pipe would never end
            raise Unusable(f"missing_{kind}", f"{shown(path)}: there is no such file")
        if local:
            refuse_large(path, Path(full).stat().st_size, kind)
        return bytes(file.fs.cat_file(full))
    except (OSError, ValueError) as error:
        if is_failing(error):
            raise SandboxError(f"{shown(path)} beside {file.name}: {described(error)}") from error
        if path.startswith("data:"):
            said = f"a path is needed, not the {kind} itself"
        elif isinstance(error, FileNotFoundError | IsADirectoryError):
            said = "there is no such file"
        else:
            said = described(error).replace(path, "...")
        raise Unusable(f"missing_{kind}", f"{shown(path)}: {said}") from None
    except Exception as error:  # of a client of an object store
        if isinstance(error, Unusable):
            raise
        if is_about_one_file(error):
            said = f"{shown(path)}: its server refuses it"
            raise Unusable(f"missing_{kind}", said) from None
        raise SandboxError(f"{shown(path)} beside {file.name}: {described(error)}") from error


def refuse_large(name: str, size: int, kind: Kind) -> None:
    """Refuse a file that would fill the memory, before it is read.

    Args:
        name: of it, for the message.
        size: in bytes.
        kind: what it is to be.

    Raises:
        Unusable: it is larger than any medium.
    """
    if size > MOST_BYTES:
        reason = "bad_image" if kind == "image" else "too_large"
        raise Unusable(
            reason, f"{shown(name)} has {size} bytes; no more than {MOST_BYTES} are read"
        )


def medium_beside(file: SourceFile, path: str, kind: Kind) -> Media:
    """Read a medium by a path that stands in another file; it says where it lies.

    Raises:
        Unusable: see :func:`read_beside`.
        SandboxError: disk or network fail.
    """
    data = read_beside(file, path, kind)
    full = joined(posixpath.dirname(file.path), path)
    inside = posixpath.relpath(full, posixpath.dirname(file.path) or "/")
    name = posixpath.normpath(posixpath.join(posixpath.dirname(file.name), inside))
    return Media(kind, data, Place(uri_of(file.fs, full), name))


def joined(folder: str, path: str) -> str:
    """Return a path below a folder, without detours; the paths of HTTP begin with its scheme."""
    scheme, slashes, below = folder.rpartition("://")
    return f"{scheme}{slashes}{posixpath.normpath(posixpath.join(below, path))}"


def _inside(file: SourceFile, path: str, local: bool) -> str:
    """Resolve a path against the folder of the file; raises where it leads out of the root."""
    folder = posixpath.dirname(file.path)
    root = file.root or folder
    full = joined(folder, path)
    inside = full.startswith(root.rstrip("/") + "/")
    if inside and local:  # a link may lead out all the same
        # Unlike ``Path.resolve``, which fails at a link that leads to itself.
        inside = Path(realpath(full)).is_relative_to(realpath(root))
    if not inside:
        where = f"of {shown(root)}" if file.root else "of the file's folder"
        raise Unusable("escaping_path", f"{shown(path)} leads out {where}")
    return full


def rooted(file: SourceFile, folder: str) -> SourceFile:
    """Return a file of which media may lie anywhere in a folder; paths stay relative to the file.

    Args:
        file: that names them.
        folder: local or a URL; the file lies in it, too.

    Raises:
        BadInput: there is no such folder, or the file is not in it.
    """
    fs, inside = opened(folder)
    root = inside.rstrip("/")
    if isinstance(fs, LocalFileSystem):
        if not Path(root).is_dir():
            raise BadInput(f"media_root: {folder!r} is no folder")
        root = str(Path(root).resolve())
        file = replace(file, path=str(Path(file.path).resolve()))
    if not file.path.startswith(f"{root}/"):
        raise BadInput(f"media_root: {file.name} does not lie in {folder!r}")
    return replace(file, root=root)
