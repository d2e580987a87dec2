"""Datasets that Hugging Face's library has saved: ``save_to_disk``, one or several splits."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from functools import partial
from typing import IO, Any, ClassVar

import pyarrow as pa

from djsandbox_ray.dataset.arrow_rows import (
    Columns,
    ColumnsConfig,
    class_names,
    is_damage,
)
from djsandbox_ray.dataset.faults import described
from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.object_rows import (
    ObjectColumns,
    check_columns,
    chosen_columns,
    rows_of,
)
from djsandbox_ray.dataset.source import Item, Rejection, Shard, estimated_loss
from djsandbox_ray.dataset.source_files import FileSource, SourceFile, find_files, opened
from djsandbox_ray.errors import BadInput

SPLITS, STATE = "dataset_dict.json", "state.json"
"""What the library writes beside the data: of a dictionary of splits, and of a split."""
_BATCH_ROWS = 256
_ENDS = (b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0")
"""What stands at the end of a stream of Arrow, of today's kind and of that before version 0.15."""
_MOST_PER_BYTE = 8
"""Rows that a damaged batch may announce for each byte of its file: a bit says that one is null."""


class HuggingFaceConfig(ColumnsConfig):
    """Which saved dataset to read."""

    path: str
    """The folder that ``save_to_disk`` has written, local or a URL."""
    split: str | None = None
    """Which of several; needed where there are several."""


