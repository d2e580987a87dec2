"""The commands around a recipe: show it, have Data-Juicer run it, write its rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from djsandbox_ray.dataset.complete import complete_dataset
from djsandbox_ray.dataset.ingest import ingest, outcome
from djsandbox_ray.dataset.source import SOURCES, IngestConfig
from djsandbox_ray.dataset.source_files import find_files
from djsandbox_ray.dataset.writers.materialise import MARKER, Materialised, materialise
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.connection import connect
from djsandbox_ray.recipes.acceptance import accept, explain
from djsandbox_ray.recipes.recipe_file import Promise, RecipeFile, promised_ranges, read_recipe
from djsandbox_ray.records import Acceptance, Dataset
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.operators import operator_id, resolve_paths
from djsandbox_ray.stats.parts import StatisticColumns, broken_parts, folder
from djsandbox_ray.storage.hub import check_push, push
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.late_recipe import write_late_recipe

_SUFFIXES = {
    "jsonl": (".jsonl",),
    "parquet": (".parquet",),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
}
_HUB_FORM = "huggingface"


def show_recipes(name: str, url: str, output: str | None, console: Console) -> None:
    """Say where the recipes of a run are and what speaks for them.

    Of a run whose workflow writes none, one is made of what it has found.

    Args:
        name: of the run.
        url: the storage.
        output: also copy the one recipe to this file, and its evidence beside it.
        console: to print on.

    Raises:
        BadInput: there is no such run, not exactly one recipe to be copied, or another file in the
            place of a copy.
        SandboxError: the run has no recipe; says why.
    """
    storage = Storage(url)
    run = FinishedRun(storage, name)
    if not run.evidence():
        write_late_recipe(run)
    found = run.evidence()
    for item in found:
        for line in _summary(storage, item):
            console.print(Text(line), soft_wrap=True)
    if not any(item["recipe"] for item in found):
        raise SandboxError(f"the run {name!r} has no recipe that may be used: see above")
    if output is not None:
        _copy(storage, found, Path(output))
        console.print(Text(f"written  {output}"), soft_wrap=True)


def accept_recipe(recipe_path: str, source: str, url: str, console: Console) -> Acceptance:
    """Have Data-Juicer run a recipe on a dataset, and compare with the statistics.

    Args:
        recipe_path: the YAML file.
        source: a dataset id of the storage, or the path or URL of JSON Lines in Data-Juicer's
            layout, Parquet files or WebDataset tars, which are ingested.
        url: the storage.
        console: to print on.

    Raises:
        BadInput: the recipe or the data cannot be used.
        SandboxError: Data-Juicer failed, or kept other rows.
    """
    storage, recipe = Storage(url), read_recipe(Path(recipe_path))
    ranges = promised_ranges(recipe)  # what is wrong with it shows before anything is computed
    with Progress(console) as progress:
        dataset = _dataset(storage, source, progress)
        columns = _statistics(storage, dataset, recipe, progress)
        promise = Promise(ranges, columns)
        progress.stage("accept")
        folder = f"acceptances/{content_id('acceptance', recipe.path.read_text(), dataset.id)}"
        done = accept(recipe.path, storage, dataset, promise.mask(), folder, promise=promise)
    lines = explain(storage.read_sealed(done.path))
    if done.differing:
        raise SandboxError("\n".join([*lines, f"all of it: {storage.shown}/{done.path}"]))
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    return done


def materialise_rows(
    name: str,
    pool: str | None,
    recipe_path: str | None,
    url: str,
    console: Console,
    *,
    output: str,
    form: str,
    rows_per_shard: int,
    repository: str | None = None,
) -> Materialised:
    """Write the rows of a pool, or those that a recipe keeps of a run's dataset, to files.

    Raises:
        BadInput: not exactly one of pool and recipe; no such run, pool or recipe; a format that the
            hub would not show, or a refusal of the hub; see
            :func:`~djsandbox_ray.dataset.writers.materialise.materialise`.
        SandboxError: the hub does not answer.
    """
    if (pool is None) == (recipe_path is None):
        raise BadInput("a pool or --recipe is needed, and not both")
    if repository is not None:
        if form != _HUB_FORM or not Storage(output).is_local:
            raise BadInput(f"--push is for --format {_HUB_FORM} in a local folder")
        check_push(repository)
    storage = Storage(url)
    run = FinishedRun(storage, name)
    dataset = run.dataset()
    with Progress(console) as progress:
        rows = run.pool_rows(pool) if pool else _kept(storage, dataset, str(recipe_path), progress)
        progress.stage("materialise")
        done = materialise(
            storage,
            dataset,
            rows,
            output,
            form=form,
            rows_per_shard=rows_per_shard,
            about=[_provenance(run, pool, recipe_path)],
            progress=lambda count, total: progress.update(done=count, total=total),
        )
    places = f"{done.rows} rows in {done.shards} shards: {Storage(output).shown}"
    console.print(Text(places), soft_wrap=True)
    if repository is not None:
        address = push(Path(Storage(output).url), repository, "dataset", [MARKER])
        console.print(Text(f"pushed  {address}"), soft_wrap=True)
    return done


def _provenance(run: FinishedRun, name: str | None, recipe_path: str | None) -> str:
    """Say in a sentence of Markdown which rows of a run's dataset these are."""
    of = f"of the run `{run.name}` of djsandbox_ray"
    if name is None:
        return f"What the recipe `{Path(str(recipe_path)).name}` keeps of the dataset {of}."
    _, pool = run.pools_with(name)[0]
    if pool.statistic is not None and pool.low is not None and pool.high is not None:
        by = f", which `{pool.operator}` computes" if pool.operator else ""
        what = f"`{pool.statistic}`{by}, lies between {pool.low:g} and {pool.high:g}"
        return f"The pool `{pool.id}` {of}: the rows of which {what}."
    if pool.parts:
        parts = ", ".join(f"`{part}`" for part in pool.parts)
        return f"The pool `{pool.id}` {of}: rows that these pools have in common: {parts}."
    return f"The pool `{pool.id}` {of}."


