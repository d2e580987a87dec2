"""Scores stored answers again, where only the formula has changed: no model is needed for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from traceback import format_exc
from typing import TypeAlias

import ray

from djsandbox_ray.errors import Damaged, StorageFailed
from djsandbox_ray.evaluation.answer_store import AnswerStore, Unanswered
from djsandbox_ray.evaluation.suite import NotFinite, Suite
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport, TrialRecord, TrialState
from djsandbox_ray.storage.filesystems import disk_failure
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
    failed: dict[str, TrialRecord]
    """By trial id, those whose answers cannot be scored so, as failed ones: nobody else's fault."""
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

    What goes wrong with one trial is that trial's failure, as it is where it is trained.

    Args:
        records: trials that were scored in another way.
        suite: the evaluators as they are.
        storage: with the answers; every node must reach it.
        nodes: where the tasks run.

    Raises:
        StorageFailed: the storage is away or full.
        Damaged: a file of the answers is not what was written.
    """
    if not records:
        return Rescored({}, (), {}, 0.0)
    task = ray.remote(score_again).options(
        num_cpus=CPUS_PER_TASK, resources=nodes.demand(), name="score answers again"
    )
    shared = ray.put(suite)
    share = -(-len(records) // _TASKS)
    parts = [records[start : start + share] for start in range(0, len(records), share)]
    calls = [task.remote(list(part), shared, storage.url) for part in parts]
    found: dict[str, TrialRecord] = {}
    lacking: list[str] = []
    failed: dict[str, TrialRecord] = {}
    seconds = 0.0
    for part, (reports, took) in zip(parts, ray.get(calls), strict=True):
        seconds += took
        for record, again in zip(part, reports, strict=True):
            if again is None:
                lacking.append(record.spec.id)
            elif isinstance(again, Unscorable):
                failed[record.spec.id] = again.of(record, suite.scored)
            else:
                found[record.spec.id] = replace(record, reports=again, scored=suite.scored)
    return Rescored(found, tuple(lacking), failed, seconds * CPUS_PER_TASK)


@dataclass(frozen=True)
class Unscorable:
    """Why the answers of a trial cannot be scored."""

    error: str
    traceback: str
    diverged: bool

    def of(self, record: TrialRecord, scored: str) -> TrialRecord:
        """Return the record of the trial as that of one that failed.

        One that diverged is over; another is worth another try, with what it has reported.
        """
        return replace(
            record,
            state=TrialState.FAILED,
            error=self.error,
            traceback=self.traceback,
            diverged=self.diverged,
            scored=scored if self.diverged else record.scored,
        )


_Again: TypeAlias = tuple[RungReport, ...] | Unscorable | None


def score_again(records: list[TrialRecord], suite: Suite, url: str) -> tuple[list[_Again], float]:
    """Return the new reports of each trial, and how many seconds that took; a task of Ray."""
    start, storage = time.perf_counter(), Storage(url)

    def again(record: TrialRecord) -> _Again:
        def answers(samples: int) -> AnswerStore:
            return AnswerStore(storage, record.spec.training, samples)

        try:
            return rescored_reports(suite, record.reports, answers)
        except (Damaged, StorageFailed):
            raise
        except Exception as error:  # an evaluator may be a user's
            if (told := disk_failure(error, storage.shown)) is not None:
                raise told from error
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            trace = without_secrets(format_exc())
            return Unscorable(without_secrets(reason), trace, isinstance(error, NotFinite))

    return [again(record) for record in records], time.perf_counter() - start
