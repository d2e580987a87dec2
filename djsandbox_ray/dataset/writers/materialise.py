"""Rows of a sample table as files for outside trainers: shard by shard, resumable.

``materialised.json`` lists the shards. What a format writes beside a shard, such as the images of
JSON Lines, is listed in ``materialised/<shard>.json``: a list for each, as there may be millions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Media
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.writers.formats import SHARD_FORMATS, Row, Written
from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.identity import content_id, rows_hash
from djsandbox_ray.records import Dataset
from djsandbox_ray.settings.code import with_code
from djsandbox_ray.storage.half_written import Leftovers
from djsandbox_ray.storage.lease import WATCH
from djsandbox_ray.storage.seals import (
    FOLDER_BYTES,
    Seal,
    broken,
    broken_below,
    seals_from_json,
    seals_to_json,
)
from djsandbox_ray.storage.store import Storage

MARKER = "materialised.json"
_LISTS = "materialised/"
ROWS_PER_SHARD = 10_000
_READ_ROWS = 256
"""Rows whose images are in memory at once."""
_READ_WIDE = 8
"""The same, where there may be videos."""
_VERSION = 2
"""Raised when equal rows give other files."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Materialised:
    """What was written."""

    id: str
    url: str
    rows: int
    shards: int
    written: int
    """Shards that this call has written; the others were there."""


def materialise(
    storage: Storage,
    dataset: Dataset,
    rows: NDArray[np.int64],
    output: str,
    *,
    form: str,
    rows_per_shard: int = ROWS_PER_SHARD,
    about: Sequence[str] = (),
    progress: OnProgress | None = None,
) -> Materialised:
    """Write rows as ``000000.<suffix>``, ``000001.<suffix>``, ... in the order of ``row_id``.

    A shard appears when it is whole; the same call again writes those that are missing, or lack a
    file of those beside them. ``materialised.json`` says from the start what the folder is for,
    with size and digest of every shard that is there, and at the end that it is complete. Equal
    rows give equal files.

    Args:
        storage: where the sample table is.
        dataset: the sample table.
        rows: row ids, each once, in any order.
        output: a folder or URL: new, empty, or holding the beginning of the same.
        form: a registered format (jsonl, parquet, webdataset, huggingface), or
            ``package.module:Class``.
        rows_per_shard: rows of every shard but the last.
        about: which rows these are, in sentences of Markdown, for a format that says so.
        progress: called with (rows done, all rows) after every shard.

    Raises:
        BadInput: no rows, unknown rows or format, a row that the format cannot hold, a folder that
            holds something else, or a file that is not what was written.
    """
    kind = SHARD_FORMATS.get(form)
    writer = kind()
    ordered = _checked(rows, dataset)
    if rows_per_shard < 1:
        raise BadInput(f"rows per shard: at least 1 is needed, not {rows_per_shard}")
    shards = [
        ordered[start : start + rows_per_shard] for start in range(0, len(ordered), rows_per_shard)
    ]
    shape = (with_code(form, kind), rows_per_shard)
    identity = content_id("materialised", _VERSION, dataset.id, *shape, rows_hash(ordered))
    plan = {
        "id": identity,
        "complete": False,
        "dataset": dataset.id,
        "format": form,
        "rows": len(ordered),
        "rows_hash": rows_hash(ordered),
        "rows_per_shard": rows_per_shard,
        "shards": len(shards),
    }
    folder = Storage(output)
    known = _claim(folder, plan)
    if folder.is_local:
        Leftovers([Path(folder.url)], WATCH)  # of calls that were killed
    table = SampleTable(storage.uri(dataset.table))
    writer.begin(dataset)
    written = done = 0
    for index, some in enumerate(shards):
        name = f"{index:06d}.{writer.suffix}"
        if name not in known:
            with folder.noting() as noted:
                writer.write(folder, name, stored_rows(table, some))
            known |= _sealed(folder, name, noted)
            folder.write_sealed(MARKER, {**plan, "files": seals_to_json(known)})
            written += 1
        done += len(some)
        if progress is not None:
            progress(done, len(ordered))
    writer.finish(folder, Written(len(ordered), tuple(about)))
    folder.write_sealed(MARKER, {**plan, "complete": True, "files": seals_to_json(known)})
    return Materialised(identity, folder.url, len(ordered), len(shards), written)


def _checked(rows: NDArray[np.int64], dataset: Dataset) -> NDArray[np.int64]:
    ordered = np.unique(np.asarray(rows, dtype=np.int64))
    if len(ordered) == 0:
        raise BadInput("there are no rows to be written")
    if len(ordered) < len(rows):
        raise BadInput(f"{len(rows) - len(ordered)} row ids occur more than once")
    if ordered[0] < 0 or ordered[-1] >= dataset.rows:
        raise BadInput(
            f"row ids from {ordered[0]} to {ordered[-1]}: the dataset has 0 to {dataset.rows - 1}"
        )
    return ordered


