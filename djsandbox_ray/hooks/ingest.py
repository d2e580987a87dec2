"""Reads the data in question, and what models are measured on, into sample tables.

Finds evaluation samples among the training samples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from logging import WARNING
from typing import Any

from djsandbox_ray.dataset.complete import broken_dataset, home_of, told_of
from djsandbox_ray.dataset.ingest import ingest, outcome
from djsandbox_ray.dataset.leaks import find_all_leaks
from djsandbox_ray.dataset.media import VideosConfig
from djsandbox_ray.dataset.media_digests import write_media_digests
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, Source, stamp_of
from djsandbox_ray.dataset.tasks import CPUS_PER_TASK, Tasks
from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.results import evaluation_sets
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.kinds import bundle
from djsandbox_ray.records import Dataset, Evaluation, Leak
from djsandbox_ray.settings.code import with_code
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.events import event

# A label is looked for among so many of the first samples.
_LABEL_ROWS = 10_000
_NAMES = 5
"""Of names of classes, and of media that many rows share, so many are told."""


class _Ingest(Hook):
    """Streams a source into a sample table."""

    def _source(self, config: Component) -> Source:
        return SOURCES.get(config.type)(config)

    def _tolerated(self) -> Any:
        settings = self.config.ingest
        found = settings.model_dump(exclude={"resources"})  # where it runs does not count
        if settings.videos.min_frames == VideosConfig().min_frames:
            del found["videos"]["min_frames"]  # it is known as it was before there was such a key
        return found

    def _ingest(self, source: Source, stage: str, labels: Collection[str] = ()) -> Dataset:
        progress = self.context.progress
        progress.stage(stage)
        dataset = ingest(
            source,
            self.storage,
            max_rejected=self.config.ingest.max_rejected,
            labels=labels,
            videos=self.config.ingest.videos,
            resources=self.config.ingest.resources,
            await_room=self.context.await_room,
            progress=lambda done, total: progress.update(done=done, total=total),
            note=lambda text: progress.note(f"{stage}: {text}"),
            spent=self.account,
        )
        progress.note(f"{stage}: {outcome(self.storage, dataset)}")
        self.tell_found(source, stage)
        if dataset.rejected:
            self._tell_rejected(dataset, stage)
        return dataset

    def _tell_rejected(self, dataset: Dataset, stage: str) -> None:
        reasons = told_of(self.storage, dataset)["reasons"]
        path = f"{home_of(dataset.id)}/rejected.parquet"
        event("samples_rejected", level=WARNING, stage=stage, reasons=reasons, path=path)
        for reason, count in reasons.items():
            metrics.REJECTED_SAMPLES.set(count, stage=stage, reason=reason)


class Ingest(_Ingest):
    """The data in question."""

    VERSION = 4

    def identity(self) -> Any:
        """What the source consists of, how much may be rejected, and which labels are wanted."""
        stamp = stamp_of(self._source(self.config.dataset))
        return [stamp, self._tolerated(), self.config.report.labels]

    def broken(self, output: Dataset) -> dict[str, str]:
        """The table and what lies beside it."""
        return broken_dataset(self.storage, output)

    def run(self) -> Dataset:
        """Read the section ``dataset`` and look for the labels that the report is to show."""
        dataset = self._ingest(self._source(self.config.dataset), "ingest")
        table = SampleTable(self.storage.uri(dataset.table))
        first = table.scan(0, min(dataset.rows, _LABEL_ROWS), ["meta"])["meta"].to_pylist()
        known = sorted({key for meta in first for key in json.loads(meta)})
        if unknown := [key for key in self.config.report.labels if key not in known]:
            raise BadInput(
                f"report.labels: the samples have no {', '.join(unknown)} "
                f"(known: {', '.join(known) or 'none'})"
            )
        return dataset


class IngestEvaluation(_Ingest):
    """The trusted split, and the benchmarks of evaluators that have samples of their own."""

    VERSION = 5
    SECTIONS = ("evaluation",)

    def identity(self) -> Any:
        """What the sources consist of, how much may be rejected, and what must fit them."""
        evaluation = self.config.evaluation
        metrics = [
            with_code(metric.model_dump(mode="json"), EVALUATORS.get(metric.type))
            for metric in evaluation.metrics
        ]
        stamps = [stamp_of(source) for source in evaluation.sources()]
        return [stamps, self._tolerated(), metrics]

    def broken(self, output: Evaluation) -> dict[str, str]:
        """The tables and what lies beside them."""
        wrong: dict[str, str] = {}
        for dataset in output.sets:
            wrong |= broken_dataset(self.storage, dataset)
        return wrong

    def run(self) -> Evaluation:
        """Read all sources, each once, and check that every evaluator can run on its samples."""
        evaluation = self.config.evaluation
        evaluators = [EVALUATORS.get(metric.type)(metric) for metric in evaluation.metrics]
        own = [evaluator.source() for evaluator in evaluators]
        trusted = ""
        known: dict[str, Dataset] = {}
        """By id."""
        if evaluation.dataset is not None:
            pairs = zip(evaluators, own, strict=True)
            labels = {key for one, source in pairs if source is None for key in one.label_keys()}
            dataset = self._named(self._source(evaluation.dataset), "ingest evaluation", labels)
            trusted, known[dataset.id] = dataset.id, dataset
        read: dict[str, str] = {}
        """By what it was read from, the id of a benchmark."""
        measured = []
        for metric, evaluator, source in zip(evaluation.metrics, evaluators, own, strict=True):
            if source is None:
                measured.append(trusted)
                continue
            keys = evaluator.label_keys()
            place = content_id("source", stamp_of(source), sorted(keys))
            if place not in read:
                dataset = self._named(source, f"ingest {metric.type}", keys)
                read[place] = dataset.id
                known.setdefault(dataset.id, dataset)
            measured.append(read[place])
        sets = tuple(known.values())
        result = Evaluation(_evaluation_id(sets, measured), sets, tuple(measured))
        found = evaluation_sets(self.storage, result)
        Suite(evaluation.metrics, found)
        for evaluator, data in zip(evaluators, found, strict=True):
            for line in evaluator.remarks(data):
                self.note(line)
        return result

    def _named(self, source: Source, stage: str, labels: Collection[str]) -> Dataset:
        """Read a source, and tell what it calls its classes."""
        dataset = self._ingest(source, stage, labels)
        for key, names in dataset.classes.items():
            some = ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
            self.note(f"{stage}: the data itself names the {len(names)} classes of {key!r}: {some}")
        return replace(dataset, use="evaluation")


def _evaluation_id(sets: Sequence[Dataset], measured: Sequence[str]) -> str:
    """Return the id of the only set, or what stands for several and for who is measured on which.

    Of one, that is how leaks and trials have always known it.
    """
    if len(sets) == 1 and set(measured) <= {sets[0].id}:
        return sets[0].id
    return content_id("evaluation", [one.id for one in sets], list(measured))


class Leaks(Hook):
    """Compares hashes of samples and media, and decides whether leaked rows are kept out."""

    VERSION = 3
    SECTIONS = ("evaluation",)

    def identity(self) -> Any:
        """What happens to leaked rows."""
        return self.config.evaluation.leaks

    def broken(self, output: Leak) -> dict[str, str]:
        """The table of leaked rows."""
        try:
            rows = self.storage.read_table(output.path, ["row_id"])["row_id"]
        except Damaged as error:
            return {output.path: error.what}
        found = len(rows.unique())
        return {} if found == output.rows else {output.path: f"has {found} rows"}

    def run(self, dataset: Dataset, evaluation: Evaluation) -> Leak:
        """Report the rows that occur in both."""
        remove = self.config.evaluation.leaks == "remove"
        tasks, start = Tasks(None, self.config.ingest.resources), time.perf_counter()
        again = partial(self._digest_again, tasks)
        leak = find_all_leaks(self.storage, dataset, evaluation, remove, again)
        self.account(tasks.cost("leaks", 0, time.perf_counter() - start))
        if leak.rows:
            fate = "kept out of every pool" if remove else "KEPT in the pools, as configured"
            alone = f" ({leak.by_medium} only by an image or video)" if leak.by_medium else ""
            where = "the evaluation split" if len(evaluation.sets) == 1 else "evaluation sets"
            said = f"{leak.rows} training rows occur in {where} too{alone}"
            self.note(f"leaks: {said}; {fate}")
        self._tell_widespread(leak, dataset.rows)
        return leak

    def _tell_widespread(self, leak: Leak, rows: int) -> None:
        """Say which media are in so many training rows that they may stand for missing ones."""
        for medium in leak.widespread[:_NAMES]:
            self.note(
                f"leaks: one {medium.kind} is in {medium.rows:,} of {rows:,} training rows "
                f"({100 * medium.rows / rows:.1f} %; the first is {medium.row_id}) and in the "
                f"evaluation row {medium.evaluation_row_id}: by it alone they are all leaks, "
                "whatever the captions; if it stands for what is missing, take it out of the "
                "evaluation data, or of both"
            )
        if more := leak.widespread[_NAMES:]:
            least = more[-1].rows
            self.note(f"leaks: {len(more)} more media are in {least:,} training rows or more each")

    def _digest_again(self, tasks: Tasks, dataset: Dataset) -> None:
        room = [bundle(CPUS_PER_TASK, 0, self.config.ingest.resources)]
        self.context.await_room(room, "ingest.resources")
        self.note(f"leaks: reads the images and videos of {dataset.table} for their digests")
        write_media_digests(self.storage, dataset, tasks)
