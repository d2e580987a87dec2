"""What the trials of a study do, as events and metrics: read off their records as these change."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from djsandbox_ray.records import Pool, PoolKind, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.events import event
from djsandbox_ray.telemetry.output import last_lines, log_path

_TRACEBACK = 8000
"""Characters of a traceback in an event, the last ones; the trial's log has all of it."""


class StudyTelemetry:
    """Tells what becomes of the trials of a study.

    Args:
        stage: the study's name.
        specs: its trials.
        pools: by id.
        known: what earlier work has left of the trials, by id: it is not counted again.
        score: names of the metrics that make the score; None for all.
        storage: of the run.
        logs: folder of the logs of its trials.
    """

    def __init__(
        self,
        stage: str,
        specs: Sequence[TrialSpec],
        pools: Mapping[str, Pool],
        known: Mapping[str, TrialRecord],
        score: Sequence[str] | None,
        storage: Storage,
        logs: str,
    ) -> None:
        self._stage, self._specs, self._pools, self._score = stage, specs, pools, score
        self._storage, self._logs = storage, logs
        self._last = dict(known)
        settled = [record for record in known.values() if record.settled]
        event("study_begun", stage=stage, trials=len(specs), known=len(settled))
        metrics.PLANNED_SAMPLES.set(sum(spec.budget for spec in specs), stage=stage)
        self._count(settled)

    def take(self, record: TrialRecord, records: Collection[TrialRecord]) -> None:
        """Tell what is new of a trial.

        Args:
            record: its newest record.
            records: the newest of all trials that were begun or were settled before.
        """
        before = self._last.get(record.spec.id)
        self._last[record.spec.id] = record
        if record.attempts > (before.attempts if before else 0):
            self._event("trial_started", record, attempt=record.attempts, after=_samples(record))
        if record.reports and record.reports != (before.reports if before else ()):
            self._rung(record, before)
        if record.state is TrialState.COMPLETED:
            self._event("trial_finished", record, samples=_samples(record))
        elif record.state is TrialState.STOPPED:
            self._event("trial_stopped", record, samples=_samples(record))
        elif record.state is TrialState.FAILED:
            self._failed("trial_failed", record)
        self._count(records)

    def retried(self, record: TrialRecord) -> None:
        """Tell that a trial crashed and will be tried again.

        Args:
            record: with the error, the traceback and the place of the crash.
        """
        self._failed("trial_retried", record)

    def _rung(self, record: TrialRecord, before: TrialRecord | None) -> None:
        last = record.reports[-1]
        earlier = before.reports[-1] if before and before.reports else None
        self._event(
            "trial_rung",
            record,
            samples=last.samples,
            loss=last.loss,
            metrics=last.metrics,
            train_seconds=round(last.train_seconds, 3),
            evaluation_seconds=round(last.evaluation_seconds, 3),
        )
        stage = self._stage
        metrics.TRAINED_SAMPLES.add(last.samples - (earlier.samples if earlier else 0), stage=stage)
        training = last.train_seconds - (earlier.train_seconds if earlier else 0)
        evaluation = last.evaluation_seconds - (earlier.evaluation_seconds if earlier else 0)
        metrics.TRIAL_SECONDS.add(training, stage=stage, part="training")
        metrics.TRIAL_SECONDS.add(evaluation, stage=stage, part="evaluation")

    def _failed(self, name: str, record: TrialRecord) -> None:
        path = log_path(self._logs, record.spec.id)
        level = logging.WARNING if name == "trial_retried" else logging.ERROR
        self._event(
            name,
            record,
            level=level,
            error=record.error,
            place=record.place,
            diverged=record.diverged,
            traceback=(record.traceback or "")[-_TRACEBACK:],
            output=last_lines(self._storage, path),
            log=path,
        )

    def _event(self, name: str, record: TrialRecord, **details: Any) -> None:
        spec = record.spec
        event(
            name, stage=self._stage, pool=spec.pool, seed=spec.seed, **{"trial": spec.id, **details}
        )

    def _count(self, records: Collection[TrialRecord]) -> None:
        states = Counter(str(record.state) for record in records)
        states["WAITING"] = len(self._specs) - len(records)
        for state in ("WAITING", *map(str, TrialState)):
            metrics.TRIALS.set(states[state], stage=self._stage, state=state)
        planned = sum(spec.budget for spec in self._specs)
        used = sum(map(_samples, records))
        metrics.BUDGET_USED.set(used / planned if planned else 0.0, stage=self._stage)
        if (change := best_change(records, self._pools, self._score)) is not None:
            metrics.BEST_CHANGE.set(change, stage=self._stage)


def best_change(
    records: Iterable[TrialRecord], pools: Mapping[str, Pool], score: Sequence[str] | None
) -> float | None:
    """Compare the best pool so far with the controls, by the mean of the score's metrics.

    Returns:
        A fraction (0.05 = +5 %); None while either has no completed trial.
    """
    means: dict[str, list[float]] = {}
    for record in records:
        if record.final and record.final.metrics:
            values = [record.final.metrics[name] for name in score or record.final.metrics]
            means.setdefault(record.spec.pool, []).append(fmean(values))
    kinds = {name: pools[name].kind for name in means}
    controls = [fmean(means[name]) for name in means if kinds[name] is PoolKind.CONTROL]
    asked = [fmean(means[name]) for name in means if kinds[name] is PoolKind.BUCKET]
    if not asked or not controls or not (base := fmean(controls)):
        return None
    return (max(asked) - base) / abs(base)


def _samples(record: TrialRecord) -> int:
    return record.reports[-1].samples if record.reports else 0
