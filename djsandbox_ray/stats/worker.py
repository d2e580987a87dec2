"""The actors of statistics: each reads a range of the sample table, computes, writes one file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Kind
from djsandbox_ray.nodes import actors
from djsandbox_ray.nodes.waiting import AwaitRoom
from djsandbox_ray.stats import parts, unfinished
from djsandbox_ray.stats.answers import Answers
from djsandbox_ray.stats.datajuicer import use_models
from djsandbox_ray.stats.endpoint import Asking, EndpointConfig
from djsandbox_ray.stats.fused import Computed, FusedOperators, Images, Videos
from djsandbox_ray.stats.models import on_this_node
from djsandbox_ray.stats.operators import OperatorSpec, meta_text
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import metrics

if TYPE_CHECKING:
    from djsandbox_ray.dataset.sample_table import SampleTable

READ_BYTES = 32 << 20
"""Samples that are read at once, unless a batch is larger; of media that lie beside the columns,
unless one sample has more."""
READ_ROWS = 4096
"""Most rows that are read at once: text is small."""
COUNTED_ROWS = 16
"""Rows on which the floating-point operations of an operator are counted, once per dataset."""


@dataclass(frozen=True)
class OperatorTask:
    """What every actor of a pass needs to know.

    Attributes:
        storage: URL of the storage.
        table: path of the sample table in it.
        operators: name and parameters of every operator of the pass.
        ids: the id of every operator.
        folder: path of what is computed, see :mod:`~djsandbox_ray.stats.unfinished`.
        batch_size: rows that are computed together.
        threads: CPU threads of an actor.
        gpu: whether operators may use a GPU.
        pairs: whether the table is one of pairs.
        models: the folder of model files; None for what the environment says.
        endpoint: where operators find a language model.
    """

    storage: str
    table: str
    operators: tuple[tuple[str, dict[str, Any]], ...]
    ids: tuple[str, ...]
    folder: str
    batch_size: int
    threads: int
    gpu: bool
    pairs: bool = False
    models: str | None = None
    endpoint: EndpointConfig | None = None


def run_pass(
    tasks: Sequence[dict[str, Any]],
    job: OperatorTask,
    *,
    group: Sequence[Mapping[str, float]],
    fill: bool,
    share: int = 1,
    await_room: AwaitRoom,
    progress: actors.OnProgress | None,
) -> float:
    """Have actors compute ranges of rows.

    Args:
        tasks: per range its start, stop and the indices of the operators that lack it.
        job: what every actor needs to know.
        group: see :func:`djsandbox_ray.nodes.actors.run_pass`, as of the others.
        fill: the same.
        share: the same.
        await_room: the same.
        progress: called with (rows done, rows to do) after every range.

    Returns:
        Seconds that the actors lived, all together.

    Raises:
        BadInput: an operator cannot be used, or the cluster is too small for the actors.
        StorageFailed: there is no room for what they compute.
        SandboxError: a machine fails under them.
    """
    done, total = 0, sum(task["stop"] - task["start"] for task in tasks)

    def on_report(report: dict[str, Any]) -> None:
        nonlocal done
        done += report["rows"]
        for index in report["operators"]:
            metrics.OPERATOR_ROWS.add(report["rows"], operator=job.operators[index][0])
        if progress is not None:
            progress(done, total)

    return actors.run_pass(
        tasks,
        StatisticsWorker,
        job,
        name="statistics",
        where="statistics",
        group=group,
        fill=fill,
        share=share,
        await_room=await_room,
        on_report=on_report,
    )


class StatisticsWorker(actors.PassWorker):
    """Runs all operators in one pass; made once per actor, so models are loaded once."""

    def __init__(self, job: OperatorTask) -> None:
        super().__init__()
        self._job = job
        self._storage = Storage(job.storage)
        self._fused: FusedOperators | None = None
        self._models = ExitStack()  # what the operators read stays until the actor ends

    def compute(self, task: dict[str, Any]) -> dict[str, Any]:
        """Compute a range of rows.

        Args:
            task: start, stop and the indices of the operators to run.

        Returns:
            The rows done, and the operators.
        """
        self._compute(task["start"], task["stop"], task["operators"])
        return {"rows": task["stop"] - task["start"], "operators": task["operators"]}

    def _compute(self, start: int, stop: int, operators: list[int]) -> None:
        fused = self._build()
        done: dict[int, list[Computed]] = {index: [] for index in operators}
        flops: dict[int, float | None] = {}
        row_ids = []
        kinds: list[Kind] = ["image"] if fused.reads_images(operators) else []
        kinds += ["video"] if fused.reads_videos(operators) else []
        for batch in self._batches(start, stop, kinds, fused.reads_fields(operators)):
            row_ids.append(batch.row_ids)
            found = fused(batch.texts, batch.images, operators, batch.videos, batch.fields)
            for index, computed in zip(operators, found, strict=True):
                done[index].append(computed)
                good = _good_rows(computed, len(batch.texts))
                if start == 0 and good and index not in flops:
                    some = batch.only(good)
                    flops[index] = fused.flops_per_sample(
                        some.texts, some.images, index, some.videos, some.fields
                    )
        whole = {}
        for index in operators:
            columns = {
                key: np.concatenate([computed.columns[key] for computed in done[index]])
                for key in done[index][0].columns
            }
            report = _report(done[index], row_ids, columns, flops.get(index))
            whole[self._job.ids[index]] = columns, report
        unfinished.write(self._storage, self._job.folder, np.concatenate(row_ids), whole)

    def _build(self) -> FusedOperators:
        if self._fused is None:
            use_models(self._job.models)
            specs = [
                OperatorSpec(name, self._models.enter_context(on_this_node(params)))
                for name, params in self._job.operators
            ]
            self._fused = FusedOperators(
                specs, gpu=self._job.gpu, pairs=self._job.pairs, asking=self._asking(specs)
            )
            if (torch := sys.modules.get("torch")) is not None:
                torch.set_num_threads(self._job.threads)
            if (cv2 := sys.modules.get("cv2")) is not None:
                cv2.setNumThreads(self._job.threads)
        return self._fused

    def _asking(self, specs: list[OperatorSpec]) -> dict[int, Callable[..., Asking]]:
        settings = self._job.endpoint
        if settings is None:
            return {}
        return {
            index: partial(
                Asking, settings=settings, answers=Answers(self._storage, self._job.ids[index])
            )
            for index, spec in enumerate(specs)
            if spec.asks
        }

    def _batches(
        self, start: int, stop: int, kinds: Sequence[Kind], fields: Sequence[str] = ()
    ) -> Iterator[_Batch]:
        """Read rows, with their media of these kinds, and these fields of their meta data."""
        from djsandbox_ray.dataset.sample_table import SampleTable

        table = SampleTable(self._storage.uri(self._job.table))
        beside = bool(kinds) and table.is_wide
        columns = ["row_id", "text"]
        columns += ["media"] if beside else ["image"] if "image" in kinds else []
        columns += ["meta"] if fields else []
        size = self._job.batch_size
        first, step = start, size  # how large samples are, the first batch tells
        while first < stop:
            read = table.scan(first, min(first + step, stop), columns)
            first += read.num_rows
            fitting = min(READ_ROWS, READ_BYTES * read.num_rows // max(1, read.nbytes))
            step = size * max(1, fitting // size)
            for offset in range(0, read.num_rows, size):
                rows = read.slice(offset, size)
                if beside:
                    yield from _with_media(table, rows, kinds, fields)
                    continue
                # Python objects: Data-Juicer fails on numpy cells.
                images = rows["image"].to_pylist() if "image" in kinds else None
                videos = [()] * rows.num_rows if "video" in kinds else None
                texts = rows["text"].to_pylist()
                told = _told(rows, fields)
                yield _Batch(rows["row_id"].to_numpy(), texts, images, videos, told)


@dataclass(frozen=True)
class _Batch:
    """Rows that are computed together."""

    row_ids: NDArray[np.int64]
    texts: list[str]
    images: Images | None
    videos: Videos | None
    fields: dict[str, list[str]]

    def only(self, rows: Sequence[int]) -> _Batch:
        """Return some of the rows, by their places."""
        return _Batch(
            self.row_ids[[*rows]],
            [self.texts[row] for row in rows],
            None if self.images is None else [self.images[row] for row in rows],  # type: ignore
            None if self.videos is None else [self.videos[row] for row in rows],
            {field: [texts[row] for row in rows] for field, texts in self.fields.items()},
        )


def _told(rows: pa.Table, fields: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts in fields of the meta data."""
    return {
        field: [meta_text(meta, field) for meta in rows["meta"].to_pylist()] for field in fields
    }