def _kept(
    storage: Storage, dataset: Dataset, recipe_path: str, progress: Progress
) -> NDArray[np.int64]:
    recipe = read_recipe(Path(recipe_path))
    ranges = promised_ranges(recipe)
    columns = _statistics(storage, dataset, recipe, progress)
    return np.flatnonzero(Promise(ranges, columns).mask())


def _dataset(storage: Storage, source: str, progress: Progress) -> Dataset:
    if "/" not in source and (found := complete_dataset(storage, f"datasets/{source}")):
        return found
    form = _form(source)
    kind = SOURCES.get(form)
    opened = kind(kind.Config.model_validate({"type": form, "path": source}))
    opened.shards()
    progress.stage("ingest")
    connect()
    dataset = ingest(
        opened,
        storage,
        max_rejected=IngestConfig().max_rejected,
        progress=lambda done, total: progress.update(done=done, total=total),
        note=lambda text: progress.note(f"ingest: {text}"),
    )
    progress.note(f"ingest: {dataset.id}: {outcome(storage, dataset)}")
    return dataset


def _form(source: str) -> str:
    """Say by their names which form files have.

    Raises:
        BadInput: there are none, or of several forms.
    """
    names = [file.path for file in find_files(source, sum(_SUFFIXES.values(), ()))]
    forms = {
        next((form for form, ends in _SUFFIXES.items() if name.endswith(ends)), None)
        for name in names
    }
    form = forms.pop() if len(forms) == 1 else None
    if form is None:
        endings = ", ".join(end for ends in _SUFFIXES.values() for end in ends)
        raise BadInput(
            f"{source!r}: files of one form are needed, whose names end in one of {endings}; or "
            "the id of a dataset of the storage"
        )
    return form


def _statistics(
    storage: Storage, dataset: Dataset, recipe: RecipeFile, progress: Progress
) -> StatisticColumns:
    progress.stage("statistics")
    ids = [operator_id(resolve_paths(spec)) for spec in recipe.operators]
    if any(broken_parts(storage, folder(dataset.id, identity)) for identity in ids):
        connect()
    statistics = compute_statistics(
        storage,
        dataset,
        recipe.operators,
        progress=lambda done, total: progress.update(done=done, total=total),
        note=lambda text: progress.note(f"statistics: {text}"),
    )
    return StatisticColumns(storage, statistics.statistics, dataset.rows)


def _summary(storage: Storage, evidence: Mapping[str, Any]) -> list[str]:
    """Put the evidence for a recipe into lines: effect, interval, retention, caveats."""
    recipe, effect, retention = evidence["recipe"], evidence["effect"], evidence["retention"]
    lines = [
        f"recipe    {storage.shown}/{recipe}" if recipe else "recipe    none: a policy forbids it",
        f"evidence  {storage.shown}/{evidence['evidence']}",
        f"keeps     {retention['share']:.2%} of {evidence['dataset']['id']} "
        f"({retention['rows']} of {evidence['dataset']['rows']} rows)",
    ]
    measured = [name for name in ("first", "combination", "confirmed") if effect.get(name)]
    for name in measured:
        found = effect[name]
        low, high = found["interval"]
        lines.append(
            f"effect    {found['change']:+.4g} [{low:.4g}, {high:.4g}] ({effect['unit']}, "
            f"{found['verdict']}, {found['seeds']} seeds): {name}"
            if None not in (found["change"], low, high)
            else f"effect    not known ({found['verdict']}): {name}"
        )
    if not measured:
        lines.append("effect    not measured: no model was trained on what it keeps")
    lines += [f"forbidden {line}" for line in evidence["broken_policies"]]
    return lines + [f"caveat    {line}" for line in evidence["caveats"]]


def _copy(storage: Storage, found: Sequence[Mapping[str, Any]], output: Path) -> None:
    usable = [item for item in found if item["recipe"]]
    if len(usable) != 1:
        names = ", ".join(item["recipe"] for item in usable) or "none"
        raise BadInput(f"--output is for one recipe; those that may be used: {names}")
    (item,) = usable
    if not output.suffix:
        raise BadInput(f"--output {output}: a file is needed, such as {output}/recipe.yaml")
    target = Storage(str(output.parent))
    written = {f"{output.stem}.evidence.json": "evidence", output.name: "recipe"}
    contents = {name: storage.read_bytes(item[what]) for name, what in written.items()}
    for name, content in contents.items():
        if target.exists(name) and target.read_bytes(name) != content:
            raise BadInput(
                f"{str(output.parent / name)!r} exists, holds something else and is not "
                "overwritten: --output names another"
            )
    for name, content in contents.items():
        target.write_bytes(name, content)
