"""Scores stored answers again, where only the formula has changed: no model is needed for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import ray

from djsandbox_ray.evaluation.answer_store import AnswerStore, Unanswered
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport, TrialRecord
from djsandbox_ray.storage.store import Storage

CPUS_PER_TASK = 1
_TASKS = 64
"""Trials are dealt out to so many tasks at most: each takes the evaluation sets along."""


@dataclass(frozen=True)
class Rescored:
    """What could be scored again."""

    records: dict[str, TrialRecord]
    """By trial id, with new metrics."""
    lacking: tuple[str, ...]
    """Ids of the trials whose answers are gone, all or some."""
    cpu_seconds: float
    """That the tasks took."""


def rescored_reports(
    suite: Suite, reports: Iterable[RungReport], answers: Callable[[int], AnswerStore]
) -> tuple[RungReport, ...] | None:
    """Return reports with the metrics that their answers have now; None if answers are gone.

    Args:
        suite: the evaluators as they are.
        reports: of one trial.
        answers: returns those that were given after so many samples.

    Raises:
        NotFinite: a metric is not.
    """
    again = []
    for report in reports:
        try:
            metrics = suite.rescored(report.metrics, answers(report.samples))
        except Unanswered:
            return None
        again.append(replace(report, metrics=metrics))
    return tuple(again)


def rescore(
    records: Sequence[TrialRecord], suite: Suite, storage: Storage, nodes: NodeKind
) -> Rescored:
    """Score the answers of trials again, in Ray tasks.

    Args:
        records: trials that were scored in another way.
        suite: the evaluators as they are.
        storage: with the answers; every node must reach it.
        nodes: where the tasks run.

    Raises:
        BadInput: an evaluator cannot score what was answered.
        NotFinite: a metric is not finite.
    """
    if not records:
        return Rescored({}, (), 0.0)
    task = ray.remote(_score).options(
        num_cpus=CPUS_PER_TASK, resources=nodes.demand(), name="score answers again"
    )
    shared = ray.put(suite)
    share = -(-len(records) // _TASKS)
    parts = [records[start : start + share] for start in range(0, len(records), share)]
    calls = [task.remote(list(part), shared, storage.url) for part in parts]
    found: dict[str, TrialRecord] = {}
    lacking: list[str] = []
    seconds = 0.0
    for part, (reports, took) in zip(parts, ray.get(calls), strict=True):
        seconds += took
        for record, again in zip(part, reports, strict=True):
            if again is None:
                lacking.append(record.spec.id)
            else:
                found[record.spec.id] = replace(record, reports=again, scored=suite.scored)
    return Rescored(found, tuple(lacking), seconds * CPUS_PER_TASK)


def _score(
    records: list[TrialRecord], suite: Suite, url: str
) -> tuple[list[tuple[RungReport, ...] | None], float]:
    """Return the new reports of each trial, and how many seconds that took; a task of Ray."""
    start, storage = time.perf_counter(), Storage(url)

    def again(record: TrialRecord) -> tuple[RungReport, ...] | None:
        def answers(samples: int) -> AnswerStore:
            return AnswerStore(storage, record.spec.training, samples)

        return rescored_reports(suite, record.reports, answers)

    return [again(record) for record in records], time.perf_counter() - start
