"""The race as a scheduler of Ray Tune: trials wait at a rung until it is decided."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, Protocol

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from djsandbox_ray.trials.stopping.stopping import Action, Decision, report_in


class Referee(Protocol):
    """What a barrier asks: told of reports and failures, it decides rungs. See ``race``."""

    def report(self, trial: str, samples: int, metrics: Mapping[str, float]) -> None:
        """Take in a report."""

    def failed(self, trial: str) -> None:
        """Wait for a trial no longer."""

    def action(self, trial: str) -> Action:
        """Say what becomes of a trial now."""

    def decide(self) -> Decision | None:
        """Decide the next rung if everyone is there."""


class Barrier(TrialScheduler):
    """Carries out what a race says.

    A waiting trial gives up its place (PAUSED) while others have none. When nobody needs the
    place it keeps its process, without a task: Tune would end it, and start another one later.

    Tune asks at every event. What waits is looked at when a rung was decided, and not before:
    until then nothing about it changes.
    """

    _supports_buffered_results = False

    def __init__(self, race: Referee) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._race = race
        self._held: dict[str, Trial] = {}
        """Wait in their place."""
        self._waiting: dict[str, Trial] = {}
        """Were told to give it up until a rung is decided."""
        self._released: dict[str, Trial] = {}
        """Of them, those about which it has been decided, and which may not be PAUSED yet."""
        self._ready: deque[Trial] = deque()
        """PAUSED, and may go on."""
        self._queue: deque[Trial] = deque()
        """May wait for a place: begun anew, or going on."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled for Tune's snapshots, which nobody restores

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let every trial begin; Tune tells this, too, of one that is to be tried again."""
        self._queue.append(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Wait no longer for a trial that will not be tried again."""
        self._forget(trial)
        # Tune has set ERROR by now only where it will try again.
        again = trial.status == Trial.ERROR and trial.should_recover()  # type: ignore[no-untyped-call]
        if not again:
            self._race.failed(_id(trial))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Take in a report, and let the trial go on, wait or stop."""
        self._take(trial, result)
        self._forget(trial)
        action = self._race.action(_id(trial))
        if action is Action.GO:
            return TrialScheduler.CONTINUE
        if action is Action.STOP:
            return TrialScheduler.STOP
        if self._queued(tune_controller):
            self._waiting[trial.trial_id] = trial
            return TrialScheduler.PAUSE
        self._held[trial.trial_id] = trial
        return TrialScheduler.NOOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Take in the last report, which Tune tells here only."""
        self._take(trial, result)
        self._forget(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Keep nothing of a trial that is stopped while it waits."""
        self._forget(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Decide a rung if it can be decided, act upon it, and name a trial that may go on.

        Tune calls this all the time, after what was reported has been recorded.
        """
        while self._ready and self._ready[0].status != Trial.PAUSED:
            self._queue.append(self._ready.popleft())  # it was named, and Tune has taken it
        while self._race.decide():
            self._release()
        for trial in list(self._released.values()):
            if trial.status == Trial.PAUSED:  # else its state is still being saved
                del self._released[trial.trial_id]
                if self._race.action(_id(trial)) is Action.STOP:
                    tune_controller.stop_trial(trial)
                else:
                    self._ready.append(trial)
        # One that waits for a place takes over a process only if it is queued before that is free.
        self._free_held(tune_controller, stop=not self._ready)
        return self._ready[0] if self._ready else None

    def debug_string(self) -> str:
        """Say how many trials keep their process while they wait."""
        return f"race: {len(self._held)} trials wait in their place"

    def _release(self) -> None:
        """Find those about which has been decided, once more those that were to go on."""
        self._released |= {trial.trial_id: trial for trial in self._ready}
        self._ready.clear()
        for key, trial in list(self._waiting.items()):
            if self._race.action(_id(trial)) is not Action.WAIT:
                self._released[key] = self._waiting.pop(key)

    def _forget(self, trial: Trial) -> None:
        for those in (self._held, self._waiting, self._released):
            those.pop(trial.trial_id, None)

    def _free_held(self, tune_controller: Any, *, stop: bool) -> None:
        for key, trial in list(self._held.items()):
            action = self._race.action(_id(trial))
            if action is Action.WAIT and self._queued(tune_controller):
                del self._held[key]
                self._waiting[key] = trial
                tune_controller.pause_trial(trial)
            elif action is Action.GO:
                del self._held[key]
                # Tune has no public way to go on with a trial that was told to do nothing.
                tune_controller._schedule_trial_train(trial)
            elif action is Action.STOP and stop:
                del self._held[key]
                tune_controller.stop_trial(trial)

    def _queued(self, tune_controller: Any) -> bool:
        """Say whether trials wait for a place."""
        if not tune_controller.search_alg.is_finished():
            return True
        while self._queue and self._queue[0].status != Trial.PENDING:
            self._queue.popleft()
        return bool(self._queue) or any(
            trial.status == Trial.PENDING for trial in islice(self._ready, 1)
        )

    def _take(self, trial: Trial, result: dict[str, Any]) -> None:
        if report := report_in(result):
            self._race.report(_id(trial), report.samples, report.metrics)
        elif any(key.startswith("failure/") for key in result):
            self._race.failed(_id(trial))


def _id(trial: Trial) -> str:
    return str(trial.config["trial"]["id"])
