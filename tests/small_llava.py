"""A LLaVA that notes the steps that it takes and what it answers, and dies where it is told to.

Workers import it by name, as ``{"type": "small_llava:Mortal"}``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from small_family import notes

from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.trials.llava.answerer import LlavaAnswerer
from djsandbox_ray.trials.llava.config import LlavaModelConfig
from djsandbox_ray.trials.llava.family import Llava
from djsandbox_ray.trials.loop import AdditiveTraining
from djsandbox_ray.trials.stages import Stage


class MortalConfig(LlavaModelConfig):
    """The section of the family."""

    place: str
    """Folder for notes ``step-*.json`` and ``answered-*.json``. A file there named ``step`` has the
    next process die that has taken so many steps of its second stage as it holds; one named
    ``answering`` the next that has answered a batch, before that is kept."""


class Mortal(Llava):
    """Trains and answers as a LLaVA does."""

    Config = MortalConfig
    VERSION = 1
    config: MortalConfig

    def identity(self) -> Any:
        """Leave out where the notes are."""
        found = super().identity()
        return {name: value for name, value in found.items() if name != "place"}

    def _begin(
        self, stage: Stage, earlier: Mapping[str, Any], task: Any, *more: Any
    ) -> AdditiveTraining:
        training = super()._begin(stage, earlier, task, *more)
        trial = [task.seed, int(task.rows[0])]
        take = training._step

        def step(batch: Any) -> None:
            number = training._steps
            if stage.name == "finetune":
                self._die("step", number)
            take(batch)
            self._note("step", {"trial": trial, "stage": stage.name, "number": number})

        training._step = step  # type: ignore[method-assign]
        self._trial = trial
        return training

    def _answerer(self, *given: Any) -> LlavaAnswerer:
        answerer = super()._answerer(*given)
        answer, trial = answerer.answer, self._trial

        def noted(asked: Sequence[Asked]) -> list[Answer]:
            found = answer(asked)
            self._die("answering")
            self._note("answered", {"trial": trial, "keys": [one.key for one in asked]})
            return found

        answerer.answer = noted  # type: ignore[method-assign]
        return answerer

    def _die(self, where: str, number: int = 0) -> None:
        told = Path(self.config.place, where)
        try:
            if number < int(told.read_text() or 0):
                return
            told.unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, kind: str, content: dict[str, Any]) -> None:
        place = Path(self.config.place, f"{kind}-{time.time_ns()}-{os.getpid()}.part")
        place.write_text(json.dumps(content))
        place.rename(place.with_suffix(".json"))


def steps(folder: Path) -> list[tuple[str, str, int]]:
    """Return all steps that were taken: trial, stage and number."""
    return [
        (json.dumps(one["trial"]), one["stage"], one["number"]) for one in notes(folder, "step")
    ]


def answered(folder: Path) -> list[tuple[str, str]]:
    """Return all questions that were answered: trial and key."""
    return [
        (json.dumps(one["trial"]), key) for one in notes(folder, "answered") for key in one["keys"]
    ]
