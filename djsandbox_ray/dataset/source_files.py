"""Finding the files of a source: paths, folders and globs on any fsspec filesystem.

Neither more nor less is found than is there. On a disk, links are followed, once; hidden files and
what other programs have left are passed over, unless they are named; so is what is reached twice.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar, NamedTuple, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.dataset.debris import PassedOver, told
from djsandbox_ray.dataset.faults import described, is_failing
from djsandbox_ray.dataset.paths import Absent, alternatives, several
from djsandbox_ray.dataset.remote_files import Infos, Remote
from djsandbox_ray.dataset.source import Source, SourceConfig
from djsandbox_ray.dataset.tree import Tree, literal
from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.filesystems import filesystem, reaching

MOST_BYTES = 1 << 30
"""A medium or a text of more bytes is not read: it would fill the memory."""
_BLOCK = 8 << 20
"""Bytes that are read ahead of an object store; ten times as many would mostly be thrown away."""
_THREADS = 16
"""Requests at a time to an object store."""
_NAMED = 5
"""Paths that are named in a message."""


@dataclass(frozen=True)
class SourceFile:
    """A file, with a name that does not depend on where the data lies."""

    fs: Any
    path: str
    name: str
    """Path below the common folder of all files of the source; always Unicode."""
    stamp: dict[str, Any] = field(hash=False)
    """Size and time of the last change. It counts where files are compared: what was read of one
    may be remembered by it."""
    root: str = ""
    """The folder in which what lies beside it may be; empty for its own."""

    def open(self) -> IO[bytes]:
        """Open the file for reading."""
        return cast("IO[bytes]", self.fs.open(self.path, "rb", block_size=_BLOCK))


class Found(NamedTuple):
    """What a path stands for."""

    files: list[SourceFile]
    passed_over: PassedOver
    """What lies there too and is not read."""


class FileSource(Source):
    """A source that consists of files below its ``path``."""

    SUFFIXES: ClassVar[tuple[str, ...]]
    """Endings, in lower case, of the files that are looked for in folders."""

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config)
        self._passed_over: PassedOver = {}
        self._said: tuple[str, ...] = ()
        """What :meth:`shards` has found out: which columns hold what."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings that are looked for."""
        return self.SUFFIXES

    def files(self) -> list[SourceFile]:
        """Find the files; none is opened.

        Raises:
            BadInput: see :func:`discover`.
        """
        found = discover(self.config.path, self.suffixes)
        self._passed_over = found.passed_over
        return found.files

    def passed_over(self) -> PassedOver:
        """Return what the last look at the files has passed over."""
        return self._passed_over

    def found(self) -> tuple[str, ...]:
        """Return what was found out without having been told."""
        return self._said


def find_files(paths: str | tuple[str, ...], suffixes: tuple[str, ...]) -> list[SourceFile]:
    """Return the files of :func:`discover` alone."""
    return discover(paths, suffixes).files


def discover(paths: str | tuple[str, ...], suffixes: tuple[str, ...]) -> Found:
    """Return the files of a path, a folder (searched deeply for ``suffixes``) or a glob.

    One path may name several, with ``::`` between them or with braces. Paths keep their order; the
    files of a folder or glob are sorted by path.

    Args:
        paths: local, or URLs.
        suffixes: endings of files in a folder, in lower case; those of files may be in upper case.

    Raises:
        BadInput: nothing there, no match, a folder that cannot be read, or a file named twice.
    """
    search = _Search(suffixes)
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for path in (paths,) if isinstance(paths, str) else paths:
        for fs, infos in search.under(path):
            for name in sorted(infos):
                if name in found:
                    raise BadInput(f"{name!r} is named twice by path: {paths!r}")
                found[name] = (fs, infos[name])
    if not found:
        raise BadInput(f"path: {paths!r} names no file{search.besides()}")
    try:
        root = posixpath.commonpath([posixpath.dirname(path) for path in found])
    except ValueError as error:
        raise BadInput(f"path: all of {paths!r} must lie on one filesystem") from error
    files = [
        SourceFile(fs, path, _name(path, root), file_stamp(info))
        for path, (fs, info) in found.items()
    ]
    return Found(files, search.passed)


