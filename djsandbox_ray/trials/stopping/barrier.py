"""The race as a scheduler of Ray Tune: trials wait at a rung until it is decided."""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    _supports_buffered_results = False

    def __init__(self, race: Referee) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._race = race
        self._held: dict[str, Trial] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled for Tune's snapshots, which nobody restores

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let every trial begin."""

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Wait no longer for a trial that will not be tried again."""
        self._held.pop(trial.trial_id, None)
        # Tune has set ERROR by now only where it will try again.
        again = trial.status == Trial.ERROR and trial.should_recover()  # type: ignore[no-untyped-call]
        if not again:
            self._race.failed(_id(trial))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Take in a report, and let the trial go on, wait or stop."""
        self._take(trial, result)
        action = self._race.action(_id(trial))
        if action is Action.GO:
            return TrialScheduler.CONTINUE
        if action is Action.STOP:
            return TrialScheduler.STOP
        if _queued(tune_controller):
            return TrialScheduler.PAUSE
        self._held[trial.trial_id] = trial
        return TrialScheduler.NOOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Take in the last report, which Tune tells here only."""
        self._take(trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing is kept of a trial that is stopped while it waits."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Decide a rung if it can be decided, act upon it, and name a trial that may go on.

        Tune calls this all the time, after what was reported has been recorded.
        """
        while self._race.decide():
            pass
        paused = [trial for trial in tune_controller.get_trials() if trial.status == Trial.PAUSED]
        actions = {trial.trial_id: self._race.action(_id(trial)) for trial in paused}
        for trial in paused:
            if actions[trial.trial_id] is Action.STOP:
                tune_controller.stop_trial(trial)
        ready = next((trial for trial in paused if actions[trial.trial_id] is Action.GO), None)
        # One that waits for a place takes over a process only if it is queued before that is free.
        self._free_held(tune_controller, stop=ready is None)
        return ready

    def debug_string(self) -> str:
        """Say how many trials keep their process while they wait."""
        return f"race: {len(self._held)} trials wait in their place"

    def _free_held(self, tune_controller: Any, *, stop: bool) -> None:
        for key, trial in list(self._held.items()):
            action = self._race.action(_id(trial))
            if action is Action.WAIT and _queued(tune_controller):
                del self._held[key]
                tune_controller.pause_trial(trial)
            elif action is Action.GO:
                del self._held[key]
                # Tune has no public way to go on with a trial that was told to do nothing.
                tune_controller._schedule_trial_train(trial)
            elif action is Action.STOP and stop:
                del self._held[key]
                tune_controller.stop_trial(trial)

    def _take(self, trial: Trial, result: dict[str, Any]) -> None:
        if report := report_in(result):
            self._race.report(_id(trial), report.samples, report.metrics)
        elif any(key.startswith("failure/") for key in result):
            self._race.failed(_id(trial))


def _queued(tune_controller: Any) -> bool:
    """Say whether trials wait for a place."""
    if not tune_controller.search_alg.is_finished():
        return True
    return any(trial.status == Trial.PENDING for trial in tune_controller.get_trials())


def _id(trial: Trial) -> str:
    return str(trial.config["trial"]["id"])