class HuggingFaceSource(FileSource):
    """A shard is an Arrow file."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".arrow",)
    Config = HuggingFaceConfig
    VERSION: ClassVar[int | None] = 3
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos", "texts", "conversations")
    config: HuggingFaceConfig

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config)
        self._named: dict[str, tuple[str, ...]] = {}
        self._split = ""
        """Which split is read, where there are several."""

    def shards(self) -> list[Shard]:
        """Read what the library says of the files, and their schemas."""
        shards, said = [], {}
        self._named = {}
        for file in find_files(self._paths(), self.SUFFIXES):
            try:
                with file.open() as handle, pa.ipc.open_stream(handle) as stream:
                    schema = stream.schema
                names = schema.names  # those that are no text are found here
                ", ".join(names).encode()
            except Exception as error:
                if not is_damage(error):
                    raise
                lost = estimated_loss(int(file.stamp["size"] or 0), 0, 0)
                broken = Rejection(file.name, "broken_shard", described(error), lost)
                shards.append(Shard(file.name, file.stamp, partial(iter, (broken,)), lost))
                continue
            columns = chosen_columns(file, names, self.config)
            check_columns(file.name, schema, columns)
            said[columns.said] = columns.found
            for column in self.config.meta_columns:  # all files of a split have one schema
                self._named.setdefault(column, class_names(schema, column))
            shards.append(Shard(file.name, file.stamp, partial(_read, file, columns)))
        chosen = [self._split] if self._split else []
        self._said = (*chosen, *(line for line, found in said.items() if found))
        return shards

    def class_names(self, key: str) -> tuple[str, ...]:
        """Return the names of a ``ClassLabel`` column."""
        return self._named.get(key, ())

    def _paths(self) -> tuple[str, ...]:
        """Return where the files of the split lie, in the order of its rows.

        Raises:
            BadInput: it is no saved dataset, or not clear which split is meant.
        """
        path, split = self.config.path.rstrip("/"), self.config.split
        splits = _described(f"{path}/{SPLITS}")
        if splits is not None:
            names = _split_names(path, splits)
            if split is None and len(names) == 1:
                split = names[0]
            if split not in names:
                wanted = "needed" if split is None else f"{split!r}, which is not there"
                raise BadInput(f"split: {wanted}: {path!r} has {', '.join(names)}")
            path = f"{path}/{split}"
            self._split = f"split {split!r} of {', '.join(names)}" if len(names) > 1 else ""
        elif split is not None and posixpath.basename(path) != split:
            raise BadInput(f"split: {path!r} has no {SPLITS}: it is one split and no choice")
        state = _described(f"{path}/{STATE}")
        if state is None:
            raise BadInput(
                f"path {path!r} is no folder that save_to_disk has written (it has no {STATE}). "
                "What is on the hub is not downloaded here: "
                "datasets.load_dataset(NAME).save_to_disk(FOLDER) does, once; for Parquet files "
                "of the hub there is the source 'parquet'"
            )
        if state.get("_indices_data_files"):
            raise BadInput(f"{path!r} is a selection of rows: save dataset.flatten_indices()")
        files = state.get("_data_files")
        listed = files if isinstance(files, list) else []
        inside = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed]
        if not inside or any(name != posixpath.basename(str(name)) for name in inside):
            raise BadInput(f"{path}/{STATE} names no files of its folder: {files}")
        return tuple(f"{path}/{name}" for name in inside)


def first_split(path: str) -> dict[str, str]:
    """Return the option that chooses a split where there are several: the one for training.

    Args:
        path: that ``save_to_disk`` has written.

    Returns:
        ``split``: the first whose name begins with "train", or the first of all; nothing where
        there is no choice.

    Raises:
        BadInput: what the library has written cannot be read.
    """
    splits = _described(f"{path.rstrip('/')}/{SPLITS}")
    names = [] if splits is None else _split_names(path, splits)
    if len(names) < 2:
        return {}
    return {"split": next((name for name in names if name.startswith("train")), names[0])}


def _split_names(path: str, splits: dict[str, Any]) -> list[str]:
    names = splits.get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{path}/{SPLITS} has no list of names under 'splits'")
    return names


def _described(path: str) -> dict[str, Any] | None:
    """Return what stands in a file of JSON; None if there is no file."""
    fs, inside = opened(path)
    try:
        written = json.loads(fs.cat_file(inside))
    except FileNotFoundError:
        return None
    except (ValueError, OSError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {described(error)}") from error
    if not isinstance(written, dict):
        raise BadInput(f"{path} holds no object")
    return written


def _fault(table: pa.Table) -> str | None:
    """Return what is wrong with the buffers of a table.

    Unasked, Arrow goes wherever their offsets point, and ends the process there.
    """
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        return described(error)
    return None


def _read(file: SourceFile, columns: Columns | ObjectColumns) -> Iterator[Item]:
    """Yield the rows of a file; where it is damaged, a rejection for what is lost."""
    position, size = 0, int(file.stamp["size"] or 0)
    begin = read = 0
    with file.open() as handle:
        try:
            with pa.ipc.open_stream(handle) as stream:
                begin = read = handle.tell()
                for whole in stream:
                    read = handle.tell()
                    table = pa.Table.from_batches([whole]).select(columns.read)
                    if (fault := _fault(table)) is not None:
                        rows = max(1, min(whole.num_rows, _MOST_PER_BYTE * size))
                        said = f"{rows} rows from {position} on cannot be read: {fault}"
                        yield Rejection(f"{file.name}#{position}", "broken_shard", said, rows)
                        position += rows
                        continue
                    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
                        for items in rows_of(batch, file, position, columns):
                            yield from items
                            position += 1
            fault = _end_fault(handle, read)
        except Exception as error:
            if not is_damage(error):
                raise
            fault = described(error)
    if fault is not None:
        lost = estimated_loss(size - read, read - begin, position)
        said = f"cannot be read after row {position}: {fault}"
        yield Rejection(f"{file.name}#{position}", "broken_shard", said, lost)


def _end_fault(handle: IO[bytes], read: int) -> str | None:
    """Return what is wrong where Arrow sees the end of a stream.

    It does so wherever a size is 0, and where a file is cut between two batches.

    Args:
        handle: the file.
        read: bytes up to the end of the last batch.
    """
    handle.seek(read)
    left = handle.read(len(_ENDS[0]) + 1)
    if left in _ENDS:
        return None
    return "it goes on behind the mark of its end" if left else "it has no mark of its end"
