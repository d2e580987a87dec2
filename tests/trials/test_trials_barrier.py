"""The barrier between the race and Tune, with a controller that only keeps states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from djsandbox_ray.trials.stopping.barrier import Barrier
from djsandbox_ray.trials.stopping.stopping import Action, Decision

REPORT = {"report/samples": 10, "report/metrics/m": 1.0}


class Referee:
    """Decides when it is told to: trials of ``stopped`` end, all others go on."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.stopped: set[str] = set()
        self.decided = self.due = False
        self.lost: set[str] = set()

    def report(self, trial: str, samples: int, metrics: Mapping[str, float]) -> None:
        """Nothing is made of it."""

    def failed(self, trial: str) -> None:
        self.lost.add(trial)

    def action(self, trial: str) -> Action:
        self.asked[trial] += 1
        if not self.decided:
            return Action.WAIT
        return Action.STOP if trial in self.stopped else Action.GO

    def decide(self) -> Decision | None:
        if not self.due:
            return None
        self.due, self.decided = False, True
        return Decision(10, (), (), {}, 0.1)


class Controller:
    search_alg = SimpleNamespace(is_finished=lambda: True)

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.trained: list[str] = []

    def stop_trial(self, trial: Any) -> None:
        trial.status = "TERMINATED"
        self.ended.append(trial.trial_id)

    def pause_trial(self, trial: Any) -> None:
        trial.status = "PAUSED"

    def _schedule_trial_train(self, trial: Any) -> None:
        self.trained.append(trial.trial_id)


def _trial(name: str, status: str = "RUNNING") -> Any:
    return SimpleNamespace(
        trial_id=name, status=status, config={"trial": {"id": name}}, should_recover=lambda: True
    )


def _waiting(count: int) -> tuple[Barrier, Referee, Controller, list[Any]]:
    """Trials that were paused at a rung because another one waits for a place."""
    referee, tune = Referee(), Controller()
    barrier, trials = Barrier(referee), [_trial(f"t{number}") for number in range(count)]
    barrier.on_trial_add(tune, _trial("queued", "PENDING"))
    for trial in trials:
        barrier.on_trial_add(tune, trial)
        assert barrier.on_trial_result(tune, trial, REPORT) == "PAUSE"
        tune.pause_trial(trial)
    return barrier, referee, tune, trials


def test_what_waits_is_not_looked_at_before_a_rung_is_decided() -> None:
    barrier, referee, tune, _ = _waiting(50)
    referee.asked.clear()
    for _ in range(20):
        assert barrier.choose_trial_to_run(tune) is None
    assert not referee.asked
    referee.due = True
    barrier.choose_trial_to_run(tune)
    assert max(referee.asked.values()) <= 2


def test_a_decision_stops_some_and_names_the_others_one_by_one() -> None:
    barrier, referee, tune, trials = _waiting(6)
    referee.stopped, referee.due = {"t1", "t4"}, True
    named = []
    while (chosen := barrier.choose_trial_to_run(tune)) is not None:
        assert barrier.choose_trial_to_run(tune) is chosen, "until Tune takes it"
        named.append(chosen.trial_id)
        chosen.status = "PENDING"
    assert tune.ended == ["t1", "t4"]
    assert named == ["t0", "t2", "t3", "t5"]
    assert {trial.status for trial in trials} == {"TERMINATED", "PENDING"}


def test_one_whose_state_is_still_being_saved_goes_on_when_it_is_saved() -> None:
    barrier, referee, tune, trials = _waiting(2)
    trials[0].status = "RUNNING"
    referee.due = True
    assert barrier.choose_trial_to_run(tune) is trials[1]
    trials[1].status = "RUNNING"
    assert barrier.choose_trial_to_run(tune) is None
    trials[0].status = "PAUSED"
    assert barrier.choose_trial_to_run(tune) is trials[0]


def test_a_later_decision_counts_for_those_that_were_to_go_on() -> None:
    barrier, referee, tune, trials = _waiting(3)
    referee.due = True
    assert barrier.choose_trial_to_run(tune) is trials[0]
    referee.due, referee.stopped = True, {"t0", "t2"}
    assert barrier.choose_trial_to_run(tune) is trials[1]
    assert tune.ended == ["t0", "t2"]


def test_one_that_fails_while_it_is_saved_is_waited_for_again() -> None:
    barrier, referee, tune, trials = _waiting(1)
    trials[0].status = "ERROR"
    barrier.on_trial_error(tune, trials[0])
    trials[0].status = "PENDING"
    barrier.on_trial_add(tune, trials[0])
    assert not referee.lost, "Tune tries it again"
    referee.due = True
    assert barrier.choose_trial_to_run(tune) is None
    trials[0].should_recover = lambda: False
    barrier.on_trial_error(tune, trials[0])
    assert referee.lost == {"t0"}


def test_a_place_is_kept_while_nobody_needs_it() -> None:
    referee, tune = Referee(), Controller()
    barrier, first, second = Barrier(referee), _trial("t0"), _trial("t1")
    for trial in (first, second):
        barrier.on_trial_add(tune, trial)
        assert barrier.on_trial_result(tune, trial, REPORT) == "NOOP"
    late = _trial("late", "PENDING")
    barrier.on_trial_add(tune, late)
    assert barrier.choose_trial_to_run(tune) is None
    assert (first.status, second.status) == ("PAUSED", "PAUSED"), "somebody needs it now"
    late.status = "RUNNING"
    referee.due = True
    assert barrier.choose_trial_to_run(tune) is first
    assert not tune.trained
