"""Trains a model stage after stage, and reports, saves and resumes as one training.

A checkpoint holds the stage that is at work, and beside it in ``earlier.pt`` what the stages before
it have trained. Where a stage that cannot be judged ends, the state is kept, too: no trial repeats
hours of it for want of a rung.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.family import Clock, TrialTask
from djsandbox_ray.trials.loop import TrainingLoop, TrainingState
from djsandbox_ray.trials.stages import Stage, check_rungs, ends, total

T = TypeVar("T", bound=TrainingLoop)

_EARLIER = "earlier.pt"


def train_stages(
    task: TrialTask,
    stages: Sequence[Stage],
    begin: Callable[[Stage, dict[str, Any]], T],
    evaluate: Callable[[T, int], dict[str, float]],
) -> Iterator[RungReport]:
    """Train a model stage after stage, and yield a report at every rung ahead.

    A trial that was cut off goes on in the stage of its newest checkpoint, bit for bit. At a rung
    its state is kept before it is judged, which may take long: who is cut off there is judged, and
    not trained again.

    Args:
        task: rungs, checkpoints and workers of the trial.
        stages: in their order; the last rung is their total.
        begin: makes the training of a stage, on all workers. It is given what the stages before it
            have trained, by name of the parameter, on the CPU.
        evaluate: returns the metrics of the model in training, after so many samples of all stages;
            called on all workers, and what rank 0 returns counts.

    Raises:
        BadInput: a rung lies where the model cannot be judged.
        Diverged: the loss is not finite.
    """
    if task.rungs[-1] != total(stages):
        raise SandboxError(f"the last rung is {task.rungs[-1]}, the stages have {total(stages)}")
    check_rungs(stages, task.rungs)
    staged = _Staged(task, stages, begin)
    try:
        for state in staged.run():
            trained = staged.reached
            if trained is None:
                is_rung = state.samples >= task.rungs[0]
                trained = staged.clock.report(state.samples, state.loss, {}, state.terms)
                task.checkpoint.save(trained, staged.save, judged=not is_rung)
                if not is_rung:
                    continue
            with staged.clock.evaluation():
                metrics = task.group.from_first(evaluate(staged.training, state.samples))
            report = staged.clock.judged(trained, metrics)
            task.checkpoint.judge(report)
            yield report
    finally:
        staged.close()


class _Staged:
    """The stage that is at work, with what comes before and behind it."""

    def __init__(
        self, task: TrialTask, stages: Sequence[Stage], begin: Callable[[Stage, dict[str, Any]], T]
    ) -> None:
        self.clock = Clock()
        self.reached: RungReport | None = None
        """Of the rung at which the trial was cut off before it was judged."""
        self._task, self._stages, self._begin = task, stages, begin
        self._at = 0
        self._earlier: dict[str, Any] = {}
        self._training: Any = None
        self._told: dict[str, float] = {}
        """The losses of stages that no report has told of."""

    @property
    def training(self) -> Any:
        """The training of the stage that is at work."""
        return self._training

    def run(self) -> Iterator[TrainingState]:
        """Train, and yield at every rung ahead, and where a stage ends before the first rung.

        First of all, at the rung that was reached and not judged.
        """
        self._resume()
        if self.reached is not None:
            yield TrainingState(self.reached.samples, self.reached.loss, self.reached.terms)
            self.reached = None
        for number in range(self._at, len(self._stages)):
            stage, end = self._stages[number], ends(self._stages)[number]
            start = end - stage.samples
            if self._training is None:
                self._at, self._training = number, self._begin(stage, self._earlier)
            rungs = [rung for rung in self._task.rungs if start < rung <= end]
            for state in self._training.run([stop - start for stop in sorted({*rungs, end})]):
                seen = start + state.samples
                told, self._told = self._told, {}
                passed = [rung for rung in rungs if rung <= seen]
                if passed or seen < self._task.rungs[0]:
                    yield TrainingState(seen, state.loss, {**told, **state.terms})
                rungs = [rung for rung in rungs if rung > seen]
                if not passed:
                    self._told = {**told, **_named(stage, state.loss)}
            if number + 1 < len(self._stages):
                self._earlier = {**self._earlier, **self._training.weights()}
                self.close()

    def save(self, folder: Path) -> None:
        """Write this worker's files."""
        self._training.save(folder)
        if self._task.group.rank == 0 and self._earlier:
            require("torch", "clip").save(self._earlier, folder / _EARLIER)

    def close(self) -> None:
        """Let go of the stage at work."""
        training, self._training = self._training, None
        if training is not None:
            training.close()

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one that can be read."""
        with self._task.checkpoint.load() as found:
            if found is None:
                return
            samples, folder = found
            at = next(n for n, end in enumerate(ends(self._stages)) if samples <= end)
            earlier = _read(folder / _EARLIER)
            training = self._begin(self._stages[at], earlier)
            if not training.load(folder):
                training.close()
                return
        self._at, self._earlier, self._training = at, earlier, training
        self.reached = self._task.checkpoint.pending()
        newest = self.reached or self._task.checkpoint.reports()[-1]
        self.clock.resume(newest)
        if newest.samples < self._task.rungs[0]:
            kept = {name: value for name, value in newest.terms.items() if "/" in name}
            self._told = {**kept, **_named(self._stages[at], newest.loss)}


def _named(stage: Stage, loss: float) -> dict[str, float]:
    """Return what a stage without a rung tells at its end; the next report says it."""
    return {f"{stage.name}/loss": loss}


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found: dict[str, Any] = require("torch", "clip").load(path, weights_only=True)
    return found
