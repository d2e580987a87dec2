"""What lies in a storage: JSON, records and tables, each read as what was written.

A JSON or Parquet file appears whole or not at all, also when the writer is killed or the disk is
full. What is read and was not written so is :class:`~djsandbox_ray.errors.Damaged`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.errors import BadInput, Damaged, Missing
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.files import Files
from djsandbox_ray.storage.rows import Row, from_csv, to_csv
from djsandbox_ray.storage.seals import sealed, unsealed

_BATCH_ROWS = 1 << 20
_AGAIN = "run the configuration again (djsandbox run): it is made anew"


class Storage(Files):
    """A root URL and the few operations that the sandbox needs on what lies below it."""

    def write_json(self, path: str, value: Any) -> None:
        """Write plain data as indented JSON, atomically; NaN is refused, as in every JSON here."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_bytes(path, text.encode() + b"\n")

    def read_json(self, path: str) -> Any:
        """Read a JSON file.

        Raises:
            Missing: it is not there.
            Damaged: it is no JSON.
        """
        with self._reading(path):
            return json.loads(self.read_bytes(path))

    def write_sealed(self, path: str, value: Mapping[str, Any]) -> None:
        """Write plain data as JSON with a checksum, by which :meth:`read_sealed` knows it."""
        self.write_json(path, sealed(value))

    def read_sealed(self, path: str) -> dict[str, Any]:
        """Read an object with its checksum, or one that has none.

        Raises:
            Missing: it is not there.
            Damaged: it is no JSON object, or not the one that was written.
        """
        with self._reading(path):
            return unsealed(json.loads(self.read_bytes(path)))

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
            Missing: it is not there.
            Damaged: it has other columns, or a cell that cannot be read; says which.
        """
        with self._reading(path):
            text = self.read_bytes(path).decode()
        try:
            return from_csv(kind, text)
        except BadInput as error:
            raise self.damaged(path, str(error)) from None

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write one Parquet file atomically, with a checksum of every page.

        What counts rows, a column ``row_id`` of numbers, is written as differences: next to
        nothing to keep, and to read.
        """
        with self.open_write(path) as file:
            pq.write_table(table, file, **_settings(table.schema))

    def write_groups(self, path: str, schema: pa.Schema, groups: Iterable[pa.Table]) -> None:
        """Write one Parquet file as :meth:`write_table` does, a row group per table, holding one.

        Args:
            path: of the file.
            schema: of every table.
            groups: the tables.
        """
        with (
            self.open_write(path) as file,
            pq.ParquetWriter(file, schema, **_settings(schema)) as writer,
        ):
            for group in groups:
                writer.write_table(group)

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read one Parquet file, or the Parquet files of a folder in the order of their names.

        Raises:
            Missing: it is not there.
            Damaged: it cannot be read, or lacks a column.
        """
        at = self._at(path)
        with self._reading(path), self._using(path):
            is_file = self._fs.info(at)["type"] == "file"
        if is_file:
            return self._read_file(path, columns)
        parts = [name for name in self.names(path) if name.endswith(".parquet")]
        with self._reading(path):
            return pa.concat_tables(self._read_file(f"{path}/{part}", columns) for part in parts)

    def read_batches(self, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read one Parquet file piece by piece, for columns as long as the largest datasets.

        Raises:
            Missing: it is not there.
            Damaged: it cannot be read, or lacks a column.
        """
        with self._parquet(path) as file:
            parts = pq.ParquetFile(file, page_checksum_verification=True)
            self._refuse_lacking(path, columns, parts.schema_arrow.names)
            about, read = parts.metadata, 0
            for batch in parts.iter_batches(_BATCH_ROWS, columns=columns):
                read += batch.num_rows
                yield batch
            groups = (about.row_group(index).num_rows for index in range(about.num_row_groups))
            if not read == sum(groups) == about.num_rows:
                # Arrow passes over a page of a kind that it does not know, and says nothing.
                raise self.damaged(path, f"of its {about.num_rows} rows {read} can be read")

    def _read_file(self, path: str, columns: list[str] | None) -> pa.Table:
        with self._parquet(path) as file:
            table = pq.read_table(file, columns=columns, page_checksum_verification=True)
        self._refuse_lacking(path, columns or (), table.column_names)
        return table

    @contextmanager
    def _parquet(self, path: str) -> Iterator[IO[bytes]]:
        # Arrow reads just the ranges that it needs; reading ahead would only add to them.
        unbuffered = {} if self.is_local else {"cache_type": "none"}
        with (
            self._reading(path),
            self._using(path),
            self._fs.open(self._at(path), "rb", **unbuffered) as file,
        ):
            yield file

    def _refuse_lacking(self, path: str, columns: Iterable[str], names: Collection[str]) -> None:
        """Raise Damaged if a file lacks one of the columns; Arrow reads the others."""
        if lacking := [name for name in columns if name not in names]:
            raise self.damaged(path, f"it has no column {lacking[0]!r}")

    def damaged(self, path: str, what: str) -> Damaged:
        """Return the error about a file that is not what was written."""
        return Damaged(
            without_secrets(f"{self.shown}/{path} is damaged: {what}"),
            f"remove it and {_AGAIN}",
            path,
        )

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Say of a file that it is damaged, where its content is what cannot be read.

        Raises:
            Damaged: it is not there, or not what was written.
        """
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(f"{self.shown}/{path} is not there", _AGAIN, path) from None
        except IsADirectoryError:
            raise self.damaged(path, "a folder is in its place") from None
        except (pa.ArrowMemoryError, pa.ArrowCancelled):
            raise  # of this process, nothing of the file: a damaged one would be removed
        except (ValueError, KeyError, RecursionError, pa.ArrowException) as error:
            raise self.damaged(path, _first_line(error)) from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise self.damaged(path, _first_line(error)) from None  # of Arrow


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _settings(schema: pa.Schema) -> dict[str, Any]:
    """Return how Parquet files of a schema are written."""
    settings: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    # Of nested columns the parts would have to be named.
    flat = not any(pa.types.is_nested(kind) for kind in schema.types)
    if flat and "row_id" in schema.names and schema.field("row_id").type == pa.int64():
        settings["use_dictionary"] = [name for name in schema.names if name != "row_id"]
        settings["column_encoding"] = {"row_id": "DELTA_BINARY_PACKED"}
    return settings