def _with_media(
    table: SampleTable, rows: pa.Table, kinds: Sequence[Kind], fields: Sequence[str]
) -> Iterator[_Batch]:
    """Read the media of rows that have any number of them, not more at once than there is room."""
    sizes = [
        # Of one that stays where it lies, the table holds nothing.
        sum(one.get("place", one)["size"] for one in json.loads(listed) if one["kind"] in kinds)
        for listed in rows["media"].to_pylist()
    ]
    first, held = 0, 0
    for row, size in enumerate([*sizes, READ_BYTES + 1]):  # the last ends the rows
        if row > first and held + size > READ_BYTES:
            some = rows.slice(first, row - first)
            row_ids = some["row_id"].to_numpy()
            media = table.media(row_ids, kinds[0] if len(kinds) == 1 else None)
            files = {
                kind: [[one.data for one in sample if one.kind == kind] for sample in media]
                for kind in kinds
            }
            texts, told = some["text"].to_pylist(), _told(some, fields)
            yield _Batch(row_ids, texts, files.get("image"), files.get("video"), told)
            first, held = row, 0
        held += size


def _good_rows(computed: Computed, size: int) -> list[int]:
    """Return the first rows of a batch that an operator could compute."""
    failed = {failure.row for failure in computed.failures}
    return [row for row in range(size) if row not in failed][:COUNTED_ROWS]


def _report(
    done: list[Computed],
    row_ids: list[NDArray[np.int64]],
    columns: dict[str, NDArray[np.float64]],
    flops_per_sample: float | None,
) -> parts.PartReport:
    failures = [
        (int(ids[failure.row]), failure.reason)
        for computed, ids in zip(done, row_ids, strict=True)
        for failure in computed.failures
    ]
    return parts.PartReport(
        rows=sum(len(ids) for ids in row_ids),
        missing={key: int(np.isnan(column).sum()) for key, column in columns.items()},
        failed=len(failures),
        examples=tuple(failures[: parts.EXAMPLES]),
        seconds=sum(computed.seconds for computed in done),
        flops_per_sample=flops_per_sample,
    )
