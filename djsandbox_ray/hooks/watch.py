"""What a study shows while it runs: to the tracker, and on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.nodes.waiting import Absence
from djsandbox_ray.records import Pool, PoolKind, Statistics, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.telemetry.events import event
from djsandbox_ray.telemetry.output import LOGS
from djsandbox_ray.telemetry.study import StudyTelemetry
from djsandbox_ray.tracking.tracker import DatasetInput
from djsandbox_ray.trials.stopping.stopping import Decision

# After so many trials, all failed, the run ends.
_HOPELESS = 6


class Watch:
    """Passes on the records of the trials of a study.

    Args:
        context: of the run.
        stage: the study's name.
        pools: of the study, by id.
        statistics: that pools were made of.
        optional: whether the run goes on even if every trial fails.
    """

    def __init__(
        self,
        context: Context,
        stage: str,
        pools: Mapping[str, Pool],
        statistics: Statistics,
        *,
        optional: bool = False,
    ) -> None:
        self._context = context
        self._stage = stage
        self._pools = pools
        self._telemetry: StudyTelemetry | None = None
        self._waited_for: str | None = None
        self._optional = optional
        self._ended: set[str] = set()
        self._absence = Absence(context.config.cluster.wait)
        self._operators = {item.name: item.operator for item in statistics.statistics}

    def begin(self, specs: Sequence[TrialSpec], known: Mapping[str, TrialRecord]) -> None:
        """Say what the study consists of.

        Args:
            specs: all trials.
            known: what earlier work has left of them, by trial id.
        """
        context = self._context
        self._telemetry = StudyTelemetry(
            self._stage,
            specs,
            self._pools,
            known,
            context.config.evaluation.score,
            context.storage,
            f"{context.folder}/{LOGS}",
        )

    def decided(self, decision: Decision) -> None:
        """Say which pools were given up at a rung."""
        outcome = decision.reason or (
            f"pools given up: {len(decision.stopped)}; those that run on as a check: "
            f"{len(decision.audited)}"
        )
        self._context.progress.note(f"{self._stage}: at {decision.samples} samples: {outcome}")
        event("race_decided", stage=self._stage, **asdict(decision))

    def track(self, record: TrialRecord) -> None:
        """Hand a record to the tracker."""
        pool = self._pools[record.spec.pool]
        tags = {
            "stage": self._stage,
            "pool": pool.id,
            "kind": str(pool.kind),
            "statistic": pool.statistic or "",
            "operator": self._operators.get(pool.statistic or "", ""),
            "bucket": pool.bucket or "",
            "seed": str(record.spec.seed),
            "state": str(record.state),
        }
        params = {
            "pool": pool.id,
            "seed": str(record.spec.seed),
            "budget": str(record.spec.budget),
            "pool_size": str(pool.size),
            "draw": record.spec.draw_hash,
        }
        # The same pool has the same name and digest whichever seed, stage or run trains on it.
        rows = DatasetInput(pool.id, pool.hash, pool.column, pool.size)
        self._context.tracker.trial(record, {k: v for k, v in tags.items() if v}, params, [rows])

    def waiting(self, group: Sequence[Mapping[str, float]] | None) -> None:
        """Say that nothing can run for want of a place for a group; None: something runs again.

        Raises:
            SandboxError: no living node has had a place for it for too long.
        """
        if group is None:
            self._absence.over()
        wanted = None if group is None else self._absence.waited_for(group)
        self._context.progress.update(waiting=wanted or "")
        if wanted and self._waited_for is None:
            event("waiting", level=logging.WARNING, stage=self._stage, resources=wanted)
        elif wanted is None and self._waited_for is not None:
            event("waiting_over", stage=self._stage)
        self._waited_for = wanted

    def retried(self, record: TrialRecord) -> None:
        """Say that a trial crashed and will be tried again; error and place are in the record."""
        if self._telemetry is not None:
            self._telemetry.retried(record)
        self._context.progress.note(f"{self._failure(record)}; it is tried again")

    def show(self, record: TrialRecord, records: Collection[TrialRecord]) -> None:
        """Bring the progress line up to date.

        Args:
            record: the one that changed.
            records: all that are known by now.

        Raises:
            SandboxError: nothing but failures has come back.
        """
        buckets = [r for r in records if self._pools[r.spec.pool].kind is PoolKind.BUCKET]
        states = [entry.state for entry in records]
        self._context.progress.update(
            done=sum(state is not TrialState.RUNNING for state in states),
            running=sum(state is TrialState.RUNNING for state in states),
            failed=sum(state is TrialState.FAILED for state in states),
            stopped=sum(state is TrialState.STOPPED for state in states),
            begun=sum(
                entry.reports[-1].samples / entry.spec.budget
                for entry in records
                if entry.state is TrialState.RUNNING and entry.reports
            ),
            best=best_so_far(buckets, self._context.config.evaluation.score),
        )
        if self._telemetry is not None:
            self._telemetry.take(record, records)
        if record.state is TrialState.FAILED:
            self._context.progress.note(self._failure(record))
        self._ended |= {record.spec.id} if record.state is not TrialState.RUNNING else set()
        if not self._optional:
            _give_up_if_hopeless([entry for entry in records if entry.spec.id in self._ended])

    def _failure(self, record: TrialRecord) -> str:
        where = f" on {record.place}" if record.place else ""
        spec = record.spec
        return f"{self._stage}: {spec.pool} seed {spec.seed} FAILED{where}: {record.error}"


def _give_up_if_hopeless(records: Iterable[TrialRecord]) -> None:
    """End the run when nothing but failures has come back: the rest would be paid for in vain."""
    ended = list(records)
    if len(ended) >= _HOPELESS and all(record.state is TrialState.FAILED for record in ended):
        raise SandboxError(
            f"all of the first {len(ended)} trials failed; the last: {ended[-1].error}"
        )


def best_so_far(records: Iterable[TrialRecord], score: Sequence[str] | None) -> str | None:
    """Name the pool with the greatest mean of the score's metrics so far; not yet a verdict."""
    means: dict[str, list[float]] = {}
    for record in records:
        if record.final and record.final.metrics:
            metrics = record.final.metrics
            means.setdefault(record.spec.pool, []).append(
                fmean(metrics[name] for name in score or metrics)
            )
    return max(means, key=lambda pool: fmean(means[pool]), default=None)
