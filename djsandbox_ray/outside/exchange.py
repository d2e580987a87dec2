"""What goes to a program and comes from it: samples as files, and numbers in a JSON file.

Samples are written as shards, in one of the formats that ``materialise`` writes too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from djsandbox_ray.dataset.media import Media
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.writers.formats import SHARD_FORMATS, Row
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.storage.store import Storage

_READ_ROWS = 256
"""Rows whose images are in memory at once."""
_LARGEST = 64 * 2**20
"""Bytes of a file of numbers."""


def _known(name: str) -> str:
    try:
        SHARD_FORMATS.get(name)
    except BadInput as error:
        raise ValueError(str(error)) from error
    return name


Format = Annotated[str, AfterValidator(_known)]
"""jsonl (Data-Juicer's layout), parquet, webdataset, huggingface, or ``package.module:Class``."""


def write_samples(
    table: str,
    rows: NDArray[np.int64],
    captions: NDArray[np.int64],
    folder: Path,
    *,
    form: str,
    rows_per_shard: int,
) -> None:
    """Write ``000000.<suffix>``, ``000001.<suffix>``, ... in the order given.

    Args:
        table: URI of the Lance table.
        rows: row ids, shape (n,): image, meta data and name of every sample.
        captions: row ids, shape (n,), whose captions go with them.
        folder: a local one, made if need be.
        form: a registered format.
        rows_per_shard: samples of every file but the last.

    Raises:
        BadInput: a sample that the format cannot hold, or that is not what was ingested.
    """
    writer = SHARD_FORMATS.get(form)()
    output, source = Storage(str(folder)), SampleTable(table)
    source.check(rows)
    for index, start in enumerate(range(0, len(rows), rows_per_shard)):
        part = slice(start, start + rows_per_shard)
        some = _read(source, rows[part], captions[part])
        writer.write(output, f"{index:06d}.{writer.suffix}", some)


def _read(
    table: SampleTable, rows: NDArray[np.int64], captions: NDArray[np.int64]
) -> Iterator[Row]:
    for start in range(0, len(rows), _READ_ROWS):
        some = rows[start : start + _READ_ROWS]
        own = table.take(some, ["image", "meta"])
        texts = table.take(captions[start : start + _READ_ROWS], ["text"])["text"]
        columns = (own["image"].to_pylist(), texts.to_pylist(), own["meta"].to_pylist())
        for row_id, image, text, meta in zip(some.tolist(), *columns, strict=True):
            yield Row(row_id, (Media("image", image),), text, meta)


def read_measured(path: Path, program: str) -> dict[str, Any]:
    """Read the JSON object that a program was to write; NaN and Infinity may occur in it.

    Args:
        path: where it was told to write.
        program: what it is called in messages.

    Raises:
        SandboxError: there is no such file, or something else in it.
    """
    if not path.is_file():
        raise SandboxError(f"{program} ended well, but wrote no file {path.name} ({{metrics}})")
    if path.stat().st_size > _LARGEST:
        raise SandboxError(f"{program}: {path.name} has more than {_LARGEST} bytes")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SandboxError(f"{program}: {path.name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise SandboxError(f"{program}: {path.name} holds {_kind(found)}, not an object")
    return found


def number(value: Any, what: str) -> float:
    """Return a number as a float; NaN and infinities too.

    Raises:
        SandboxError: it is something else: true, null, a text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SandboxError(f"{what} is {_kind(value)}, not a number")
    return float(value)


def number_at(found: Mapping[str, Any], place: str, what: str) -> float:
    """Return the number at a place such as ``results.0.accuracy``; a key may hold dots itself.

    Raises:
        SandboxError: there is nothing, or no number; lists what is there.
    """
    value: Any = found
    rest = place
    while rest:
        if isinstance(value, dict) and rest in value:
            value, rest = value[rest], ""
            continue
        key, _, rest = rest.partition(".")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise SandboxError(f"{what}: nothing at {place!r}: {_there(value, key)}")
    return number(value, f"{what}: {place!r}")


def _there(value: Any, key: str) -> str:
    if isinstance(value, dict):
        return f"no {key!r} among {', '.join(map(repr, list(value)[:20])) or 'no keys'}"
    if isinstance(value, list):
        return f"no {key!r} in a list of {len(value)}"
    return f"{_kind(value)} has no {key!r}"


def _kind(value: Any) -> str:
    return "null" if value is None else f"{value!r:.60}"
