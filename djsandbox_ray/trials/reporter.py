"""Turns what Ray Tune says about its trials into trial records, in the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from ray import cloudpickle, tune
from ray.exceptions import RayTaskError

from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.filesystems import disk_failure
from djsandbox_ray.trials.family import OtherNumbers
from djsandbox_ray.trials.trainable import Crashed
from djsandbox_ray.trials.worker import OtherRows

_REPORT = TypeAdapter(RungReport)
_FATAL: Mapping[str, type[SandboxError]] = {
    "StorageFailed": StorageFailed,
    "Damaged": BadInput,
    "Missing": BadInput,
    "OtherNumbers": OtherNumbers,
    "OtherRows": OtherRows,
}
"""By the name of what a trial raised in another process, what ends the study."""
# Starting the first processes takes some seconds too.
_PATIENCE = 30.0


class Reporter(tune.Callback):
    """Keeps the records of the running trials up to date.

    Args:
        specs: the trials.
        known: what earlier work has left of some of them, by trial id.
        on_record: called after every start, report and end of a trial.
        on_waiting: called with True when nothing has run for a while, with False when that is over.
        on_retry: called with the record of a trial that crashed and will be tried again; error,
            traceback and place are those of the crash.
        on_places: called with the ids of the trials that have a place, whenever these change.
    """

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        known: Mapping[str, TrialRecord],
        on_record: Callable[[TrialRecord], None],
        on_waiting: Callable[[bool], None],
        on_retry: Callable[[TrialRecord], None] = lambda record: None,
        on_places: Callable[[Collection[str]], None] = lambda trials: None,
    ) -> None:
        self._on_waiting = on_waiting
        self._on_retry = on_retry
        self._on_places = on_places
        self._placed: set[str] = set()
        """As it was told last."""
        self._ran_at = time.monotonic()
        self._waiting = False
        self._records = {spec.id: _begun_anew(spec, known.get(spec.id)) for spec in specs}
        self._on_record = on_record
        self._attempted: set[str] = set()
        self._held: dict[str, Any] = {}
        """Tune's trials that were given a place; asked at every event, unlike all the others."""
        self._held_since: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._process: dict[str, str] = {}
        self._released: dict[str, float] = {}
        self._began = time.monotonic()
        self.raised: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for its snapshots, which nobody restores.
        return {}

    def unfinished(self) -> int:
        """Return how many trials have not come to an end."""
        return sum(record.state is TrialState.RUNNING for record in self._records.values())

    def running(self) -> list[str]:
        """Return the ids of the trials that have a place; in any thread."""
        return list(self._held_since)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial was given its place, for the first time or again."""
        record = self._record(trial)
        self._held[record.spec.id] = trial
        self._held_since[record.spec.id] = self._started[record.spec.id] = time.monotonic()
        if record.spec.id in self._attempted:
            return  # it was paused
        self._attempted.add(record.spec.id)
        self._update(trial, attempts=record.attempts + 1)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial crashed and will be tried again."""
        record = self._record(trial)
        self._attempted.discard(record.spec.id)
        self._on_retry(replace(record, **self._failure(trial)))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Add a report, or note that the trial diverged."""
        record = self._record(trial)
        if (started := self._started.pop(record.spec.id, None)) is not None:
            held = record.held_seconds + self._before(started, result["process"])
            record = self._records[record.spec.id] = replace(record, held_seconds=held)
        self._process[record.spec.id] = result["process"]["id"]
        if "failure" in result:
            self._update(trial, state=TrialState.FAILED, **result["failure"])
            return
        report = _REPORT.validate_python(result["report"])
        self._update(trial, reports=merged(record.reports, report))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note how a trial ended."""
        record = self._record(trial)
        if record.state is not TrialState.FAILED:
            state = TrialState.COMPLETED if record.final else TrialState.STOPPED
            self._update(trial, state=state)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial crashed for the last time.

        Where the storage fails, or what all trials read is damaged or another's, the others would
        fail alike; on a node with other libraries or a full disk one after the other would. That
        ends the study.
        """
        failure = self._failure(trial)
        self._update(trial, state=TrialState.FAILED, **failure)
        if (fatal := _fatal(failure["error"], failure["place"])) is not None:
            self.raised = fatal
            raise fatal

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Close the accounts of trials that no longer run: Tune does not tell of pauses."""
        if self.raised:  # Tune swallows what is raised while it stops a trial
            raise self.raised
        for key, trial in list(self._held.items()):
            if trial.status != "RUNNING":
                self._count(trial)
                del self._held[key]
                released = self._held_since.pop(key)
                if process := self._process.pop(key, None):
                    self._released[process] = released
        if self._placed != self._held.keys():
            self._placed = {*self._held}
            self._tell(self._on_places, self._placed)
        self._look_for_room()

    @staticmethod
    def _failure(trial: Any) -> dict[str, Any]:
        """Return why and where a trial crashed, as fields of its record."""
        error, traceback, diverged, place = _why(trial)
        shown = {"error": without_secrets(error), "traceback": without_secrets(traceback)}
        return {**shown, "diverged": diverged, "place": place}

    def _before(self, started: float, process: dict[str, Any]) -> float:
        """Return for how long a process had held its place when Tune called its trial started.

        That is since the trial before let go of it, or since it was made.
        """
        if (released := self._released.get(process["id"])) is not None:
            return started - released
        return min(float(process["startup"]), started - self._began)

    def _look_for_room(self) -> None:
        """Tell when trials wait for a place and none runs, as when others use the cluster."""
        now = time.monotonic()
        if self._held:
            self._ran_at = now
        waiting = now - self._ran_at > _PATIENCE
        if waiting or self._waiting:
            self._tell(self._on_waiting, waiting)
        self._waiting = waiting

    def _record(self, trial: Any) -> TrialRecord:
        return self._records[trial.config["trial"]["id"]]

    def _count(self, trial: Any) -> None:
        """Add the seconds that a trial was held since they were last counted."""
        record, now = self._record(trial), time.monotonic()
        if (since := self._held_since.get(record.spec.id)) is not None:
            self._held_since[record.spec.id] = now
            self._records[record.spec.id] = replace(
                record, held_seconds=record.held_seconds + now - since
            )

    def _update(self, trial: Any, **changes: Any) -> None:
        self._count(trial)
        record = replace(self._record(trial), **changes)
        self._records[record.spec.id] = record
        self._tell(self._on_record, record)

    def _tell(self, callback: Callable[[Any], None], what: Any) -> None:
        """Call back, and keep what that raises: Tune would make text of it."""
        try:
            callback(what)
        except Exception as error:
            self.raised = error
            raise


