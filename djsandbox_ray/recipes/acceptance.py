"""Does Data-Juicer itself keep the rows that the statistics promised?

``write_input`` lays the rows out as the recipe reads them, ``executor`` runs Data-Juicer on them in
a process of its own, and what it kept is compared by row id: positions mean nothing, since its
formatter drops rows too. Samples are streamed to files; row ids come back.

Where a filter compares each image or video of a sample, and the statistic is their mean, no
threshold can mend that they differ. A row is counted apart if its values, computed once more, say
that of it: see :mod:`~djsandbox_ray.recipes.decisions`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Kind
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.writers.materialise import stored_rows
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id, rows_hash
from djsandbox_ray.recipes.decisions import decisions
from djsandbox_ray.recipes.executor import execute
from djsandbox_ray.recipes.recipe_file import Promise, RecipeFile, read_recipe, runnable
from djsandbox_ray.records import Acceptance, Dataset
from djsandbox_ray.stats.operators import meta_text
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.store import Storage

ROW_ID = "row_id"
APART = "acceptance_several.parquet"
"""Beside ``acceptance.json``, where there are any: the rows that are counted apart, and whether
Data-Juicer kept them."""
SHOWN = 20
"""Differing rows that are described."""
_FOLDER_ROWS = 1000
_STATS = "__dj__stats__"


def accept(
    recipe_path: Path,
    storage: Storage,
    dataset: Dataset,
    promised: NDArray[np.bool_] | NDArray[np.int64],
    folder: str,
    *,
    promise: Promise | None = None,
    rows: NDArray[np.int64] | None = None,
    processes: int = 1,
    models: str | None = None,
) -> Acceptance:
    """Run a recipe with Data-Juicer and compare what it keeps with a promise.

    Args:
        recipe_path: the YAML file.
        storage: where the sample table is and the result goes.
        dataset: the sample table.
        promised: mask of shape (dataset.rows,), or row ids: what the recipe should keep.
        folder: in the storage; ``acceptance.json`` goes there.
        promise: explains differing rows by their statistics.
        rows: row ids to try; by default all rows.
        processes: of Data-Juicer.
        models: the folder of model files; None for what the environment says.

    Returns:
        The comparison; ``differing`` is 0 where Data-Juicer kept exactly the promised rows, but
        for those of which it must decide otherwise, as it compares their media one by one.

    Raises:
        BadInput: the recipe cannot be read, or ``promised`` or ``rows`` do not fit the dataset.
        SandboxError: Data-Juicer failed.
    """
    recipe = read_recipe(recipe_path)
    wanted = _mask(promised, dataset.rows, "promised")
    tried = np.ones(dataset.rows, bool) if rows is None else _mask(rows, dataset.rows, "rows")
    if not tried.any():
        raise BadInput("there are no rows to try the recipe on")
    with temporary() as place:
        data, work = place / "data", place / "work"
        work.mkdir()
        table = SampleTable(storage.uri(dataset.table))
        file = write_input(recipe, table, np.flatnonzero(tried), data)
        with runnable(recipe, place) as local:
            done = execute(local, file, work, processes=processes, models=models)
            kept = _read_kept(done.kept, tried)
            differing = np.flatnonzero((kept != wanted) & tried)
            several = np.empty(0, np.int64)
            if len(differing):
                found = decisions(
                    read_recipe(local),
                    table,
                    differing,
                    pairs=dataset.pairs,
                    promised=promise.ranges if promise else (),
                    models=models,
                )
                known = found.data_juicer == kept[differing]
                known &= found.statistics == wanted[differing]
                several, differing = differing[known], differing[~known]
        shown = differing[:SHOWN]
        measured = _measured(done.kept, {*shown[kept[shown]].tolist()})
    result: dict[str, Any] = {
        "recipe": recipe.path.name,
        "dataset": dataset.id,
        "rows": int(tried.sum()),
        "promised": int((wanted & tried).sum()),
        "kept": int(kept.sum()),
        "differing": len(differing),
        "only_data_juicer": int(kept[differing].sum()),
        "only_statistics": int(wanted[differing].sum()),
        "several": len(several),
        "faults": list(done.faults),
        "differences": _differences(shown, kept, promise, measured),
    }
    path, apart = f"{folder}/acceptance.json", f"{folder}/{APART}"
    storage.remove(apart)  # of an earlier call
    if len(several):
        storage.write_table(apart, pa.table({"row_id": several, "kept": kept[several]}))
    storage.write_sealed(path, result)
    kept_rows = rows_hash(np.flatnonzero(kept))
    identity = content_id("acceptance", result, recipe.path.read_text(), kept_rows)
    return Acceptance(
        identity,
        path,
        result["rows"],
        result["kept"],
        result["differing"],
        result["several"],
        apart if len(several) else "",
    )


def write_input(
    recipe: RecipeFile, table: SampleTable, rows: NDArray[np.int64], folder: Path
) -> Path:
    """Write rows as Data-Juicer's JSON Lines, with the columns that the recipe reads.

    An operator that looks for tokens of media gets a text with them, another one the text without:
    so the statistics were computed. Images and videos are files only where an operator reads them.
    A field of the meta data is a column of its own, with the dot in its name; an empty text where
    a sample has none.

    Returns:
        The file; every line has its ``row_id``.
    """
    folder.mkdir(parents=True)
    texts = recipe.text_columns
    read: dict[Kind, tuple[str, ...]] = {
        "image": recipe.media_columns("image"),
        "video": recipe.media_columns("video"),
    }
    path = folder / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(stored_rows(table, rows)):
            line: dict[str, Any] = {ROW_ID: row.row_id}
            line |= {
                key: row.tagged_text if token else row.plain_text for key, token in texts.items()
            }
            places: dict[Kind, list[str]] = {"image": [], "video": []}
            for name, medium in row.files:
                if read[medium.kind]:
                    place = f"{medium.kind}s/{number // _FOLDER_ROWS:06d}/{name}"
                    target = folder / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(medium.data)
                    places[medium.kind].append(place)
            line |= {key: places[kind] for kind, keys in read.items() for key in keys}
            others = {key: meta_text(row.meta, key) for key in recipe.second_columns}
            file.write(json.dumps(line | others) + "\n")
    return path


def explain(result: Mapping[str, Any]) -> list[str]:
    """Put an ``acceptance.json`` into words, one line each."""
    lines = [
        f"Data-Juicer kept {result['kept']} of {result['rows']} rows, "
        f"the statistics promised {result['promised']}: "
        + (f"{result['differing']} rows differ" if result["differing"] else "the same rows")
    ]
    for item in result["differences"]:
        values = ", ".join(map(_value_in_words, item["statistics"])) or "no statistics at hand"
        own = f"; Data-Juicer computed {item['data_juicer']}" if item["data_juicer"] else ""
        lines.append(f"row {item['row_id']}: kept by {item['kept_by']} only: {values}{own}")
    if result["several"]:
        lines.append(
            f"{result['several']} other rows differ as their values say: of several images, videos "
            "or texts Data-Juicer compares each, of none it keeps the row; the statistic is a mean "
            f"({APART} lists them)"
        )
    if result["differing"] > len(result["differences"]):
        lines.append(f"... and {result['differing'] - len(result['differences'])} more rows")
    if result["differing"]:
        lines += [f"Data-Juicer lost rows by an error in {fault}" for fault in result["faults"]]
    return lines


def _value_in_words(item: Mapping[str, Any]) -> str:
    low = "-inf" if item["low"] is None else repr(item["low"])
    high = "inf" if item["high"] is None else repr(item["high"])
    relation = "in" if item["inside"] else "not in"
    return f"{item['statistic']} = {item['value']!r} {relation} [{low}, {high}]"


def _mask(given: NDArray[Any], rows: int, what: str) -> NDArray[np.bool_]:
    given = np.asarray(given)
    if given.dtype == np.bool_:
        if given.shape != (rows,):
            raise BadInput(f"{what}: a mask of shape ({rows},) is needed, not {given.shape}")
        return given
    if given.size and (given.min() < 0 or given.max() >= rows):
        raise BadInput(f"{what}: row ids from {given.min()} to {given.max()} in {rows} rows")
    mask = np.zeros(rows, bool)
    mask[given.astype(np.int64)] = True
    return mask


def _read_kept(path: Path, tried: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of the rows that were kept."""
    kept = np.zeros(len(tried), bool)
    for row_id, _ in _lines(path):
        if not 0 <= row_id < len(tried) or not tried[row_id] or kept[row_id]:
            raise SandboxError(f"Data-Juicer gave row {row_id} twice, or never got it")
        kept[row_id] = True
    return kept


def _measured(path: Path, rows: Collection[int]) -> dict[int, Any]:
    """Return what Data-Juicer has computed of some rows that it kept."""
    return {row_id: stats for row_id, stats in _lines(path) if row_id in rows} if rows else {}


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            yield int(entry[ROW_ID]), entry.get(_STATS)


def _differences(
    rows: NDArray[np.int64],
    kept: NDArray[np.bool_],
    promise: Promise | None,
    measured: Mapping[int, Any],
) -> list[dict[str, Any]]:
    known: list[list[dict[str, Any]]] = promise.explain(rows) if promise else [[] for _ in rows]
    return [
        {
            "row_id": row,
            "kept_by": "data_juicer" if kept[row] else "statistics",
            "statistics": statistics,
            "data_juicer": measured.get(row),
        }
        for row, statistics in zip(rows.tolist(), known, strict=True)
    ]
