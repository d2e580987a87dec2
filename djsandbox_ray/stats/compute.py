"""Compute the statistics of a dataset: only what is not there yet, in one pass over the table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Annotated, Any, Literal

from pydantic import Field

from djsandbox_ray.cluster import connect
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Dataset, Statistic, Statistics
from djsandbox_ray.sections import Section
from djsandbox_ray.stats import parts
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.names import statistic_names
from djsandbox_ray.stats.needs import check_needs
from djsandbox_ray.stats.operators import OperatorSpec, operator_id, resolve_paths
from djsandbox_ray.stats.worker import Job, StatisticsWorker
from djsandbox_ray.storage import Storage

Progress = Callable[[int, int], None]


class StatisticsConfig(Section):
    """How statistics are computed; changes nothing in them."""

    actors: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Ray actors; ``auto`` is one per CPU (or per share of a GPU) of the cluster."""
    cpus_per_actor: float = Field(0.5, gt=0)
    """CPUs that Ray reserves per actor. Less than one leaves room for Ray Data's own tasks, without
    which a pipeline on a full cluster waits forever; an actor computes in one thread, or in this
    number of threads if it is greater."""
    gpus_per_actor: float = Field(0.0, ge=0)
    """GPUs (or a share of one) per actor; with 0 every model runs on the CPU."""
    batch_size: int = Field(32, ge=1)
    """Rows that are computed together, and whose decoded images are in memory at once."""


def compute_statistics(
    storage: Storage,
    dataset: Dataset,
    operators: Sequence[OperatorSpec],
    *,
    settings: StatisticsConfig | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Return the statistics of a dataset, computing those that the storage does not hold.

    An operator that is complete is not computed again; of an incomplete one (a killed run, a new
    operator), only the ranges of rows without a part are.

    Args:
        storage: where the sample table is and the statistics go.
        dataset: the sample table.
        operators: from :func:`~djsandbox_ray.stats.operators.parse_process`.
        settings: actors and batches.
        progress: called with (rows done, rows to do) after every range that is computed.

    Raises:
        BadInput: an operator lacks something, or cannot compute a plain sample.
        SandboxError: an operator failed on every row.
    """
    settings = settings or StatisticsConfig()
    operators = [resolve_paths(spec) for spec in operators]
    ids = [operator_id(spec) for spec in operators]
    pending = [
        (spec, identity)
        for spec, identity in zip(operators, ids, strict=True)
        if not storage.exists(parts.marker(dataset.id, identity))
    ]
    if pending:
        check_needs([spec for spec, _ in pending])
        _compute(storage, dataset, pending, settings, progress)
        failed = [_complete(storage, dataset, spec, identity) for spec, identity in pending]
        if any(failed):
            raise SandboxError("\n".join(problem for problem in failed if problem))
    statistics = tuple(
        Statistic(name, key, spec.name, identity, parts.folder(dataset.id, identity))
        for spec, identity, names in zip(operators, ids, statistic_names(operators), strict=True)
        for key, name in zip(spec.keys, names, strict=True)
    )
    named = [[statistic.name, statistic.operator_id] for statistic in statistics]
    return Statistics(content_id("statistics", dataset.id, named), statistics)


def _compute(
    storage: Storage,
    dataset: Dataset,
    pending: Sequence[tuple[OperatorSpec, str]],
    settings: StatisticsConfig,
    progress: Progress | None,
) -> None:
    """Run one pass of Ray Data over the ranges that lack a part of any operator."""
    folders = tuple(parts.folder(dataset.id, identity) for _, identity in pending)
    tasks = _tasks(storage, dataset.rows, folders)
    if not tasks:
        return
    job = Job(
        storage=storage.url,
        table=dataset.table,
        operators=tuple((spec.name, dict(spec.params)) for spec, _ in pending),
        folders=folders,
        batch_size=settings.batch_size,
        threads=max(1, int(settings.cpus_per_actor)),
        gpu=settings.gpus_per_actor > 0,
    )
    done, total = 0, sum(task["stop"] - task["start"] for task in tasks)
    for row in _stream(tasks, job, settings).iter_rows():
        report = json.loads(row["report"])
        if "error" in report:
            raise BadInput(report["error"])
        done += report["rows"]
        if progress is not None:
            progress(done, total)


def _tasks(storage: Storage, rows: int, folders: Sequence[str]) -> list[dict[str, Any]]:
    """List the ranges that lack a part, each with the indices of the operators that lack it."""
    present = [set(storage.names(folder)) for folder in folders]
    tasks = []
    for start, stop in parts.ranges(rows):
        name = parts.part("", start).lstrip("/")
        lacking = [index for index, names in enumerate(present) if name not in names]
        if lacking:
            tasks.append({"start": start, "stop": stop, "operators": lacking})
    return tasks


def _stream(tasks: Sequence[dict[str, Any]], job: Job, settings: StatisticsConfig) -> Any:
    """Return the pipeline: one block per range, and actors that read the table themselves."""
    connect()
    import ray
    from ray.data import ActorPoolStrategy

    items = [{"task": json.dumps(task)} for task in tasks]
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        StatisticsWorker,
        fn_constructor_args=(job,),
        batch_size=1,
        num_cpus=settings.cpus_per_actor,
        num_gpus=settings.gpus_per_actor or None,
        compute=ActorPoolStrategy(size=_actors(settings, len(items))),
    )


def _actors(settings: StatisticsConfig, tasks: int) -> int:
    """Return the number of actors.

    Raises:
        BadInput: the cluster is too small for them, in which case Ray would wait forever.
    """
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = math.floor(resources.get("CPU", 0) / settings.cpus_per_actor)
    if settings.gpus_per_actor:
        fits = min(fits, math.floor(resources.get("GPU", 0) / settings.gpus_per_actor))
    # One per CPU, not one per reserved share of it: an actor keeps a whole CPU busy.
    auto = math.floor(resources.get("CPU", 0) / max(1.0, settings.cpus_per_actor))
    wanted = max(1, min(fits, auto)) if settings.actors == "auto" else settings.actors
    if wanted > fits:
        raise BadInput(
            f"statistics: {wanted} actors of {settings.cpus_per_actor} CPUs and "
            f"{settings.gpus_per_actor} GPUs do not fit into the cluster "
            f"({resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs)"
        )
    return min(wanted, tasks)


def _complete(storage: Storage, dataset: Dataset, spec: OperatorSpec, identity: str) -> str | None:
    """Write an operator's marker, once all its parts are seen to be whole.

    Returns:
        What is wrong, if the operator failed on every row; then its parts are removed.

    Raises:
        SandboxError: a part is missing.
    """
    folder = parts.folder(dataset.id, identity)
    reports = []
    for start, stop in parts.ranges(dataset.rows):
        report = parts.read_report(storage, parts.part(folder, start))
        if report is None or report.rows != stop - start:
            raise SandboxError(f"{spec.name}: rows {start} to {stop} of {folder} are not there")
        reports.append(report)
    whole = reduce(add, reports)
    if whole.failed == whole.rows:
        storage.remove(folder)
        return f"{spec.name} failed on every row, first: {whole.examples[0][1]}"
    storage.write_json(
        parts.marker(dataset.id, identity),
        {
            "operator": spec.name,
            "params": dict(spec.params),
            "data_juicer": load().version,
            "statistics": list(spec.keys),
            "rows": whole.rows,
            "missing": whole.missing,
            "failed": whole.failed,
            "failures": [{"row_id": row, "reason": reason} for row, reason in whole.examples],
            "seconds": round(whole.seconds, 3),
        },
    )
    return None
