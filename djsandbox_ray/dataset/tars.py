"""Tars, read to their true end.

``tarfile`` takes a header that it cannot read for the end of the archive, and so do its users. Here
what follows the last member must be an end mark and zeros; else the archive is broken, and it is
counted what can no longer be read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, cast

from djsandbox_ray.dataset.faults import described
from djsandbox_ray.dataset.source_files import MOST_BYTES, SourceFile
from djsandbox_ray.errors import SandboxError

_BLOCK = 512
_MOST_ZEROS = 2 * _BLOCK + 20 * _BLOCK
"""After the last member: the end mark, and what fills the last record of twenty blocks up (POSIX
``tar`` and everyone since). More are what was never written of a file, or was lost."""
_MAGIC, _MAGIC_AT = b"ustar", 257
_PIECE = 1 << 20
_GZIP_COUNTS = 1 << 32
"""The size at the end of a gzip file is modulo this."""

LINKS = "links or devices"
"""What :attr:`Member.other` calls what is neither file nor folder."""

Kind = Callable[[str], str | None]
"""Says of a member's name what it is, or None for what is not to be read."""


@dataclass(frozen=True)
class Member:
    """An entry of a tar."""

    name: str
    """Bytes that are no text are halves of characters, as Python spells file names."""
    data: bytes | None
    """None: not a regular file, not wanted, or more than :data:`~.source_files.MOST_BYTES`."""
    other: str | None = None
    """What it is if it is no regular file: a link, a folder."""


class Broken(Exception):
    """The rest of a tar cannot be read.

    Args:
        detail: what is wrong.
        cut: whether the file ends inside a member: what is missing cannot be seen.
        read: bytes that could be read.
        unread: bytes that could not.
        after: members whose headers were found in these, by kind.
    """

    def __init__(self, detail: str, cut: bool, read: int, unread: int, after: Counter[str]) -> None:
        super().__init__(detail)
        self.cut, self.read, self.unread, self.after = cut, read, unread, after


def read_tar(file: SourceFile, kind: Kind) -> Iterator[Member]:
    """Yield the members of a tar, compressed or not, with the data of those of a kind.

    Raises:
        Broken: after the last member that can be read, if the archive is not at its end.
        SandboxError: disk or network fail.
        MemoryError: there was no room for what it holds.
    """
    with file.open() as handle:
        source = _Source(handle, file.name)
        stream = _Stream(source)
        place, cut, ended = 0, False, False
        try:
            with tarfile.TarFile(
                fileobj=cast("IO[bytes]", stream), encoding="utf-8", errors="surrogateescape"
            ) as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # it would keep all
                    if not place <= member.offset < member.offset_data <= archive.offset:
                        raise tarfile.ReadError(f"a header leads back to byte {archive.offset}")
                    place, cut = member.offset_data, True
                    yield _member(archive, member, kind)
                    # What could not be read whole is found before the next one is looked for.
                    stream.reach(archive.offset)
                    place, cut = archive.offset, False
            ended = stream.at_end_mark
            fault = stream.fault()
        except (SandboxError, MemoryError):
            raise
        except Exception as error:
            if ended:  # of a compressed file: the zeros that ended it may be damage themselves
                unread = stream.unread(error, place)
                raise Broken(described(error), False, place, unread, Counter()) from None
            cut = cut or isinstance(error, EOFError)
            fault = described(error)
        if fault:
            raise stream.broken(fault, place, cut, kind)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, kind: Kind) -> Member:
    if member.islnk() and member.linkname == member.name:  # as GNU's tar has a file given twice
        return Member(member.name, None, "names of members before them")
    if not member.isfile():
        return Member(member.name, None, "folders" if member.isdir() else LINKS)
    if kind(member.name) is None or member.size > MOST_BYTES:
        return Member(member.name, None)
    content = archive.extractfile(member)
    return Member(member.name, b"" if content is None else content.read())


class _Source:
    """A file whose failures are not taken for faults of what it holds."""

    def __init__(self, handle: IO[bytes], name: str) -> None:
        self._handle, self._name = handle, name

    def read(self, size: int = -1) -> bytes:
        return cast("bytes", self._do("read", size))

    def seek(self, place: int, whence: int = 0) -> int:
        return cast("int", self._do("seek", place, whence))

    def tell(self) -> int:
        return self._handle.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def _do(self, what: str, *arguments: int) -> Any:
        try:
            return getattr(self._handle, what)(*arguments)
        except Exception as error:
            raise SandboxError(f"{self._name} cannot be read: {described(error)}") from error


_COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda source: gzip.GzipFile(fileobj=source),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