class _Search:
    """The search for the files of one source."""

    def __init__(self, suffixes: tuple[str, ...]) -> None:
        self.passed: dict[str, set[str]] = {}
        self._suffixes = suffixes
        self._tree = Tree(suffixes, self.passed)

    def under(self, path: str) -> list[tuple[Any, Infos]]:
        """Return the files of one entry of ``path``, per pattern in it."""
        if "\0" in path:
            raise BadInput(f"path {path!r}: no path holds a zero byte")
        sources = [path] if _is_here(path) else several(path)
        return [match for source in sources for match in self._source(source)]

    def besides(self) -> str:
        """Say what there is beside what was looked for."""
        return f" (passed over: {told(self.passed)})" if self.passed else ""

    def _source(self, source: str) -> list[tuple[Any, Infos]]:
        patterns = _patterns(source)
        if len(patterns) == 1:
            return [self._match(patterns[0])]
        with ThreadPoolExecutor(1 if _is_local(source) else _THREADS) as threads:
            tried = list(threads.map(self._tried, patterns))
        if absent := [one for one in tried if isinstance(one, Absent)]:
            named = "; ".join(str(one) for one in absent[:_NAMED])
            more = "; ..." if len(absent) > _NAMED else ""
            raise Absent(f"{len(absent)} of the {len(tried)} paths of {source!r}: {named}{more}")
        return [one for one in tried if not isinstance(one, Absent)]

    def _tried(self, pattern: str) -> tuple[Any, Infos] | Absent:
        try:
            return self._match(pattern)
        except Absent as error:
            return error

    def _match(self, pattern: str) -> tuple[Any, Infos]:
        fs, inside = opened(pattern)
        with _asking(pattern):
            if isinstance(fs, LocalFileSystem):
                return fs, _infos(fs, pattern, self._tree.find(pattern, inside))
            return fs, Remote(fs, self._suffixes, self.passed).find(pattern, inside)


def _infos(fs: Any, pattern: str, paths: list[str]) -> Infos:
    try:
        return {path: fs.info(path) for path in paths}
    except OSError as error:  # gone, or out of reach, since it was found
        raise BadInput(f"path {pattern!r} cannot be read: {error}") from error


def _patterns(source: str) -> list[str]:
    """Return what braces stand for, unless they are a part of names that are there."""
    if "{" not in source:
        return [source]
    if _is_local(source):
        there, rest = literal(posixpath.expanduser(source))
        return [f"{there}{one}" for one in alternatives(rest)]
    fs, inside = opened(source)
    with _asking(source):
        return [source] if fs.exists(inside) else alternatives(source)


@contextmanager
def _asking(path: str) -> Iterator[None]:
    """Say what is wrong with an address that its filesystem cannot use; each has its own errors."""
    try:
        with reaching(path):
            yield
    except (SandboxError, MemoryError):
        raise
    except Exception as error:
        said = f"path {path!r} cannot be read: {described(error)}"
        kind = StorageFailed if is_failing(error) else BadInput
        raise kind(without_secrets(said)) from None


def _is_local(path: str) -> bool:
    return "://" not in path and "::" not in path


def _is_here(path: str) -> bool:
    """Say whether a local path exists as it is written, whatever signs are in its names."""
    return "://" not in path and posixpath.lexists(posixpath.expanduser(path))


def opened(path: str) -> tuple[Any, str]:
    """Return the filesystem of a path, and the path there.

    Raises:
        BadInput: nothing like it can be opened.
    """
    if _is_here(path):  # its signs mean nothing to fsspec
        return fsspec.filesystem("file"), posixpath.abspath(posixpath.expanduser(path))
    try:
        return filesystem(path)
    except BadInput as error:
        raise BadInput(f"path {error}") from None


def uri_of(fs: Any, path: str) -> str:
    """Return a path of a filesystem as :func:`opened` takes it."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _name(path: str, root: str) -> str:
    # A signed address ends with its signature: a secret, and another one tomorrow.
    name = without_secrets(posixpath.relpath(path, root or "."), environment=False)
    # Bytes of a disk that are no Unicode are shown as \\xe9: names go into ids and tables.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_stamp(info: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a file from what it becomes, of all that its filesystem says of it."""
    # Filesystems name the time of the last change differently; object stores also have a hash.
    keys = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag")
    return {"size": info.get("size"), **{key: str(info[key]) for key in keys if key in info}}
