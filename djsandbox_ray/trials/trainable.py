"""A trial as Ray Tune sees it: its own worker, or a gang of them, one step per rung."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import ray
from ray import tune

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.trials.gang import Gang
from djsandbox_ray.trials.worker import Shared, TrialWorker

# Tune keeps of a paused trial only how far it has reported; its weights are in its own checkpoint.
_REPORTED = "reported.json"


class Crashed(SandboxError):
    """A trial raised an error; Tune tries it again in a new process."""

    def __init__(self, error: str, traceback: str, diverged: bool, place: str) -> None:
        super().__init__(error, traceback, diverged, place)
        self.reason, self.traceback, self.diverged = error, traceback, diverged
        self.place = place


class Trial(tune.Trainable):
    """Trains from one rung to the next at each step.

    Processes are reused from trial to trial: starting one and importing torch takes longer than a
    small trial itself.
    """

    def __repr__(self) -> str:
        # Ray asks once, when the process is made: it will run one trial after the other.
        return f"Trial({getattr(self, '_study', '')})"

    # ``shared`` is what tune.with_parameters passes.
    def setup(self, config: dict[str, Any], *, shared: Shared) -> None:  # type: ignore[override]
        """Start the workers and take up the first trial."""
        self._study = shared.study
        alone = shared.resources.workers == 1
        self._worker = TrialWorker(shared) if alone else Gang(shared, shared.resources)
        self._retry_diverged = shared.retry_diverged
        # Only the first trial of a process has waited for it to start.
        self._process = {"id": uuid4().hex, "startup": time.time() - psutil.Process().create_time()}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial in this process."""
        self._trial, self._reported, self._begun = new_config["trial"], 0, False
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung.

        A trial that diverged is a result too, unless it is to be tried again: the process lives on
        for the next one.

        Raises:
            Crashed: the trial failed, and is to be tried again.
        """
        if not self._begun:
            self._worker.begin(self._trial, self._reported)
            self._begun = True
        _entitle(f"ray::{self._trial['pool']} seed {self._trial['seed']}")
        result = self._worker.step()
        failure = result.get("failure")
        if failure and (self._retry_diverged or not failure["diverged"]):
            raise Crashed(**failure)
        if not failure:
            self._reported = result["report"]["samples"]
        return {**result, "process": self._process}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep how far the trial has reported."""
        Path(checkpoint_dir, _REPORTED).write_text(json.dumps(self._reported))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on behind what has been reported."""
        self._reported = json.loads(Path(checkpoint, _REPORTED).read_text())

    def cleanup(self) -> None:
        """Let go of the trial and end its other workers."""
        self._worker.close()


def _entitle(text: str) -> None:
    """Give this process a title, for ``ps`` and the dashboard; Ray takes it back after the task."""
    # Ray has no public way to say what a task is about that others call.
    if (entitle := getattr(ray._raylet, "setproctitle", None)) is not None:
        entitle(text)
