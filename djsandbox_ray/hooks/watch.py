"""What a study shows while it runs: on the terminal, to the tracker, as events and as metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.nodes.waiting import Absence
from djsandbox_ray.records import Pool, StudyPlan, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.events import event
from djsandbox_ray.telemetry.output import LOGS, last_lines, log_path
from djsandbox_ray.telemetry.pace import Pace
from djsandbox_ray.telemetry.standing import Standing, samples_of
from djsandbox_ray.tracking.tracker import trial_facts
from djsandbox_ray.trials.stopping.stopping import Decision
from djsandbox_ray.trials.vigil import Silence

_HOPELESS = 6
"""After so many trials, all failed, the run ends."""
_TRACEBACK = 8000
"""Characters of a traceback in an event, the last ones; the trial's log has all of it."""


class Watch:
    """Reads off the records of a study, as they change, what becomes of its trials.

    Args:
        context: of the run.
        plan: of the study.
        pools: of the study, by id.
        specs: all its trials.
        known: what earlier work has left of them, by trial id: it is not counted again.
        rungs: samples at which trials report, rising; all of them last.
    """

    def __init__(
        self,
        context: Context,
        plan: StudyPlan,
        pools: Mapping[str, Pool],
        specs: Sequence[TrialSpec],
        known: Mapping[str, TrialRecord],
        rungs: Sequence[int],
    ) -> None:
        self._context, self._plan, self._pools, self._specs = context, plan, pools, specs
        self._last = dict(known)
        self._score = context.config.evaluation.score_metrics()
        self._standing = Standing(pools, self._score)
        races = plan.race and context.config.trials.early_stopping.type != "none"
        self._pace = Pace(specs, pools, rungs, races, known)
        self._planned = sum(spec.total for spec in specs)
        self._ended: set[str] = set()
        self._hopeless = True
        """Nothing but failures has come back."""
        self._absence = Absence(context.config.cluster.wait)
        self._waited_for: str | None = None
        settled = [record for record in known.values() if record.settled]
        self._event("study_begun", trials=len(specs), known=len(settled))
        metrics.PLANNED_SAMPLES.set(self._planned, stage=plan.name)
        for record in settled:
            self._standing.take(record)
        self._measure()

    def track(self, record: TrialRecord) -> None:
        """Hand a record to the tracker."""
        pool = self._pools[record.spec.pool]
        facts = trial_facts(record, pool, self._plan.name, self._score)
        self._context.tracker.trial(*facts)

    def take(self, record: TrialRecord) -> None:
        """Tell what is new of a trial, and bring progress and metrics up to date.

        Raises:
            SandboxError: nothing but failures has come back.
        """
        self._standing.take(record)
        self._pace.take(record, time.monotonic())
        self._show()
        self._tell(record)
        self._measure()
        if record.state is TrialState.FAILED:
            self._note(self._failure(record))
        if record.state is not TrialState.RUNNING:
            self._end(record)

    def placed(self, trials: Collection[str]) -> None:
        """Take the ids of the trials that have a place: others wait, at a rung or for one."""
        self._standing.place(trials)
        self._pace.place(trials, time.monotonic())
        self._show()

    def retried(self, record: TrialRecord) -> None:
        """Say that a trial crashed and will be tried again; error and place are in the record."""
        self._tell_failure("trial_retried", logging.WARNING, record)
        self._note(f"{self._failure(record)}; it is tried again")

    def silent(self, silence: Silence) -> None:
        """Say that a trial says nothing, and whether its worker is replaced; in any thread."""
        spec = next(spec for spec in self._specs if spec.id == silence.trial)
        line = f"{spec.pool} seed {spec.seed} has said nothing for {silence.seconds:.0f} s"
        what = "is ended, and the trial tried again" if silence.replaced else "may be stuck"
        self._note(f"{line}: {silence.place} {what}")
        self._event(
            "trial_silent",
            level=logging.WARNING,
            pool=spec.pool,
            seed=spec.seed,
            trial=spec.id,
            seconds=round(silence.seconds),
            place=silence.place,
            replaced=silence.replaced,
        )

    def decided(self, decision: Decision) -> None:
        """Say which pools were given up at a rung."""
        self._pace.decide(decision.samples, decision.stopped)
        outcome = decision.reason or (
            f"pools given up: {len(decision.stopped)}; those that run on as a check: "
            f"{len(decision.audited)}"
        )
        self._note(f"at {decision.samples} samples: {outcome}")
        self._event("race_decided", **asdict(decision))

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
            self._event("waiting", level=logging.WARNING, resources=wanted)
        elif wanted is None and self._waited_for is not None:
            self._event("waiting_over")
        self._waited_for = wanted

    def _show(self) -> None:
        now = self._standing
        self._context.progress.update(
            done=now.known - now.count(TrialState.RUNNING),
            running=now.at_work,
            held=now.at_a_rung,
            failed=now.count(TrialState.FAILED),
            stopped=now.count(TrialState.STOPPED),
            best=self._leader(),
            left=self._pace.seconds_left,
        )

    def _leader(self) -> str | None:
        """Return who leads, and where that was seen if it is not the end; no verdict."""
        if (leader := self._standing.leader) is None:
            return None
        at = f" at {leader.samples:,} samples" if leader.samples < self._specs[0].total else ""
        return f"{leader.pool}{at}"

    def _tell(self, record: TrialRecord) -> None:
        """Tell by events what a record has that the trial's last one had not."""
        before = self._last.get(record.spec.id)
        self._last[record.spec.id] = record
        if record.attempts > (before.attempts if before else 0):
            self._trial("trial_started", record, attempt=record.attempts, after=samples_of(record))
        if record.reports and record.reports != (before.reports if before else ()):
            self._tell_rung(record, before)
        if record.state is TrialState.COMPLETED:
            self._trial("trial_finished", record, samples=samples_of(record))
        elif record.state is TrialState.STOPPED:
            self._trial("trial_stopped", record, samples=samples_of(record))
        elif record.state is TrialState.FAILED:
            self._tell_failure("trial_failed", logging.ERROR, record)

    def _tell_rung(self, record: TrialRecord, before: TrialRecord | None) -> None:
        last = record.reports[-1]
        earlier = before.reports[-1] if before and before.reports else None
        self._trial(
            "trial_rung",
            record,
            samples=last.samples,
            loss=last.loss,
            metrics=last.metrics,
            train_seconds=round(last.train_seconds, 3),
            evaluation_seconds=round(last.evaluation_seconds, 3),
        )
        stage = self._plan.name
        metrics.TRAINED_SAMPLES.add(last.samples - (earlier.samples if earlier else 0), stage=stage)
        training = last.train_seconds - (earlier.train_seconds if earlier else 0)
        evaluation = last.evaluation_seconds - (earlier.evaluation_seconds if earlier else 0)
        metrics.TRIAL_SECONDS.add(training, stage=stage, part="training")
        metrics.TRIAL_SECONDS.add(evaluation, stage=stage, part="evaluation")

    def _tell_failure(self, name: str, level: int, record: TrialRecord) -> None:
        path = log_path(f"{self._context.folder}/{LOGS}", record.spec.id)
        self._trial(
            name,
            record,
            level=level,
            error=record.error,
            place=record.place,
            diverged=record.diverged,
            traceback=(record.traceback or "")[-_TRACEBACK:],
            output=last_lines(self._context.storage, path),
            log=path,
        )

    def _measure(self) -> None:
        stage, now = self._plan.name, self._standing
        metrics.TRIALS.set(len(self._specs) - now.known, stage=stage, state="WAITING")
        for state in TrialState:
            metrics.TRIALS.set(now.count(state), stage=stage, state=str(state))
        used = now.used / self._planned if self._planned else 0.0
        metrics.BUDGET_USED.set(used, stage=stage)
        if (change := now.best_change) is not None:
            metrics.BEST_CHANGE.set(change, stage=stage)

    def _end(self, record: TrialRecord) -> None:
        """End the run when nothing but failures has come back: the rest would be in vain."""
        self._ended.add(record.spec.id)
        self._hopeless &= record.state is TrialState.FAILED
        if self._hopeless and len(self._ended) >= _HOPELESS and not self._plan.optional:
            raise SandboxError(
                f"all of the first {len(self._ended)} trials failed; the last: {record.error}"
            )

    def _failure(self, record: TrialRecord) -> str:
        where = f" on {record.place}" if record.place else ""
        return f"{record.spec.pool} seed {record.spec.seed} FAILED{where}: {record.error}"

    def _note(self, line: str) -> None:
        self._context.progress.note(f"{self._plan.name}: {line}")

    def _trial(self, name: str, record: TrialRecord, **details: Any) -> None:
        spec = record.spec
        self._event(name, pool=spec.pool, seed=spec.seed, **{"trial": spec.id, **details})

    def _event(self, name: str, **details: Any) -> None:
        event(name, stage=self._plan.name, **details)
