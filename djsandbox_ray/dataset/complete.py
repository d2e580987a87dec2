"""``dataset.json``: the mark of a complete dataset, by which its files are known to be whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from djsandbox_ray import records
from djsandbox_ray.errors import Damaged, Missing
from djsandbox_ray.storage.seals import (
    Seal,
    broken,
    broken_below,
    seals_from_json,
    seals_of,
    seals_to_json,
    shortened,
)
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

FOLDER = "datasets"
_MARKER, _REJECTED = "dataset.json", "rejected.parquet"


def home_of(dataset_id: str) -> str:
    """Return the folder of a dataset; on an object store its table lies elsewhere."""
    return f"{FOLDER}/{dataset_id}"


def mark_complete(storage: Storage, dataset: records.Dataset, told: Mapping[str, Any]) -> None:
    """Write ``dataset.json``, last of all: with size and digest of every file.

    Args:
        storage: where the dataset lies.
        dataset: what was read.
        told: what else is said of it; ``rejected.parquet`` is there already.
    """
    home = home_of(dataset.id)
    rejected = storage.seal(f"{home}/{_REJECTED}")
    if rejected is None:
        raise ValueError(f"{home}/{_REJECTED} is to be written first")
    content = {
        **asdict(dataset),
        **told,
        "files": seals_to_json(seals_of(storage, dataset.table)),
        "rejected_file": rejected.plain,
    }
    storage.write_sealed(f"{home}/{_MARKER}", content)


def told_of(storage: Storage, dataset: records.Dataset) -> dict[str, Any]:
    """Return what the mark of a dataset says."""
    return storage.read_sealed(f"{home_of(dataset.id)}/{_MARKER}")


def used_tables(storage: Storage, *, all_known: bool = False) -> set[str]:
    """Return the paths of all tables that datasets name.

    Args:
        storage: where the datasets lie.
        all_known: whether that is asked for what no dataset has.

    Raises:
        Damaged: only then: what a dataset names cannot be read.
    """
    tables = set()
    for name in storage.names(FOLDER):
        try:
            tables.add(str(storage.read_sealed(f"{home_of(name)}/{_MARKER}").get("table")))
        except Missing:
            continue
        except Damaged:  # it is to be read again
            if all_known:
                raise
    return tables


def complete_dataset(storage: Storage, home: str) -> records.Dataset | None:
    """Return the dataset in a folder; None if there is none that is complete and whole.

    One that is damaged is said to be: it is to be read again.
    """
    path = f"{home}/{_MARKER}"
    try:
        marker = storage.read_sealed(path)
        dataset = _dataset(storage, path, marker)
        wrong = _broken(storage, path, marker)
    except Missing:
        return None
    except Damaged as error:
        wrong = {error.what: "(what says that the dataset is complete)"}
    if not wrong:
        return dataset
    logger.warning("%s: the dataset is read again", shortened(wrong))
    return None


def whole_table(storage: Storage, home: str) -> str | None:
    """Return the path of a dataset's table; None if none is known to be whole.

    What lies beside it may be damaged: others may be reading the table, which stays then.
    """
    path = f"{home}/{_MARKER}"
    try:
        marker = storage.read_sealed(path)
        dataset = _dataset(storage, path, marker)
        return None if _broken_table(storage, path, marker) else dataset.table
    except Damaged:
        return None


def broken_dataset(storage: Storage, dataset: records.Dataset) -> dict[str, str]:
    """Return what is wrong with the files of a dataset, by path; empty where all are whole."""
    path = f"{home_of(dataset.id)}/{_MARKER}"
    try:
        marker = storage.read_sealed(path)
        named = _dataset(storage, path, marker)
        if named.table == dataset.table:
            return _broken(storage, path, marker)
    except Damaged as error:
        return {path: "is not there" if isinstance(error, Missing) else "is damaged"}
    # Another run was faster, or has read it again: its table holds the same.
    return {} if storage.stamps(dataset.table) else {dataset.table: "is not there"}


def _dataset(storage: Storage, path: str, marker: Mapping[str, Any]) -> records.Dataset:
    try:
        named = dict(marker.get("classes", {}))
        modalities = marker.get("modalities", ("text", "image"))  # earlier there were pairs only
        return records.Dataset(
            str(marker["id"]),
            str(marker["table"]),
            int(marker["rows"]),
            int(marker["rejected"]),
            classes={key: tuple(map(str, names)) for key, names in named.items()},
            modalities=tuple(map(str, modalities)),
            pairs=bool(marker.get("pairs", True)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise storage.damaged(path, f"it lacks {error}") from None


def _broken(storage: Storage, path: str, marker: Mapping[str, Any]) -> dict[str, str]:
    wrong = _broken_table(storage, path, marker)
    if "rejected_file" not in marker:  # of an earlier version
        return wrong
    try:
        rejected = Seal.read(marker["rejected_file"])
    except ValueError as error:
        raise storage.damaged(path, str(error)) from None
    beside = f"{path.rpartition('/')[0]}/{_REJECTED}"
    return wrong | broken(storage, {beside: rejected})


def _broken_table(storage: Storage, path: str, marker: Mapping[str, Any]) -> dict[str, str]:
    table = str(marker["table"])
    if "files" not in marker:  # of an earlier version
        return {} if storage.stamps(table) else {table: "is not there"}
    try:
        seals = seals_from_json(marker["files"])
    except (ValueError, KeyError) as error:
        raise storage.damaged(path, str(error)) from None
    return broken_below(storage, table, seals)
