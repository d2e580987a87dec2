"""Folders and globs of an object store or a server, which have no links."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Sequence
from glob import escape
from typing import Any, TypeAlias

from djsandbox_ray.dataset import debris as kinds
from djsandbox_ray.dataset.debris import any_case, debris, is_wanted, other_endings, told, unwanted
from djsandbox_ray.dataset.paths import Absent, is_pattern

Infos: TypeAlias = dict[str, dict[str, Any]]
"""Per path, what the filesystem knows of the file."""


class Remote:
    """The search for files in one filesystem.

    Args:
        fs: of fsspec.
        suffixes: endings of files in a folder.
        passed: filled with the names of what is passed over, by what they are.
    """

    def __init__(self, fs: Any, suffixes: tuple[str, ...], passed: dict[str, set[str]]) -> None:
        self._fs = fs
        self._suffixes = suffixes
        self._passed = passed

    def find(self, path: str, inside: str) -> Infos:
        """Return the files that one path stands for.

        Args:
            path: as the user wrote it.
            inside: the path in the filesystem.

        Raises:
            Absent: there is nothing.
        """
        is_folder = self._fs.isdir(inside)
        if not is_folder and self._fs.exists(inside):
            return {inside: self._fs.info(inside)}
        if is_folder:
            infos, nothing = self._below(inside, inside), f"the folder {path!r} holds no file"
            nothing += f" that ends with {' or '.join(self._suffixes)}"
        elif is_pattern(path):
            infos, nothing = self._matching(inside), f"no file matches {path!r}"
        else:
            raise Absent(f"path {path!r} does not exist")
        if not infos:
            besides = f" (passed over: {told(self._passed)})" if self._passed else ""
            raise Absent(f"{nothing}{besides}")
        return infos

    def _below(self, folder: str, root: str) -> Infos:
        below = self._fs.find(folder, detail=True)
        found = {}
        for path, info in below.items():
            name = posixpath.basename(path)
            if self._in_debris(path, folder, (), root) or not name:
                continue
            wanted = is_wanted(name, self._suffixes)
            if not wanted:
                kind = unwanted(name, self._suffixes)
            else:
                kind = debris(name, _beside(path, below))
            if not self._pass(kind, path, root) and wanted:
                found[path] = info
        return found

    def _matching(self, inside: str) -> Infos:
        root, parts = self._literal(inside)
        *around, last = parts
        pattern = "/".join([*map(escape, root), *around, any_case(last, self._suffixes)])
        matched = self._fs.glob(pattern, detail=True)
        at, files = "/".join(root), {}
        for path, info in matched.items():
            if info["type"] == "file" and not self._in_debris(path, at, around, at):
                kind = debris(posixpath.basename(path), _beside(path, matched))
                if debris(last) is not None or not self._pass(kind, path, at):
                    files[path] = info
        for path in other_endings(files, last, self._suffixes):
            self._pass(kinds.OTHER, path, at)
            del files[path]
        for path, info in matched.items():
            if info["type"] != "file" and not self._in_debris(f"{path}/", at, around, at):
                if is_wanted(path, self._suffixes):
                    files |= self._below(path, at)
                elif not any(file.startswith(f"{path}/") for file in files):
                    self._pass(kinds.FOLDER, f"{path}/", at)
        return files

    def _literal(self, inside: str) -> tuple[list[str], list[str]]:
        """Split a pattern into the folders that are there as they are written, and the rest."""
        parts = inside.split("/")
        for index, part in enumerate(parts[:-1]):
            if is_pattern(part) and not self._fs.isdir("/".join(parts[: index + 1])):
                return parts[:index], parts[index:]
        return parts[:-1], parts[-1:]

    def _in_debris(self, path: str, top: str, meant: Sequence[str], root: str) -> bool:
        """Say whether a path leads through a folder that is passed over."""
        folders = path.removeprefix(top).strip("/").split("/")[: None if path[-1] == "/" else -1]
        allowed = {debris(part) for part in meant}
        for index, folder in enumerate(folders):
            kind = debris(folder)
            if kind not in allowed and self._pass(
                kind, f"{posixpath.join(top, *folders[: index + 1])}/", root
            ):
                return True
        return False

    def _pass(self, kind: str | None, path: str, root: str) -> bool:
        """Take down that something is passed over, if it is of a kind that is."""
        if kind is not None:
            self._passed.setdefault(kind, set()).add(path.removeprefix(root).lstrip("/"))
        return kind is not None


def _beside(path: str, there: Collection[str]) -> kinds.Beside:
    folder = posixpath.dirname(path)
    return lambda name: posixpath.join(folder, name) in there
