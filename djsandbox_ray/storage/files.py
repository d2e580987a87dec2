"""Where artifacts live: one folder or bucket, reached through fsspec, written atomically.

Paths inside a storage are relative, with ``/``; records hold only such paths, so that a storage
can be moved. A storage that is full, read-only or gone has failed, and says so in one sentence.

An object store has no folders: a folder is there as long as something lies below it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.errors import BadInput, StorageFailed
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.filesystems import (
    filesystem,
    has_buckets,
    reaching,
    storage_failure,
)
from djsandbox_ray.storage.half_written import SUFFIX, written
from djsandbox_ray.storage.own import erase, temporary
from djsandbox_ray.storage.seals import DIGESTED_BYTES, Seal

_REMOVALS = 5
"""How often a removal is begun anew, as others have written there meanwhile."""
_STAMPS = ("size", "mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag")
"""What filesystems call the size, time and hash of a file."""


class Files:
    """A root URL and the files below it, whatever they hold.

    Args:
        url: a local folder (made absolute) or any URL that fsspec knows (``s3://bucket/prefix``).
    """

    def __init__(self, url: str) -> None:
        try:
            self._fs, root = filesystem(url)
        except BadInput as error:
            raise BadInput(f"storage {error}") from None
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._root = root.rstrip("/")
        self.url = self._root if self.is_local else url.rstrip("/")
        self._noted: dict[str, Seal] | None = None
        self._place: tuple[int, int] | None = None
        self._newest = ""

    def __getstate__(self) -> dict[str, Any]:
        # Devices have other numbers on other nodes; notes are taken where they are asked for.
        return {**self.__dict__, "_noted": None, "_place": None, "_newest": ""}

    @property
    def shown(self) -> str:
        """The URL as it may be printed or logged: without user names, passwords and tokens."""
        return without_secrets(self.url)

    def uri(self, path: str) -> str:
        """Return the absolute path (local) or URL of ``path``, for other libraries to open."""
        _check_inside(path)
        return f"{self.url}/{path}"

    def exists(self, path: str) -> bool:
        """Say whether a file or folder is there.

        Raises:
            StorageFailed: the storage cannot be asked. What is not known is not taken for not
                there, which is what fsspec's own question does with any error, even with Ctrl-C.
        """
        at = self._at(path)
        try:
            with self._using(path):
                self._fs.info(at)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def modified(self, path: str) -> datetime:
        """Return when a file was last written, by the clock of the storage.

        Raises:
            FileNotFoundError: there is none.
        """
        at = self._at(path)
        with self._using(path):
            found: datetime = self._fs.modified(at)
        return found

    def is_link(self, path: str) -> bool:
        """Say whether it is a symbolic link, behind which something of others may lie."""
        return self.is_local and Path(self._at(path)).is_symlink()

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; an empty list when it does not exist.

        What a killed writer has left behind is not there.
        """
        at = self._at(folder).rstrip("/")
        paths = [str(path).rstrip("/") for path in self._listed(folder, detail=False)]
        # Some programs mark folders of an object store by an empty object of the same name.
        names = (path.rsplit("/", 1)[-1] for path in paths if path.lstrip("/") != at.lstrip("/"))
        return sorted(name for name in names if not name.endswith(SUFFIX))

    def stamps(self, folder: str) -> dict[str, dict[str, str]]:
        """Return the files below a folder with what changes when their content does.

        Returns:
            By relative path, sorted: size (``size``), time and hash, as far as they are known.

        Raises:
            StorageFailed: a part of it cannot be listed; it may hold anything.
        """
        at = self._at(folder)
        stamps = {
            _below(path, at): {key: str(info[key]) for key in _STAMPS if key in info}
            for path, info in self._files(folder)
            if not path.endswith(("/", SUFFIX))
        }
        return dict(sorted(stamps.items()))

    def download(self, folder: str, target: Path) -> None:
        """Copy all files below a folder into a local one."""
        for name in self.stamps(folder):
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with self._using(f"{folder}/{name}"):
                self._fs.get_file(self._at(f"{folder}/{name}"), str(place))

    def upload(self, source: Path, folder: str) -> None:
        """Copy all files below a local folder into one of the storage; each appears whole."""
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            target = f"{folder}/{file.relative_to(source).as_posix()}"
            if self.is_local:
                with file.open("rb") as data, self.open_write(target) as copy:
                    shutil.copyfileobj(data, copy)
            else:
                self._put(file, self._at(target))

    def remove(self, path: str, *, last: str = "") -> None:
        """Remove a file or a whole folder, if it is there; never the storage itself.

        A removal that is cut off has removed a part, in no certain order: what makes a folder
        count is to be removed first, by itself.

        Args:
            path: of the file or folder.
            last: name in the folder of what goes when all else is gone: by what it says, somebody
                else may remove the rest.

        Raises:
            StorageFailed: it cannot be, or others write there all the time.
        """
        if not path:
            raise ValueError("the storage itself is never removed")
        if last:
            for name in self.names(path):
                if name != last:
                    self.remove(f"{path}/{name}")
        if self._noted is not None:
            self._noted.pop(path, None)
        for _ in range(_REMOVALS):
            if not self.exists(path) or self._erased(path):
                return
        raise StorageFailed(
            f"storage {self.shown}/{path}: it cannot be removed, others write there"
        )

    def remove_empty(self, folder: str) -> None:
        """Remove a folder if nothing is in it; on an object store it is gone already."""
        if not has_buckets(self._fs):
            with suppress(OSError):
                self._fs.rmdir(self._at(folder))

    def copy(self, source: str, target: str, names: Sequence[str]) -> None:
        """Copy some files of a folder, each whole, into another one.

        Raises:
            FileNotFoundError: one of them is not there.
        """
        at, to = self._at(source), self._at(target)
        if self.is_local:
            for name in names:
                with Path(at, name).open("rb") as one, self.open_write(f"{target}/{name}") as file:
                    shutil.copyfileobj(one, file, 1 << 20)
            return
        with self._using(target):
            self._fs.copy([f"{at}/{name}" for name in names], [f"{to}/{name}" for name in names])

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder.

        On a local disk this is atomic; elsewhere it goes file by file, so that a target may be
        there in part until something written afterwards says that it is whole.

        Raises:
            FileNotFoundError: there is no such file or folder.
        """
        at, to = self._at(source), self._at(target)
        if self.is_local:
            self._make_parent(to)
            with self._using(target):
                Path(at).rename(to)
            return
        # A file is found below itself, under no name.
        ends = [f"/{name}" if name else "" for name in self.stamps(source)]
        if not ends:
            raise FileNotFoundError(f"{self.shown}/{source}")
        # By name: fsspec's own move would also look for the folders that are none.
        with self._using(target):
            self._fs.copy([f"{at}{end}" for end in ends], [f"{to}{end}" for end in ends])
        self.remove(source)

    @contextmanager
    def open_write(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; it appears under its name only when the block ends well.

        Raises:
            BadInput: a folder is in its place.
            StorageFailed: there is no room, or nothing may be written, or the storage is gone.
        """
        target = self._at(path)
        if not self.is_local:
            # fsspec's transactions are shared by all who write; an upload of a whole file is not.
            with temporary() as folder:
                with _telling(str(folder)), (folder / "whole").open("wb") as file:
                    yield file
                self._put(folder / "whole", target)
                self._note(path, folder / "whole")
            return
        self._make_parent(target)
        if Path(target).is_dir():
            raise BadInput(
                f"storage {self.shown}/{path} cannot be written: a folder is in its place; move it "
                "away, and the same command goes on"
            )
        with self._using(path, into=Path(target).parent), written(Path(target)) as file:
            yield file
            file.flush()
            self._note(path, Path(file.name))
        self._newest = target

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a whole file atomically."""
        if self.is_local:
            with self.open_write(path) as file:
                file.write(data)
        else:
            # Without a file on this disk, which a killed process would leave there.
            target = self._at(path)
            with self._uploading(target):
                self._fs.pipe_file(target, data)
            if self._noted is not None:
                self._noted[path] = Seal.of(data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file that nobody else has written; False if it is there.

        Of several who try at once one succeeds: on a disk, and where an object store refuses to
        write over what is there. Where it does not, the last one counts: read it again.
        """
        target = self._at(path)
        if self.is_local:
            self._make_parent(target)
            try:
                with self._using(path, into=Path(target).parent), Path(target).open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
            return True
        if self.exists(path):
            return False
        try:
            with self._uploading(target):
                self._fs.pipe_file(target, data, mode="create")
        except FileExistsError:
            return False
        except (OSError, TypeError, NotImplementedError):
            if self.exists(path):
                return False  # refused, in words of its own
            self.write_bytes(path, data)  # it does not know of conditions
        return True

    def read_bytes(self, path: str) -> bytes:
        """Read a whole file.

        Raises:
            FileNotFoundError: there is none.
            StorageFailed: the storage cannot be read.
        """
        at = self._at(path)
        with self._using(path):
            return bytes(self._fs.cat_file(at))

    @contextmanager
    def noting(self) -> Iterator[dict[str, Seal]]:
        """Give what this object writes while the block lasts, by path, less what it removes."""
        before, self._noted = self._noted, {}
        try:
            yield self._noted
        finally:
            self._noted = before

    def seal(self, path: str, most: int = DIGESTED_BYTES) -> Seal | None:
        """Return size and digest of a file; None where there is none.

        Args:
            path: of the file.
            most: bytes of the largest file that is read for it; of a larger one, the size is told.
        """
        at = self._at(path)
        try:
            with self._using(path):
                if self.is_local:
                    return Seal.of_file(Path(at), most)
                info = self._fs.info(at)
                if info["type"] != "file":
                    return None
                if info["size"] > most:
                    return Seal(info["size"], None)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return Seal.of(self.read_bytes(path))

    def _files(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Give what the filesystem says of each file below a folder, with its path there."""
        if self._fs.async_impl:  # an object store, which lists all at once
            with self._using(folder):
                found = self._fs.find(self._at(folder), detail=True)
            yield from found.items()
            return
        # The search of fsspec takes a folder that cannot be listed for an empty one.
        for info in self._listed(folder, detail=True):
            path = str(info["name"])
            if info["type"] == "directory":
                yield from self._files(_below(path, self._root))
            else:
                yield path, info

    def _listed(self, folder: str, *, detail: bool) -> list[Any]:
        """Return what lies in a folder, as the filesystem says it; nothing if it is not there."""
        at = self._at(folder).rstrip("/")
        try:
            with self._using(folder):
                return list(self._fs.ls(at, detail=detail))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _erased(self, path: str) -> bool:
        """Remove a file or a folder; False if others came between, so that some may be left."""
        at = self._at(path)
        with self._using(path):
            try:
                if self.is_local:
                    erase(Path(at))
                else:
                    self._fs.rm(at, recursive=True)
            except OSError as error:
                if isinstance(error, FileNotFoundError) or error.errno == errno.ENOTEMPTY:
                    return False
                raise
        return True

    def _note(self, path: str, written: Path) -> None:
        if self._noted is not None:
            self._noted[path] = Seal.of_file(written)

    @contextmanager
    def _using(self, path: str, *, into: Path | None = None) -> Iterator[None]:
        """Say in one sentence what is wrong with the storage, where something is.

        Args:
            path: for the sentence.
            into: the local folder that is written to, and was there a moment ago.

        Raises:
            BadInput: the credentials are missing, or not good for it.
            StorageFailed: it is full, read-only, away or gone.
        """
        try:
            if self.is_local:
                yield
            else:
                with reaching(self.url):
                    yield
        except FileNotFoundError:
            if self.is_local and (into or self._place):
                self._check_place(gone=into is not None and not _found(str(into)))
            raise
        except OSError as error:
            if (told := storage_failure(error, f"{self.shown}/{path}")) is None:
                raise
            raise told from None

    def _check_place(self, *, gone: bool = False) -> None:
        """See that the folder is the one that was written to: a disk may have been taken away.

        What is written then would lie on another disk, below the place where it was.

        Args:
            gone: whether a folder in it has just been removed.

        Raises:
            StorageFailed: it is not.
        """
        found = _found(self._root)
        place = (found.st_dev, found.st_ino) if found else None
        if place is not None and place != self._place:
            # Some network file systems give folders new numbers: what lies in them tells.
            gone |= bool(self._newest) and not _found(self._newest)
        if gone or (place is None and self._place is not None):
            raise StorageFailed(
                f"storage {self.shown}: it was removed or unmounted while it was in use; bring it "
                "back, and the same command goes on with what is there"
            )
        self._place = place

    def _put(self, file: Path, target: str) -> None:
        """Upload a whole file."""
        with self._uploading(target):
            self._fs.put_file(str(file), target)

    @contextmanager
    def _uploading(self, target: str) -> Iterator[None]:
        """Make the folder, where there are any, and say in our words what the transfer lacks."""
        if not has_buckets(self._fs):
            self._make_parent(target)
        try:
            with self._using(_below(target, self._root)):
                yield
        except FileNotFoundError as error:
            raise BadInput(
                f"storage {self.shown!r} cannot be written: is the bucket there? {error}"
            ) from None

    def _make_parent(self, target: str) -> None:
        if self.is_local and self._place is not None:
            self._check_place()
        try:
            with self._using(_below(target, self._root)):
                self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._unwritable(error) from None
        except StorageFailed as error:
            if not self.is_local or _found(self._root):
                raise
            raise self._unwritable(error) from None  # nobody ever wrote here
        if self.is_local and self._place is None:
            self._check_place()

    def _unwritable(self, error: Exception) -> BadInput:
        return BadInput(without_secrets(f"storage {self.url!r} cannot be written: {error}"))

    def _at(self, path: str) -> str:
        _check_inside(path)
        return f"{self._root}/{path}"


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Say what is wrong with a folder of this machine."""
    try:
        yield
    except OSError as error:
        if (told := storage_failure(error, where)) is None:
            raise
        raise told from None


def _found(path: str) -> os.stat_result | None:
    """Return what the system says of a file or folder; None where it says nothing good."""
    try:
        return Path(path).stat()
    except OSError:
        return None


def _below(path: str, folder: str) -> str:
    """Return the relative path of a file below a folder.

    Raises:
        ValueError: an object store may hold names such as ``../a``, which lead out.
    """
    relative = str(path).lstrip("/").removeprefix(folder.strip("/")).lstrip("/")
    _check_inside(relative)
    return relative


def _check_inside(path: str) -> None:
    if path.startswith("/") or {".", ".."} & set(path.split("/")):
        raise ValueError(f"not a path inside the storage: {path!r}")
