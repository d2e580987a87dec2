"""Which source reads a file whose ending does not tell: by the keys, or columns, it begins with.

A line, an entry of a list or a row of a table may be a pair, a conversation or a document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.dataset.arrow_rows import is_damage
from djsandbox_ray.dataset.conversation import turn_marks
from djsandbox_ray.dataset.files import SourceFile
from djsandbox_ray.dataset.interleaved import DOCUMENT_MARKS
from djsandbox_ray.dataset.json_files import PEEKED, first_object, is_list

_COCO = re.compile(rb'"(images|annotations)"\s*:\s*\[')


def of_lines(file: SourceFile) -> dict[str, Any]:
    """Return what is known of JSON Lines beside their path: a type, if it is not ``jsonl``."""
    keys = first_object(file) or {}
    return _of_objects(keys) or {"type": "jsonl"}


def of_list(file: SourceFile) -> dict[str, Any] | None:
    """Return the type of a ``.json`` file; None where nothing here reads it."""
    if is_list(file):
        found = _of_objects(first_object(file) or {})
        return found if found and found["type"] == "llava" else None
    with file.open() as handle:
        start = handle.read(PEEKED)
    return {"type": "coco"} if start.lstrip().startswith(b"{") and _COCO.search(start) else None


def of_table(file: SourceFile) -> dict[str, Any]:
    """Return type and content of Parquet files."""
    found = _of_columns(file, lambda handle: pq.read_schema(handle).names)
    return _conversations("parquet", found) or found or {"type": "parquet"}


def of_saved(file: SourceFile) -> dict[str, Any]:
    """Return type and content of what ``save_to_disk`` has written."""
    found = _of_columns(file, lambda handle: pa.ipc.open_stream(handle).schema.names)
    return _conversations("huggingface", found) or {"type": "huggingface"}


def _of_columns(file: SourceFile, names: Callable[[IO[bytes]], list[str]]) -> dict[str, Any] | None:
    try:
        with file.open() as handle:
            return _of_objects(names(handle))
    except Exception as error:
        if not is_damage(error):
            raise
        return None  # the source says what is wrong with it


def _conversations(kind: str, found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return how a table of conversations is read."""
    is_theirs = found is not None and found["type"] == "llava"
    return {"type": kind, "content": "conversations"} if is_theirs else None


def _of_objects(keys: Collection[str]) -> dict[str, Any] | None:
    """Tell by their keys what objects are; None where they may be pairs."""
    if any(set(held) <= set(keys) for held in DOCUMENT_MARKS):
        return {"type": "interleaved"}
    if "text" not in keys and any(set(held) <= set(keys) for held in turn_marks(None)):
        return {"type": "llava"}
    return None