def merged(reports: Sequence[RungReport], report: RungReport) -> tuple[RungReport, ...]:
    """Return the reports with another one.

    One that comes again changes nothing; one that differs, or is new, takes its place, and what
    was reported behind it is no longer true.
    """
    if report in reports:
        return tuple(reports)
    return (*(kept for kept in reports if kept.samples < report.samples), report)


def _begun_anew(spec: TrialSpec, known: TrialRecord | None) -> TrialRecord:
    begun = TrialRecord(spec, TrialState.RUNNING)
    if known is None:
        return begun
    return replace(
        begun,
        reports=known.reports,
        attempts=known.attempts,
        held_seconds=known.held_seconds,
    )


def _fatal(error: str, place: str | None) -> SandboxError | None:
    """Return what ends the study, if what a trial raised does."""
    kind, _, said = error.partition(": ")
    if kind in _FATAL:
        return _FATAL[kind](said)
    # By its words, as the number is gone; what is said of the user's input may have the same ones.
    if kind == BadInput.__name__ or disk_failure(RuntimeError(said), "") is None:
        return None
    return StorageFailed(
        f"a disk of {place or 'a node'} takes nothing more: {said}; what is finished is kept, and "
        "the same command goes on once that is mended"
    )


def _why(trial: Any) -> tuple[str, str, bool, str | None]:
    """Return why a trial crashed, in one line and in full, whether it had diverged, and where."""
    at = trial.temporary_state.location
    place = f"node {at.hostname} (pid {at.pid})" if at.pid else None
    if path := trial.pickled_error_file:
        error = cloudpickle.loads(Path(path).read_bytes())
        cause = getattr(error, "cause", None)
        while isinstance(cause, RayTaskError):  # another rank has raised it
            cause = cause.cause
        if isinstance(cause, Crashed):
            return cause.reason, cause.traceback, cause.diverged, cause.place
        if cause is None:  # the process died
            return str(error).splitlines()[0], str(error), False, place
        return f"{type(cause).__name__}: {cause}".splitlines()[0], str(error), False, place
    text = Path(trial.error_file).read_text().strip() if trial.error_file else ""
    text = text or "the trial ended without a reason"
    return text.splitlines()[-1], text, False, place
