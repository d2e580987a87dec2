"""Folders and globs on a disk, with links: each folder is entered once and each file taken once.

What is no link comes before what is one: links never change what is found without them.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from djsandbox_ray.dataset import debris as kinds
from djsandbox_ray.dataset.debris import any_case, debris, is_wanted, other_endings, told, unwanted
from djsandbox_ray.dataset.paths import Absent, is_pattern
from djsandbox_ray.errors import BadInput


def literal(path: str) -> tuple[str, str]:
    """Split a path into what exists as it is written, as far as folders, and the rest."""
    if posixpath.lexists(path):
        return path, ""
    there = "/" if path.startswith("/") else ""
    parts = path.removeprefix("/").split("/")
    for index, part in enumerate(parts):
        if not posixpath.isdir(f"{there}{part}"):
            return there, "/".join(parts[index:])
        there += f"{part}/"
    return there, ""


class Tree:
    """The search for the files of one source on disks.

    Args:
        suffixes: endings of files in a folder.
        passed: filled with the names of what is passed over, by what they are.
    """

    def __init__(self, suffixes: tuple[str, ...], passed: dict[str, set[str]]) -> None:
        self._suffixes = suffixes
        self._passed = passed
        self._taken: dict[str, str] = {}  # per file as the disk knows it, the path it has here

    def find(self, path: str, inside: str) -> list[str]:
        """Return the paths of the files that one path stands for.

        Args:
            path: as the user wrote it, for messages.
            inside: the same, absolute.

        Raises:
            Absent: there is nothing.
            BadInput: a folder cannot be read, or the path could mean two things.
        """
        try:
            return self._find(path, inside)
        except OSError as error:
            what = f"{error.filename!r}: " if error.filename not in (None, path, inside) else ""
            raise BadInput(f"path {path!r} cannot be read: {what}{error.strerror}") from error

    def _find(self, path: str, inside: str) -> list[str]:
        around, last = posixpath.split(inside)
        if is_pattern(last) and posixpath.lexists(inside):
            list(self._children(around, last, False, around))  # says what else it could mean
        if posixpath.isdir(inside):
            if not (found := self._below(inside, inside)):
                endings = " or ".join(self._suffixes)
                raise Absent(
                    f"the folder {path!r} holds no file that ends with {endings}{self._besides()}"
                )
            return found
        if posixpath.lexists(inside):
            return [self._named(path, inside)]
        if not is_pattern(inside):
            raise Absent(f"path {path!r} does not exist")
        root, pattern = literal(inside)
        if not (found := self._globbed(root, pattern, path.endswith("/"))):
            raise Absent(f"no file matches {path!r}{self._besides()}")
        return found

    def _named(self, path: str, inside: str) -> str:
        if not posixpath.exists(inside):
            target = str(Path(inside).readlink())
            raise Absent(f"path {path!r} is a link to {target!r}, which does not exist")
        if not posixpath.isfile(inside):
            raise BadInput(f"path {path!r} is neither a file nor a folder")
        if (same := self._taken.setdefault(posixpath.realpath(inside), inside)) != inside:
            raise BadInput(f"path {path!r} is the same file as {same!r}: it is named twice")
        return inside

    def _below(self, top: str, root: str) -> list[str]:
        """Return the wanted files below a folder, in no order."""
        found = []
        for path in self._walk(top, root)[1]:
            if is_wanted(path, self._suffixes):
                kind = debris(posixpath.basename(path), _beside(path))
                found += [] if self._pass(kind, path, root) else [path]
            else:
                self._pass(unwanted(posixpath.basename(path), self._suffixes), path, root)
        return self._once(found, root)

    def _globbed(self, root: str, pattern: str, into_folders: bool) -> list[str]:
        """Return the files that a pattern below a folder stands for."""
        parts = [part for part in pattern.split("/") if part]
        matched = list(dict.fromkeys(self._matches(root, parts, root)))
        folders = [path for path in matched if posixpath.isdir(path)]
        found = [path for path in matched if path not in set(folders)]
        other = other_endings(found, pattern, self._suffixes)
        for path in other:
            self._pass(kinds.OTHER, path, root)
        files = self._once((path for path in found if path not in other), root)
        for folder in folders:
            if into_folders or is_wanted(folder, self._suffixes):
                files += self._below(folder, root)
            elif not any(file.startswith(f"{folder}/") for file in files):
                self._pass(kinds.FOLDER, f"{folder}/", root)
        return list(dict.fromkeys(files))

    def _matches(self, folder: str, parts: list[str], root: str) -> Iterator[str]:
        """Yield all paths that the parts of a pattern stand for below a folder."""
        if not parts:
            yield folder
        elif posixpath.isdir(folder):
            part, *rest = parts
            if part == "**":
                folders, files = self._walk(folder, root)
                yield from self._visible(files, root) if not rest else ()
                for inner in folders if rest else ():
                    yield from self._matches(inner, rest, root)
            elif is_pattern(part):
                for name in self._children(folder, part, bool(rest), root):
                    yield from self._matches(posixpath.join(folder, name), rest, root)
            elif posixpath.lexists(path := posixpath.join(folder, part)):
                yield from self._matches(path, rest, root)

    def _visible(self, files: Iterable[str], root: str) -> Iterator[str]:
        for path in files:
            if not self._pass(debris(posixpath.basename(path), _beside(path)), path, root):
                yield path

    def _children(self, folder: str, part: str, inner: bool, root: str) -> Iterator[str]:
        """Yield the names in a folder that a part of a pattern stands for.

        Args:
            folder: where.
            part: of the pattern.
            inner: whether more parts follow: only folders count.
            root: of the whole pattern.
        """
        names = sorted(entry.name for entry in os.scandir(folder))
        pattern = part if inner else any_case(part, self._suffixes)
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if inner:
            matched = [name for name in matched if posixpath.isdir(posixpath.join(folder, name))]
        if part in names:
            matched = self._literal(folder, part, matched, root)
        for name in matched:
            path = posixpath.join(folder, name)
            # Who writes a pattern of hidden files means them.
            kind = debris(name, _beside(path)) if debris(part) is None else None
            if not self._pass(kind, f"{path}/" if posixpath.isdir(path) else path, root):
                yield name

    def _literal(self, folder: str, part: str, matched: list[str], root: str) -> list[str]:
        """Decide for what is named just like the pattern."""
        others = [name for name in matched if name != part]
        path = posixpath.join(folder, part)
        if part in matched and others and not posixpath.isdir(path):
            raise BadInput(
                f"{path!r} is a file, and a pattern that {len(others)} more names match, such as "
                f"{others[0]!r}: rename the file"
            )
        for name in others:
            self._pass(kinds.MATCH, posixpath.join(folder, name), root)
        return [part]

    def _walk(self, top: str, root: str) -> tuple[list[str], list[str]]:
        """Return all folders below one, itself first, and all files in them; links come last."""
        folders: list[str] = []
        files: list[str] = []
        links: list[str] = []
        entered: set[str] = set()
        pending = [top]
        while pending or links:
            links.sort()
            is_link = not pending
            folder = links.pop(0) if is_link else pending.pop()
            real = posixpath.realpath(folder)
            if is_link and _surrounds(real, (top, posixpath.dirname(folder))):
                self._pass(kinds.LOOP, f"{folder}/", root)
            elif real in entered:
                self._pass(kinds.TWICE, f"{folder}/", root)
            else:
                entered.add(real)
                folders.append(folder)
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                    path, linked = posixpath.join(folder, entry.name), entry.is_symlink()
                    if linked and not posixpath.exists(path):
                        self._pass(None if debris(entry.name) else kinds.DANGLING, path, root)
                    elif not posixpath.isdir(path) if linked else not entry.is_dir():
                        files.append(path)
                    elif not self._pass(debris(entry.name), f"{path}/", root):
                        (links if linked else pending).append(path)
        return folders, files

    def _once(self, paths: Iterable[str], root: str) -> list[str]:
        """Return the files that are there and were not reached on another way."""
        real_root, found = posixpath.realpath(root), []
        real = {path: posixpath.realpath(path) for path in paths}
        direct = {path: real[path] == _join(real_root, path, root) for path in real}
        for path in sorted(real, key=lambda path: (not direct[path], path)):
            if not posixpath.exists(path):
                self._pass(kinds.DANGLING, path, root)
            elif not posixpath.isfile(path):
                self._pass(kinds.SPECIAL, path, root)
            elif self._taken.setdefault(real[path], path) != path:
                self._pass(kinds.TWICE, path, root)
            else:
                found.append(path)
        return found

    def _pass(self, kind: str | None, path: str, root: str) -> bool:
        """Take down that something is passed over, if it is of a kind that is."""
        if kind is not None:
            slash = "/" if path.endswith("/") else ""
            self._passed.setdefault(kind, set()).add(posixpath.relpath(path, root) + slash)
        return kind is not None

    def _besides(self) -> str:
        return f" (passed over: {told(self._passed)})" if self._passed else ""


def _beside(path: str) -> kinds.Beside:
    folder = posixpath.dirname(path)
    return lambda name: posixpath.lexists(posixpath.join(folder, name))


def _surrounds(folder: str, others: Iterable[str]) -> bool:
    """Say whether a folder is one of the others, or around one."""
    inner = (posixpath.realpath(other) for other in others)
    return any(f"{one}/".startswith(f"{folder.rstrip('/')}/") for one in inner)


def _join(real_root: str, path: str, root: str) -> str:
    return posixpath.normpath(posixpath.join(real_root, posixpath.relpath(path, root)))
