"""A benchmark of shapes with samples of its own, and a family whose models answer its questions.

Workers import both by name, as ``{"type": "small_answers:Quiz"}`` and ``"small_answers:Pupil"``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from small_family import Taster, TasterConfig, notes

from djsandbox_ray.dataset.shapes import ShapesConfig, ShapesSource
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.answer_evaluator import AnswerEvaluator
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import RungReport
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.answering import evaluate_together
from djsandbox_ray.trials.family import TrialData, TrialTask

UNREADABLE = "well, "


class QuizConfig(Component):
    """What colour is it? Whoever is right is asked for the shape, too."""

    samples: int = 30
    seed: int = 7
    formula: Literal["colour", "both"] = "colour"
    """Scoring alone: whether the shape must be right, too."""
    place: str = ""
    """Folder in which a file ``kill`` has the next scoring kill its process, and one of the name
    ``refused`` holds the shares of right colours that are refused; empty for none."""


class Quiz(AnswerEvaluator):
    """``quiz/right``, better when greater, and ``quiz/wrong``, better when less."""

    Config = QuizConfig
    VERSION = 1
    config: QuizConfig

    @property
    def name(self) -> str:
        return "quiz"

    def identity(self) -> Any:
        return self.config.model_dump(mode="json", exclude={"place"})

    def asking(self) -> Any:
        return {"rounds": 2}

    def source(self) -> Source:
        config = self.config
        return ShapesSource(ShapesConfig(type="shapes", samples=config.samples, seed=config.seed))

    def check(self, data: EvaluationSet) -> None:
        if not all("colour" in meta for meta in data.metadata):
            raise BadInput("quiz: a sample has no colour")

    def measures(self) -> tuple[Metric, ...]:
        return (
            Metric("quiz/right", low=0, high=1, chance=0.25),
            Metric("quiz/wrong", "less", low=0, high=1, chance=0.75),
        )

    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        first = [
            Asked(f"{row}/colour", data.id, row, "Which colour?", 3) for row in range(data.rows)
        ]
        return first + [
            Asked(f"{row}/shape", data.id, row, "And which shape?", 3)
            for row, meta in enumerate(data.metadata)
            if self._is(meta, answers, row, "colour")
        ]

    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        if self.config.place and (kill := Path(self.config.place, "kill")).exists():
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        self._refuse(data, answers)
        wanted = ("colour", "shape") if self.config.formula == "both" else ("colour",)
        right = sum(
            all(self._is(meta, answers, row, what) for what in wanted)
            for row, meta in enumerate(data.metadata)
        )
        return {"quiz/right": right / data.rows, "quiz/wrong": 1 - right / data.rows}

    def _refuse(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> None:
        refused = Path(self.config.place, "refused")
        if self.config.place and refused.exists():
            known = [
                self._is(meta, answers, row, "colour") for row, meta in enumerate(data.metadata)
            ]
            if sum(known) / data.rows in json.loads(refused.read_text()):
                raise BadInput("quiz: such answers cannot be scored")

    def unparsed(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> list[str]:
        return [key for key, answer in answers.items() if answer.text.startswith(UNREADABLE)]

    @staticmethod
    def _is(meta: Mapping[str, Any], answers: Mapping[str, Answer], row: int, what: str) -> bool:
        answer = answers.get(f"{row}/{what}")
        return answer is not None and answer.text == meta[what]


class Student:
    """Knows as much as the share of questions that it was trained for; always the same ones."""

    def __init__(self, share: float, sets: Mapping[str, str], note: Any) -> None:
        self._share, self._sets, self._note = share, sets, note

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        """Answer from the sets themselves, as far as this one knows them."""
        found = []
        sets = {one.data: EvaluationSet.read(one.data, self._sets[one.data]) for one in asked}
        for one in asked:
            data = sets[one.data]
            truth = str(data.metadata[one.row][one.key.rpartition("/")[2]])
            luck = int.from_bytes(blake2b(one.key.encode(), digest_size=4).digest()) / 2**32
            text = truth if luck < self._share else f"{UNREADABLE}not {truth}"
            found.append(Answer(one.key, text, len(text.split()), cut=len(text.split()) >= 3))
        self._note([one.key for one in asked])
        return found


class Pupil(Taster):
    """Answers questions as well as the draw is clean, and notes which it was asked."""

    Config = TasterConfig
    OFFERS = ("answers",)

    def train(self, task: TrialTask, shared: TrialData) -> Iterator[RungReport]:
        with task.checkpoint.load() as kept:
            done = 0 if kept is None else kept[0]
        self._note("start", {"from": done})
        where = {"trial": [task.seed, int(task.rows[0])]}
        share = self._share(task, shared.train)
        for rung in [rung for rung in task.rungs if rung > done]:
            note = partial(self._note_asked, {**where, "samples": rung})
            student = Student(share * (1 - rung**-0.5), shared.evaluation, note)
            metrics = evaluate_together(task.group, student, task.evaluate, rung)
            now = time.time_ns() // 10**6
            report = RungReport(rung, 1 - share, metrics, 0.5, 0.1, now)
            task.checkpoint.save(report, partial(self._write, task.group.rank, rung))
            yield report

    def _note_asked(self, where: dict[str, Any], keys: list[str]) -> None:
        self._note("asked", {**where, "keys": keys})


def asked(folder: Path) -> list[tuple[str, int, str]]:
    """Return every question that any model was asked: trial, samples and key."""
    return [
        (json.dumps(note["trial"]), note["samples"], key)
        for note in notes(folder, "asked")
        for key in note["keys"]
    ]
