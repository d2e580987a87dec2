"""Where artifacts live: one folder or bucket, reached through fsspec, written atomically.

Paths inside a storage are relative, with ``/``; records hold only such paths, so that a storage
can be moved. A JSON or Parquet file appears whole or not at all, also when the writer is killed.

An object store has no folders: a folder is there as long as something lies below it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.errors import BadInput
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.filesystems import filesystem, has_buckets, reaching
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.parts import SUFFIX, written
from djsandbox_ray.storage.rows import Row, from_csv, to_csv

_BATCH_ROWS = 1 << 20
_STAMPS = ("size", "mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag")
"""What filesystems call the size, time and hash of a file."""


class Storage:
    """A root URL and the few operations that the sandbox needs on what lies below it.

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

    @property
    def shown(self) -> str:
        """The URL as it may be printed or logged: without user names, passwords and tokens."""
        return without_secrets(self.url)

    def uri(self, path: str) -> str:
        """Return the absolute path (local) or URL of ``path``, for other libraries to open."""
        _check_inside(path)
        return f"{self.url}/{path}"

    def exists(self, path: str) -> bool:
        """Say whether a file or folder is there."""
        with reaching(self.url):
            return bool(self._fs.exists(self._at(path)))

    def is_link(self, path: str) -> bool:
        """Say whether it is a symbolic link, behind which something of others may lie."""
        return self.is_local and Path(self._at(path)).is_symlink()

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; an empty list when it does not exist.

        What a killed writer has left behind is not there.
        """
        at = self._at(folder).rstrip("/")
        try:
            with reaching(self.url):
                paths = [str(path).rstrip("/") for path in self._fs.ls(at, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Some programs mark folders of an object store by an empty object of the same name.
        names = (path.rsplit("/", 1)[-1] for path in paths if path.lstrip("/") != at.lstrip("/"))
        return sorted(name for name in names if not name.endswith(SUFFIX))

    def stamps(self, folder: str) -> dict[str, dict[str, str]]:
        """Return the files below a folder with what changes when their content does.

        Returns:
            By relative path, sorted: size (``size``), time and hash, as far as they are known.
        """
        at = self._at(folder)
        with reaching(self.url):
            found = self._fs.find(at, detail=True)
        stamps = {
            _below(path, at): {key: str(info[key]) for key in _STAMPS if key in info}
            for path, info in found.items()
            if not str(path).endswith(("/", SUFFIX))
        }
        return dict(sorted(stamps.items()))

    def download(self, folder: str, target: Path) -> None:
        """Copy all files below a folder into a local one."""
        for name in self.stamps(folder):
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with reaching(self.url):
                self._fs.get_file(self._at(f"{folder}/{name}"), str(place))

    def upload(self, source: Path, folder: str) -> None:
        """Copy all files below a local folder into one of the storage; each appears whole."""
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            self._put(file, self._at(f"{folder}/{file.relative_to(source).as_posix()}"))

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder, if it is there; never the storage itself.

        A removal that is cut off has removed a part, in no certain order: what makes a folder
        count is to be removed first, by itself.
        """
        if not path:
            raise ValueError("the storage itself is never removed")
        if self.exists(path):
            with suppress(FileNotFoundError), reaching(self.url):  # somebody was faster
                self._fs.rm(self._at(path), recursive=True)

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
                with self.open_write(f"{target}/{name}") as file, Path(at, name).open("rb") as one:
                    shutil.copyfileobj(one, file, 1 << 20)
            return
        with reaching(self.url):
            self._fs.copy([f"{at}/{name}" for name in names], [f"{to}/{name}" for name in names])

    def move(self, source: str, target: str) -> None:
        """Move a folder.

        On a local disk this is atomic; elsewhere it goes file by file, so that a target may be
        there in part until something written afterwards says that it is whole.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        at, to = self._at(source), self._at(target)
        if self.is_local:
            self._make_parent(to)
            Path(at).rename(to)
            return
        names = list(self.stamps(source))
        if not names:
            raise FileNotFoundError(f"{self.shown}/{source}")
        # By name: fsspec's own move would also look for the folders that are none.
        self.copy(source, target, names)
        self.remove(source)

    @contextmanager
    def open_write(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; it appears under its name only when the block ends well."""
        target = self._at(path)
        if not self.is_local:
            # fsspec's transactions are shared by all who write; an upload of a whole file is not.
            with temporary() as folder, (folder / "whole").open("wb") as file:
                yield file
                file.flush()
                self._put(folder / "whole", target)
            return
        self._make_parent(target)
        with written(Path(target)) as file:
            yield file

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

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file that nobody else has written; False if it is there.

        Of several who try at once one succeeds: on a disk, and where an object store refuses to
        write over what is there. Where it does not, the last one counts: read it again.
        """
        target = self._at(path)
        if self.is_local:
            self._make_parent(target)
            try:
                with Path(target).open("xb") as file:
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
        """Read a whole file."""
        with reaching(self.url):
            return bytes(self._fs.cat_file(self._at(path)))

    def write_json(self, path: str, value: Any) -> None:
        """Write plain data as indented JSON, atomically; NaN is refused, as in every JSON here."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_bytes(path, text.encode() + b"\n")

    def read_json(self, path: str) -> Any:
        """Read a JSON file."""
        return json.loads(self.read_bytes(path))

    def write_rows(self, kind: type[Row], path: str, rows: Sequence[Row]) -> str:
        """Write records of one dataclass as CSV, atomically; return the text.

        Args:
            kind: the dataclass; see :func:`~djsandbox_ray.storage.rows.to_csv` for its fields.
            path: of the file.
            rows: its instances.
        """
        text = to_csv(kind, rows)
        self.write_bytes(path, text.encode())
        return text

    def read_rows(self, kind: type[Row], path: str) -> list[Row]:
        """Read what :meth:`write_rows` wrote.

        Raises:
            BadInput: other columns, or a cell that cannot be read; says which.
        """
        return from_csv(kind, self.read_bytes(path).decode(), path)

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write one Parquet file atomically."""
        with self.open_write(path) as file:
            pq.write_table(table, file, compression="zstd")

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read one Parquet file, or the Parquet files of a folder in the order of their names."""
        with reaching(self.url):
            is_file = self._fs.info(self._at(path))["type"] == "file"
        if is_file:
            return self._read_file(path, columns)
        parts = [name for name in self.names(path) if name.endswith(".parquet")]
        return pa.concat_tables(self._read_file(f"{path}/{part}", columns) for part in parts)

    def read_batches(self, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read one Parquet file piece by piece, for columns as long as the largest datasets."""
        unbuffered = {} if self.is_local else {"cache_type": "none"}
        with reaching(self.url), self._fs.open(self._at(path), "rb", **unbuffered) as file:
            yield from pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=columns)

    def _read_file(self, path: str, columns: list[str] | None) -> pa.Table:
        # Arrow reads just the ranges that it needs; reading ahead would only add to them.
        unbuffered = {} if self.is_local else {"cache_type": "none"}
        with reaching(self.url), self._fs.open(self._at(path), "rb", **unbuffered) as file:
            return pq.read_table(file, columns=columns)

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
            with reaching(self.url):
                yield
        except FileNotFoundError as error:
            raise BadInput(
                f"storage {self.shown!r} cannot be written: is the bucket there? {error}"
            ) from None

    def _make_parent(self, target: str) -> None:
        try:
            self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise BadInput(
                without_secrets(f"storage {self.url!r} cannot be written: {error}")
            ) from None

    def _at(self, path: str) -> str:
        _check_inside(path)
        return f"{self._root}/{path}"


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
