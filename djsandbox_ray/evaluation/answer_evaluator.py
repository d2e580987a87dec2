"""Evaluators that ask a model questions, and score what it has answered."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Protocol, final

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Asker, Reads
from djsandbox_ray.evaluation.metric import Metric


class Answered(Protocol):
    """Where an evaluator has its answers from: what is stored, and a model for the rest."""

    def answers(self, asked: Sequence[Asked]) -> dict[str, Answer]:
        """Return the answer to every question by its key."""


class AnswerEvaluator(Asker):
    """Asks a model about the samples of a set, and scores the answers."""

    READS: ClassVar[Reads] = "answers"

    @abstractmethod
    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        """Return what is to be asked now; called again until nothing in it is new.

        Args:
            data: whose samples the questions are about.
            answers: by key, those to all questions so far; none at first.
        """

    @abstractmethod
    def measures(self) -> tuple[Metric, ...]:
        """Return the metrics that :meth:`score` gives; their names begin with ``<name>/``."""

    @abstractmethod
    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        """Return the metrics of :meth:`measures`, each under its full name.

        Args:
            data: whose samples were asked about.
            answers: by key, those to all questions.
        """

    def unparsed(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Collection[str]:
        """Return the keys of answers in which nothing could be read; by default of blank ones."""
        return [key for key, answer in answers.items() if not answer.text.strip()]

    @final
    def metrics(self) -> tuple[Metric, ...]:
        """Return what :meth:`measures` does, and the shares of unreadable and of cut answers."""
        return (*self.measures(), *self._shares())

    @final
    def evaluate(self, model: Answered, data: EvaluationSet) -> dict[str, float]:
        """Ask what is not stored, round by round, and score.

        Args:
            model: where answers come from.
            data: see :meth:`Evaluator.evaluate`.

        Raises:
            BadInput: a question or a metric is not one that the evaluator may give.
        """
        answers: dict[str, Answer] = {}
        while asked := self._next(data, answers):
            answers |= model.answers(asked)
        if not answers:
            raise BadInput(f"{self.name}: it asks nothing about the {data.rows} rows of {data.id}")
        scores = {name: float(value) for name, value in self.score(data, answers).items()}
        promised = [metric.name for metric in self.measures()]
        if foreign := [name for name in promised if not name.startswith(f"{self.name}/")]:
            raise BadInput(
                f"{self.name}: its metrics' names begin with '{self.name}/', not {foreign[0]!r}"
            )
        if set(scores) != set(promised):
            raise BadInput(
                f"{self.name}: score gives {', '.join(sorted(scores)) or 'nothing'}, but measures "
                f"names {', '.join(sorted(promised)) or 'nothing'}"
            )
        unparsed, cut = self._shares()
        lost = len(set(self.unparsed(data, answers)))
        return {
            **scores,
            unparsed.name: lost / len(answers),
            cut.name: sum(answer.cut for answer in answers.values()) / len(answers),
        }

    def _next(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> list[Asked]:
        """Return the questions that are not answered yet."""
        new: dict[str, Asked] = {}
        for asked in self.ask(data, answers):
            if asked.key in new:
                raise BadInput(f"{self.name}: two questions have the key {asked.key!r}")
            if asked.data != data.id or not 0 <= asked.row < data.rows:
                raise BadInput(
                    f"{self.name}: the question {asked.key!r} is about row {asked.row} of "
                    f"{asked.data!r}; allowed: rows 0 to {data.rows - 1} of {data.id!r}"
                )
            if asked.max_new_tokens < 1:
                raise BadInput(
                    f"{self.name}: the question {asked.key!r} allows {asked.max_new_tokens} new "
                    "tokens; at least 1 is needed"
                )
            if asked.key not in answers:
                new[asked.key] = asked
        return list(new.values())

    def _shares(self) -> tuple[Metric, Metric]:
        unparsed, cut = (
            Metric(f"{self.name}/{what}", "less", low=0, high=1, scored=False, suspect_above=0.5)
            for what in ("unparsed", "cut")
        )
        return unparsed, cut
