"""Where artifacts live: one folder or bucket, reached through fsspec, written atomically.

Paths inside a storage are relative, with ``/``; records hold only such paths, so that a storage
can be moved. A JSON or Parquet file appears whole or not at all, also when the writer is killed.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.errors import BadInput
from djsandbox_ray.masking import without_secrets

_PART = ".part"


class Storage:
    """A root URL and the few operations that the sandbox needs on what lies below it.

    Args:
        url: a local folder (made absolute) or any URL that fsspec knows (``s3://bucket/prefix``).
    """

    def __init__(self, url: str) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            # The error would show the address as it is.
            raise BadInput(without_secrets(f"storage {url!r} cannot be opened: {error}")) from None
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._root = str(root).rstrip("/")
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
        self._fs.invalidate_cache(self._at(path))  # others write here too
        return bool(self._fs.exists(self._at(path)))

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; an empty list when it does not exist.

        What a killed writer has left behind is not there.
        """
        if not self.exists(folder):
            return []
        self._fs.invalidate_cache(self._at(folder))
        paths = self._fs.ls(self._at(folder), detail=False)
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)
        return sorted(name for name in names if not name.endswith(_PART))

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder, if it is there; never the storage itself."""
        if not path:
            raise ValueError("the storage itself is never removed")
        if self.exists(path):
            self._fs.rm(self._at(path), recursive=True)

    def move(self, source: str, target: str) -> None:
        """Move a folder; on a local disk this is atomic."""
        self._make_parent(self._at(target))
        if self.is_local:
            Path(self._at(source)).rename(self._at(target))
        else:
            self._fs.mv(self._at(source), self._at(target), recursive=True)

    @contextmanager
    def open_write(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; it appears under its name only when the block ends well."""
        target = self._at(path)
        self._make_parent(target)
        if not self.is_local:
            # fsspec's transactions are shared by all who write; an upload of a whole file is not.
            with tempfile.NamedTemporaryFile() as file:
                yield file
                file.flush()
                self._fs.put_file(file.name, target)
            return
        part = f"{target}.{uuid.uuid4().hex}{_PART}"
        try:
            with Path(part).open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(target)
        finally:
            Path(part).unlink(missing_ok=True)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a whole file atomically."""
        with self.open_write(path) as file:
            file.write(data)

    def read_bytes(self, path: str) -> bytes:
        """Read a whole file."""
        return bytes(self._fs.cat_file(self._at(path)))

    def write_json(self, path: str, value: Any) -> None:
        """Write plain data as indented JSON, atomically; NaN is refused, as in every JSON here."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_bytes(path, text.encode() + b"\n")

    def read_json(self, path: str) -> Any:
        """Read a JSON file."""
        return json.loads(self.read_bytes(path))

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write one Parquet file atomically."""
        with self.open_write(path) as file:
            pq.write_table(table, file, compression="zstd")

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read one Parquet file, or the Parquet files of a folder in the order of their names."""
        if self._fs.isdir(self._at(path)):
            parts = [name for name in self.names(path) if name.endswith(".parquet")]
            return pa.concat_tables(self.read_table(f"{path}/{part}", columns) for part in parts)
        with self._fs.open(self._at(path), "rb") as file:
            return pq.read_table(file, columns=columns)

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


def _check_inside(path: str) -> None:
    if path.startswith("/") or {".", ".."} & set(path.split("/")):
        raise ValueError(f"not a path inside the storage: {path!r}")