def _claim(folder: Storage, plan: dict[str, Any]) -> dict[str, Seal]:
    """Say what the folder is for, unless it says so already.

    Returns:
        The seals of the shards that are there, with all that belongs beside them, and of the lists
        of that. A shard that is not among them was written by a call that was killed just then, or
        lacks something: it is written again.

    Raises:
        BadInput: it is for something else, or a file was changed since it was written.
    """
    if not folder.exists(MARKER):
        if names := folder.names(""):
            raise BadInput(
                f"{folder.shown} is not empty ({names[0]!r}, ...): choose a new folder; nothing "
                "there is replaced"
            )
        folder.write_sealed(MARKER, {**plan, "files": {}})
        return {}
    try:
        found = folder.read_sealed(MARKER)
        known = _seals(folder, found)
    except (Damaged, ValueError) as error:
        raise BadInput(
            f"{error.what if isinstance(error, Damaged) else error}: what the folder is for cannot "
            "be read; choose a new folder"
        ) from None
    if found.get("id") != plan["id"]:
        other = [
            f"{key} {found.get(key)!r} instead of {plan[key]!r}"
            for key in ("dataset", "format", "rows", "rows_hash", "rows_per_shard")
            if found.get(key) != plan[key]
        ]
        raise BadInput(
            f"{folder.shown} holds other rows or another form of them "
            f"({', '.join(other) or 'of another version'}): choose a new folder"
        )
    lacking: set[str] = set()
    for shard, wrong in _wrong(folder, known):
        for name, what in wrong.items():
            if folder.exists(name):
                raise BadInput(
                    f"{folder.shown}/{name} {what} (it was changed since): it is not replaced; "
                    "remove it, and the same command writes it again"
                )
            lacking |= {shard, _list(shard)}
    return {name: seal for name, seal in known.items() if name not in lacking}


def _wrong(folder: Storage, known: Mapping[str, Seal]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each shard with what is wrong with its files, by path.

    Of what lies beside all shards, as much is read as in another folder; of the rest, the sizes
    are compared.
    """
    wrong = broken(folder, known)
    shards = [name for name in known if not name.startswith(_LISTS)]
    for shard in shards:
        listed = _list(shard)
        yield shard, {name: wrong[name] for name in (shard, listed) if name in wrong}
        if listed in known and listed not in wrong:
            beside = seals_from_json(folder.read_sealed(listed).get("files"))
            by_place: dict[str, dict[str, Seal]] = defaultdict(dict)
            for path, seal in beside.items():
                place, _, name = path.rpartition("/")
                by_place[place][name] = seal
            for place, seals in by_place.items():
                yield shard, broken_below(folder, place, seals, FOLDER_BYTES // len(shards))


def _sealed(folder: Storage, shard: str, noted: Mapping[str, Seal]) -> dict[str, Seal]:
    """Return the seals of a shard that was just written and, if need be, of the list beside it.

    Raises:
        SandboxError: its format has not written it.
    """
    seal = noted.get(shard) or folder.seal(shard)
    if seal is None:
        raise SandboxError(f"{folder.shown}/{shard}: its format has not written this file")
    if not (beside := {path: one for path, one in noted.items() if path != shard}):
        return {shard: seal}
    listed = _list(shard)
    with folder.noting() as written:
        folder.write_sealed(listed, {"files": seals_to_json(beside)})
    return {shard: seal, listed: written[listed]}


def _list(shard: str) -> str:
    """Return the file that lists what lies beside a shard."""
    return f"{_LISTS}{shard}.json"


def _seals(folder: Storage, marker: dict[str, Any]) -> dict[str, Seal]:
    """Return what a marker says of the shards.

    Raises:
        ValueError: it is damaged.
    """
    if "files" in marker:
        return seals_from_json(marker["files"])
    # Of an earlier version: what is there counts as it is.
    there = (name for name in folder.names("") if name != MARKER)
    return {name: seal for name in there if (seal := folder.seal(name, -1))}


def stored_rows(table: SampleTable, rows: NDArray[np.int64]) -> Iterator[Row]:
    """Yield rows of the sample table as they come, a few of them in memory at a time."""
    if table.is_wide:
        yield from _wide_rows(table, rows)
        return
    for start in range(0, len(rows), _READ_ROWS):
        some = rows[start : start + _READ_ROWS]
        read = table.take(some, ["image", "text", "meta"])
        columns = (read[name].to_pylist() for name in ("image", "text", "meta"))
        for row_id, image, text, meta in zip(some.tolist(), *columns, strict=True):
            yield Row(row_id, (Media("image", image),), text, meta)


def _wide_rows(table: SampleTable, rows: NDArray[np.int64]) -> Iterator[Row]:
    for start in range(0, len(rows), _READ_WIDE):
        some = rows[start : start + _READ_WIDE]
        read = table.take(some, ["text", "meta"])
        columns = (read["text"].to_pylist(), read["meta"].to_pylist())
        media, turns = table.media(some), table.turns(some)
        for row_id, text, meta, own, said in zip(
            some.tolist(), *columns, media, turns, strict=True
        ):
            yield Row(row_id, own, text, meta, said, is_pair=False)