class _Stream:
    """The bytes of an archive, decompressed; remembers what was read last."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._size = source.seek(0, 2)
        source.seek(0)
        start = source.read(6)
        source.seek(0)
        openers = [how for magic, how in _COMPRESSED.items() if start.startswith(magic)]
        self._compressed = bool(openers)
        self._file = openers[0](source) if openers else source
        self._last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_BYTES:
            raise tarfile.ReadError(f"a header announces {size} bytes")
        self._last = self._file.read(size)
        return self._last

    def seek(self, place: int) -> int:
        if not self._compressed and place > self._size + _BLOCK:
            raise tarfile.ReadError("unexpected end of data")
        return int(self._file.seek(place))

    def tell(self) -> int:
        return int(self._file.tell())

    def reach(self, place: int) -> None:
        """Go to a place that must be there.

        Raises:
            ReadError: the file ends before.
        """
        if place > self.tell():
            self.seek(place - 1)
            if not self.read(1):
                raise tarfile.ReadError("unexpected end of data")

    @property
    def at_end_mark(self) -> bool:
        """Whether what was read last is empty, but there."""
        return bool(self._last) and not any(self._last)

    def fault(self) -> str | None:
        """Say what is wrong with the end, where no further member was found."""
        if not self._last:
            return "its end mark is missing"
        if any(self._last):
            return "the next header is damaged"
        zeros = len(self._last)
        while piece := self.read(_PIECE):
            if any(piece.strip(b"\0")):
                return "there are more data after its end mark"
            zeros += len(piece)
        if zeros > _MOST_ZEROS:
            return (
                f"{zeros} zeros stand at its end, where {_MOST_ZEROS} are usual at most; if it was "
                "written in larger records (tar -b), write it anew without"
            )
        return None

    def broken(self, fault: str, place: int, cut: bool, kind: Kind) -> Broken:
        """Look through what is after a place for the headers of members that are lost."""
        after, end = Counter[str](), place
        try:
            self.seek(place)
            for name, found in self._headers():
                end = found
                if name is not None and (what := kind(name)) is not None:
                    after[what] += 1
            zeros = self.tell() - end
            unread = end - place + (zeros if zeros > _MOST_ZEROS else 0)
        except (SandboxError, MemoryError):
            raise
        except Exception:  # the compressed stream itself is damaged
            unread = max(self._announced() - place, end - place)
        return Broken(fault, cut and not after, place, unread, after)

    def unread(self, error: Exception, place: int) -> int:
        """Return how many bytes after a place an error behind the end mark leaves in doubt.

        None where all is there, and only its length or what follows it is wrong; where a checksum
        of as many bytes as are announced is; or where the file is cut off, with what it announces.
        """
        if isinstance(error, EOFError):
            return 0
        if isinstance(error, gzip.BadGzipFile):
            there = self._decompressed()
            if there % _GZIP_COUNTS == self._last_number() or "CRC" not in str(error):
                return 0
            return max(0, there - place)
        return max(0, self._announced() - place)

    def _decompressed(self) -> int:
        """Return how many bytes a compressed archive holds up to its end, or to what is damaged."""
        self.seek(0)
        with suppress(OSError, EOFError, zlib.error):
            while self.read(_BLOCK):  # of a longer piece, what is whole would be lost
                pass
        return self.tell()

    def _announced(self) -> int:
        """Return how many bytes the damaged archive should have, decompressed."""
        place, done = self.tell(), max(1, self._source.tell())
        by_share = self._size * place // done
        if self._size >= _GZIP_COUNTS // 4:
            return by_share
        said = self._last_number()
        return max(by_share, said) if said <= 100 * self._size else by_share

    def _last_number(self) -> int:
        """Return the last four bytes: of a gzip file, how many it should have, decompressed."""
        self._source.seek(max(0, self._size - 4))
        return int.from_bytes(self._source.read(4), "little")

    def _headers(self) -> Iterator[tuple[str | None, int]]:
        """Yield the names of members in what is left, and up to where there are data."""
        buffer, at, end = b"", 0, self.tell()
        while True:
            found = buffer.find(_MAGIC, at)
            if found < 0 or found - _MAGIC_AT + _BLOCK > len(buffer):
                piece = self.read(_PIECE)
                if not piece:
                    return
                if data := piece.rstrip(b"\0"):
                    end = self.tell() - len(piece) + len(data)
                    yield None, end
                from_here = max(0, found - _MAGIC_AT if found >= 0 else len(buffer) - _BLOCK)
                at = max(0, (found if found >= 0 else len(buffer) - len(_MAGIC)) - from_here)
                buffer = buffer[from_here:] + piece
                continue
            at = found + len(_MAGIC)
            start = found - _MAGIC_AT
            if start < 0:
                continue
            try:
                member = tarfile.TarInfo.frombuf(
                    buffer[start : start + _BLOCK], "utf-8", "surrogateescape"
                )
            except (tarfile.HeaderError, ValueError):
                continue
            if member.isfile():
                yield member.name, end
