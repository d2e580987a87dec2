"""Compute the statistics of a dataset: only what is not there yet, in one pass over the table."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from itertools import chain, pairwise
from operator import add, itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.actors import OnProgress
from djsandbox_ray.nodes.connection import check_placeable
from djsandbox_ray.nodes.kinds import NodeKind, bundle
from djsandbox_ray.nodes.waiting import AwaitRoom
from djsandbox_ray.records import Cost, Dataset, Statistic, Statistics
from djsandbox_ray.settings.sections import MOST_PROCESSES, Section
from djsandbox_ray.stats import parts, unfinished
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.endpoint import EndpointConfig
from djsandbox_ray.stats.fused import only_looks_at_text
from djsandbox_ray.stats.needs import check_needs
from djsandbox_ray.stats.operators import (
    OperatorSpec,
    lacking,
    operator_id,
    resolve_paths,
    statistic_names,
)
from djsandbox_ray.stats.worker import OperatorTask, run_pass
from djsandbox_ray.storage.lease import Lease, take
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

TEXT_BATCH = 256
"""Least rows that are computed together where operators only look at text: a call for fewer costs
more than the rows."""
TEXT_SHARE = 8
"""Ranges of text that are worth an actor: the process that computes them takes about 3 CPU-seconds
to start, a range a fraction of one."""
Span = tuple[int, int]
"""Rows from the first up to the second, which is not among them."""


class StatisticsConfig(Section):
    """How statistics are computed. Of these, only the content of models changes what they are."""

    actors: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] | Literal["auto"] = "auto"
    """Ray actors; ``auto`` is one per CPU (or per share of a GPU) of the cluster, and fewer where
    there is so little text that to start them would take longer."""
    cpus_per_actor: float = Field(0.5, gt=0, le=MOST_PROCESSES)
    """CPUs that Ray reserves per actor. Less than one leaves room for Ray Data's own tasks, without
    which a pipeline on a full cluster waits forever; an actor computes in one thread, or in this
    number of threads if it is greater."""
    gpus_per_actor: float = Field(0.0, ge=0, le=MOST_PROCESSES)
    """GPUs (or a share of one) per actor; with 0 every model runs on the CPU."""
    resources: NodeKind = NodeKind()
    """Which nodes operators run on, those of diversity and of the acceptance test too."""
    models: str | None = Field(None, min_length=1)
    """The folder of model files that operators find by name (``lid.176.bin``, ``en.arpa.bin``, or
    ``EleutherAI/pythia-6.9b-deduped``), at the same path on every node; in place of what the
    environment variable DATA_JUICER_EXTERNAL_MODELS_HOME says."""
    endpoint: EndpointConfig | None = None
    """Where operators whose model is behind an API find it; one actor makes all their requests."""
    batch_size: int = Field(32, ge=1, le=1 << 20)
    """Rows that are computed together, and whose decoded images are in memory at once; of text
    without a model at least 256."""

    @field_validator("models")
    @classmethod
    def _a_folder(cls, models: str | None) -> str | None:
        if models is not None and "://" in models:
            raise ValueError("a folder is needed that every node has, not a URL")
        # Actors have a working directory of their own.
        return None if models is None else str(Path(models).resolve())

    def group(self) -> list[dict[str, float]]:
        """Return what must have room at once, a bundle per actor; ``auto`` may come to one."""
        actor = bundle(self.cpus_per_actor, self.gpus_per_actor, self.resources)
        return [actor] * (1 if self.actors == "auto" else self.actors)


def compute_statistics(
    storage: Storage,
    dataset: Dataset,
    operators: Sequence[OperatorSpec],
    *,
    settings: StatisticsConfig | None = None,
    await_room: AwaitRoom = check_placeable,
    progress: OnProgress | None = None,
    spent: Callable[[Cost], None] | None = None,
    note: Callable[[str], None] = logger.warning,
) -> Statistics:
    """Return the statistics of a dataset, computing those that the storage does not hold.

    An operator that is complete is not computed again; of an incomplete one (a killed run, a new
    operator, files that are damaged), only the ranges of rows without a part are. Of several runs
    that compute on one dataset, one does at a time; the others wait, and find what it has computed.

    Args:
        storage: where the sample table is and the statistics go.
        dataset: the sample table.
        operators: from :func:`~djsandbox_ray.stats.operators.parse_process`.
        settings: actors and batches.
        await_room: waits until there are nodes for the actors; not called without work for them.
        progress: called with (rows done, rows to do) after every range that is computed.
        spent: called with the cost of the operators that this call has completed; parts that a
            killed run has left are among it. Not called when all were complete.
        note: told when another run is waited for.

    Raises:
        BadInput: an operator lacks something, cannot compute a plain sample, or reads what none of
            the samples has.
        SandboxError: an operator failed on every row, or a machine under it.
        Lost: this process was not heard of for long, and another run computes them now.
    """
    settings = settings or StatisticsConfig()
    _refuse_unreadable(dataset, operators)
    operators = [resolve_paths(spec) for spec in operators]
    ids = [operator_id(spec, settings.models) for spec in operators]
    wanted = [*zip(operators, ids, strict=True)]
    if pending := _pending(storage, dataset, wanted):
        check_needs(
            [spec for spec, _ in pending],
            models=settings.models,
            endpoint=settings.endpoint,
            places=[ids.index(identity) for _, identity in pending],
        )
        what = f"the folder of statistics of {dataset.id}"
        with take(storage, parts.lease(dataset.id), what, wait=True, note=note) as lease:
            # Who was waited for may have completed some.
            if pending := _pending(storage, dataset, wanted):
                cost, problems = _complete(
                    storage, dataset, pending, settings, await_room, progress, lease
                )
                if spent is not None:
                    spent(cost)
                if problems:
                    raise SandboxError("\n".join(problems))
    statistics = tuple(
        Statistic(name, key, spec.name, identity, parts.folder(dataset.id, identity))
        for spec, identity, names in zip(operators, ids, statistic_names(operators), strict=True)
        for key, name in zip(spec.keys, names, strict=True)
    )
    named = [[statistic.name, statistic.operator_id] for statistic in statistics]
    return Statistics(content_id("statistics", dataset.id, named), statistics)


def _refuse_unreadable(dataset: Dataset, operators: Sequence[OperatorSpec]) -> None:
    """Raise BadInput if operators read what no sample has: content ``any`` promises nothing."""
    lines = [
        f"{spec.name} reads {' and '.join(absent)}, but the samples of {dataset.id} have "
        f"{' and '.join(dataset.modalities)} alone"
        for spec in operators
        if (absent := lacking(spec, dataset.modalities, pairs=dataset.pairs))
    ]
    if lines:
        raise BadInput("\n".join(lines))


def _pending(
    storage: Storage, dataset: Dataset, operators: Sequence[tuple[OperatorSpec, str]]
) -> list[tuple[OperatorSpec, str]]:
    """Return those operators that are not complete, each with its id.

    Of those that have one id (of folders with the same content) the first computes for all.
    """
    unique: dict[str, OperatorSpec] = {}
    for spec, identity in operators:
        unique.setdefault(identity, spec)
    return [
        (spec, identity)
        for identity, spec in unique.items()
        if parts.broken_parts(storage, parts.folder(dataset.id, identity))
    ]


def _complete(
    storage: Storage,
    dataset: Dataset,
    pending: Sequence[tuple[OperatorSpec, str]],
    settings: StatisticsConfig,
    await_room: AwaitRoom,
    progress: OnProgress | None,
    lease: Lease,
) -> tuple[Cost, list[str]]:
    """Compute what is lacking and mark the operators as complete, if that is still ours to do.

    Returns:
        What they cost, and what is wrong with those that failed on every row.
    """
    start = time.perf_counter()
    ids = [identity for _, identity in pending]
    left = [_left_over(storage, parts.folder(dataset.id, identity)) for identity in ids]
    folder = unfinished.folder(dataset.id)
    pieces = unfinished.pieces(storage, folder)
    portions = _of_use(pieces, ids, left)
    # Of a killed run, the time that its rows took is known, not that of its actors.
    held = sum(report.seconds for reports in left for report in reports.values())
    files: dict[str, Iterable[str]] = {piece.path: piece.reports for piece in pieces}
    for asks in (False, True):  # who waits for a server holds up no other
        some = [index for index, (spec, _) in enumerate(pending) if spec.asks == asks]
        specs = [pending[index][0] for index in some]
        quick = all(only_looks_at_text(spec) for spec in specs)
        ranges = parts.ranges(dataset.rows, parts.ROWS_OF_TEXT if quick else parts.ROWS)
        tasks = _tasks(ranges, [sorted(left[index]) for index in some])
        if not tasks:
            continue
        together = max(settings.batch_size, TEXT_BATCH if quick else 1)
        held += run_pass(
            tasks,
            OperatorTask(
                storage=storage.url,
                table=dataset.table,
                operators=tuple((spec.name, dict(spec.params)) for spec in specs),
                ids=tuple(ids[index] for index in some),
                folder=folder,
                batch_size=parts.ROWS if asks else together,
                threads=max(1, int(settings.cpus_per_actor)),
                gpu=settings.gpus_per_actor > 0,
                pairs=dataset.pairs,
                models=settings.models,
                endpoint=settings.endpoint,
            ),
            group=settings.group()[:1] if asks else settings.group(),
            fill=not asks and settings.actors == "auto",
            share=TEXT_SHARE if quick else 1,
            await_room=await_room,
            progress=progress,
        )
        for task in tasks:
            operators = tuple(ids[some[index]] for index in task["operators"])
            path = unfinished.file(folder, task["start"], operators)
            files[path] = operators
            portions.append(unfinished.Portion(path, task["start"], task["stop"], operators))
    lease.check()
    unfinished.gather(storage, dataset.id, portions)
    lease.check()
    wholes = [_whole(storage, dataset, spec, identity) for spec, identity in pending]
    marked = [
        _mark(storage, dataset, spec, identity, whole)
        for (spec, identity), whole in zip(pending, wholes, strict=True)
    ]
    unfinished.clear(storage, dataset.id, files, ids)
    cost = Cost(
        stage="statistics",
        samples=dataset.rows,
        flops=_flops(wholes),
        cpu_seconds=held * settings.cpus_per_actor,
        gpu_seconds=held * settings.gpus_per_actor,
        wall_seconds=time.perf_counter() - start,
    )
    return cost, [problem for problem in marked if problem]


def _left_over(storage: Storage, folder: str) -> dict[Span, parts.PartReport]:
    """Return how the parts of an operator came about, by their rows; others are removed.

    Those are the damaged, those without any value (what made the operator fail everywhere may have
    been mended since), and those with rows of another part (of a run that was taken for dead and
    was not). Where the operator was complete once, its marker tells their sizes; it is removed:
    from here on the parts change.
    """
    for path in parts.broken_parts(storage, folder):
        storage.remove(path)
    storage.remove(f"{folder.removesuffix('.parquet')}.json")
    names = list(parts.sizes(storage, folder))
    with ThreadPoolExecutor(parts.THREADS) as threads:
        found = threads.map(lambda name: parts.read_report(storage, f"{folder}/{name}"), names)
        reports = dict(zip(names, found, strict=True))
    kept: dict[Span, parts.PartReport] = {}
    end = 0
    for name, report in reports.items():
        start = parts.first_row(name)
        if report is None or report.failed == report.rows or start < end:
            storage.remove(f"{folder}/{name}")
        else:
            end = start + report.rows
            kept[start, end] = report
    return kept


def _of_use(
    pieces: Iterable[unfinished.Piece],
    operators: Sequence[str],
    left: Sequence[dict[Span, parts.PartReport]],
) -> list[unfinished.Portion]:
    """Return what a killed run has computed of the rows that operators lack, and note it as left.

    Args:
        pieces: its files.
        operators: the ids of those that are computed now.
        left: per operator, what there is by its rows; what is found is added.
    """
    spans = [sorted(reports) for reports in left]
    portions = []
    for piece in pieces:
        span = piece.start, piece.stop
        taken = []
        for index, operator in enumerate(operators):
            report = piece.reports.get(operator)
            if report is None or report.failed == report.rows or _meets(spans[index], span):
                continue
            insort(spans[index], span)
            left[index][span] = report
            taken.append(operator)
        if taken:
            portions.append(unfinished.Portion(piece.path, *span, tuple(taken)))
    return portions


def _tasks(ranges: Iterable[Span], left: Sequence[Sequence[Span]]) -> list[dict[str, Any]]:
    """List the rows that lack a value, each range with the indices of the operators that lack it.

    Args:
        ranges: what the table is cut into; they are cut further where parts begin and end.
        left: the rows that each operator has, sorted.
    """
    tasks = []
    for start, stop in pairwise(sorted({*chain.from_iterable(chain(ranges, *left))})):
        lacking = [index for index, spans in enumerate(left) if not _has(spans, start)]
        if lacking:
            tasks.append({"start": start, "stop": stop, "operators": lacking})
    return tasks


def _has(spans: Sequence[Span], row: int) -> bool:
    """Say whether a row is in one of the spans, which are sorted."""
    index = bisect_right(spans, row, key=itemgetter(0))
    return index > 0 and row < spans[index - 1][1]


def _meets(spans: Sequence[Span], other: Span) -> bool:
    """Say whether a span shares a row with one of the spans, which are sorted."""
    index = bisect_left(spans, other[1], key=itemgetter(0))
    return index > 0 and other[0] < spans[index - 1][1]


def _whole(
    storage: Storage, dataset: Dataset, spec: OperatorSpec, identity: str
) -> parts.PartReport:
    """Return the report of all parts of an operator together.

    Raises:
        SandboxError: a part is missing.
    """
    folder = parts.folder(dataset.id, identity)
    paths = parts.files(storage, folder)
    with ThreadPoolExecutor(parts.THREADS) as threads:
        found = [*threads.map(partial(parts.read_report, storage), paths)]
    reports: list[parts.PartReport] = []
    end = 0
    for path, report in zip(paths, found, strict=True):
        if report is None or path != parts.part(folder, end):
            break
        reports.append(report)
        end += report.rows
    if end != dataset.rows:
        raise SandboxError(f"{spec.name}: {folder} does not hold the rows from {end} on, once each")
    return reduce(add, reports)


def _mark(
    storage: Storage,
    dataset: Dataset,
    spec: OperatorSpec,
    identity: str,
    whole: parts.PartReport,
) -> str | None:
    """Write an operator's marker.

    Returns:
        What is wrong, if the operator failed on every row; then its parts are removed instead.
    """
    if whole.failed == whole.rows:
        storage.remove(parts.folder(dataset.id, identity))
        return f"{spec.name} failed on every row, first: {whole.examples[0][1]}"
    if spec.second is not None and all(count == whole.rows for count in whole.missing.values()):
        storage.remove(parts.folder(dataset.id, identity))
        return f"{spec.name}: none of the samples has a text in {spec.second}"
    storage.write_sealed(
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
            "flops_per_sample": whole.flops_per_sample,
            "parts": parts.sizes(storage, parts.folder(dataset.id, identity)),
        },
    )
    return None


def _flops(wholes: Sequence[parts.PartReport]) -> float | None:
    """Return the operations of all operators, None if those of one were not counted."""
    counts = [
        None if whole.flops_per_sample is None else whole.rows * whole.flops_per_sample
        for whole in wholes
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
