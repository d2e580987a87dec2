"""A user's own questions about images, with the answers that are right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.vqa.benchmark import (
    Benchmark,
    BenchmarkConfig,
    PlacedQuestion,
    mean,
    texts_of,
)
from djsandbox_ray.evaluation.vqa.made_elsewhere import Line, assigned
from djsandbox_ray.evaluation.vqa.normal import LEAST_ANSWERS, consensus, normal
from djsandbox_ray.evaluation.vqa.pictures import (
    BenchmarkImage,
    PicturesConfig,
    PicturesSource,
    grouped,
    objects_of,
    text_at,
)


class VqaFiles(PicturesSource):
    """JSON Lines with ``image``, ``question`` and ``answer`` or ``answers``; ``id`` if wanted."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".jsonl",)
    Config = PicturesConfig
    BENCHMARK: ClassVar[str] = "vqa"

    def pictures(self, files: Sequence[SourceFile]) -> list[BenchmarkImage]:
        """Read a question from each line."""
        pictures = []
        places: dict[str, str] = {}
        for file in files:
            for place, entry in objects_of(file):
                question: dict[str, Any] = {
                    "question": text_at(place, entry, "question"),
                    "answers": _answers(place, entry),
                }
                if entry.get("id") is not None:
                    question["id"] = text_at(place, entry, "id")
                    if (first := places.setdefault(question["id"], place)) != place:
                        raise BadInput(f"{place}: the id {question['id']!r} is that of {first} too")
                path = text_at(place, entry, "image")
                pictures.append(BenchmarkImage(place, (path,), None, [question]))
        return grouped(pictures, lambda picture: picture.paths)


def _answers(place: str, entry: Mapping[str, Any]) -> list[str]:
    if isinstance(listed := entry.get("answers"), list) and listed:
        return [text_at(place, {"answers": one}, "answers") for one in listed]
    return [text_at(place, entry, "answer")]


@dataclass(frozen=True)
class VqaQuestion:
    """A question with the answers that are right."""

    id: str
    """Empty where the file gives none."""
    text: str
    answers: tuple[str, ...]


Match = Literal["normal", "exact", "contains", "consensus"]


class VqaConfig(BenchmarkConfig):
    """JSON Lines ``{"image": ..., "question": ..., "answer": ...}``, or ``"answers": [...]``."""

    SCORING: ClassVar[frozenset[str]] = frozenset({"match"})

    match: Match = "normal"
    """When an answer is right: if it is one of the given ones after punctuation, articles and case
    are gone (``normal``), to the letter but for blanks around it (``exact``), if a given one occurs
    in it in whole words (``contains``), or by the agreement of people (``consensus``, TextVQA's
    rule, for questions with at least 4 answers)."""


class Vqa(Benchmark[VqaQuestion]):
    """``vqa/accuracy``: the share of right answers; with ``consensus`` their VQA accuracy."""

    Config = VqaConfig
    VERSION: ClassVar[int] = 1
    BENCHMARK: ClassVar[str] = "vqa"
    SOURCE: ClassVar[type[PicturesSource]] = VqaFiles
    GROUPS: ClassVar[str] = "questions"
    config: VqaConfig

    def read(self, place: str, entry: Mapping[str, Any]) -> VqaQuestion:
        """Return a question."""
        name = text_at(place, entry, "id") if entry.get("id") is not None else ""
        return VqaQuestion(name, text_at(place, entry, "question"), tuple(_answers(place, entry)))

    def group(self, placed: PlacedQuestion[VqaQuestion]) -> str:
        """Take questions one by one."""
        return placed.key

    def sort_out(self, placed: Sequence[PlacedQuestion[VqaQuestion]]) -> None:
        """Check that people can agree, where they are to."""
        few = [one for one in placed if len(one.question.answers) < LEAST_ANSWERS]
        if few and self.config.match == "consensus":
            raise BadInput(
                f"{self.name}: match: consensus needs {LEAST_ANSWERS} answers to a question; "
                f"{len(few)} of {len(placed)} have fewer, the first is {few[0].question.text!r}"
            )

    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        """Ask every question once."""
        return [
            self.prompted(data, one, self.config.filled(question=one.question.text))
            for one in self.placed(data)
        ]

    def measures(self) -> tuple[Metric, ...]:
        """Name the accuracy."""
        return (Metric(f"{self.name}/accuracy", low=0, high=1, chance=0),)

    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        """Compare with the answers that are right."""
        right = _RULES[self.config.match]
        said = texts_of(answers, self.placed(data))
        values = [right(text, one.question.answers) for one, text in said]
        return {f"{self.name}/accuracy": mean(values)}

    def unparsed(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Collection[str]:
        """Return answers of which nothing is left to compare."""
        exact = self.config.match == "exact"
        return [
            key
            for key, answer in answers.items()
            if not (answer.text.strip() if exact else normal(answer.text))
        ]

    def match(self, lines: Sequence[Line], data: EvaluationSet) -> dict[str, str]:
        """Take lines with ``id`` (or ``question_id``) and ``answer`` (or ``text``, ``prediction``).

        Where the questions have no ids, they are told by their texts, equal ones in order.
        """
        placed = self.placed(data)
        by_id = all(one.question.id for one in placed)
        wanted: dict[Any, list[str]] = {}
        for one in placed:
            wanted.setdefault(one.question.id if by_id else one.question.text, []).append(one.key)
        keys = ("id", "question_id") if by_id else ("question",)
        return assigned(
            lines,
            wanted,
            lambda line: line.text(*keys),
            lambda line: line.text("prediction", "answer", "text"),
        )


def _normal(said: str, answers: Sequence[str]) -> float:
    return float(normal(said) in map(normal, answers))


def _exact(said: str, answers: Sequence[str]) -> float:
    return float(said.strip() in [answer.strip() for answer in answers])


def _contains(said: str, answers: Sequence[str]) -> float:
    inside = f" {normal(said)} "
    return float(any(f" {text} " in inside for answer in answers if (text := normal(answer))))


_RULES: dict[Match, Callable[[str, Sequence[str]], float]] = {
    "normal": _normal,
    "exact": _exact,
    "contains": _contains,
    "consensus": consensus,
}
