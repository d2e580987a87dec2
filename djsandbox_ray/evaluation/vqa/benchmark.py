"""What the evaluators of questions about images have in common: which are asked, and by what words.

The questions of a set stand in the meta data of its rows (see :mod:`.pictures`), whether they come
from the files of a benchmark, from the world of shapes, or from a user's own source.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from djsandbox_ray.dataset.shapes_questions import ShapesQuestionsConfig
from djsandbox_ray.dataset.source import SOURCES, Source, content_of
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.answer_evaluator import AnswerEvaluator
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet, least
from djsandbox_ray.evaluation.vqa.made_elsewhere import Line, answer_lines
from djsandbox_ray.evaluation.vqa.pictures import (
    QUESTIONS,
    WHOLE,
    BenchmarkImage,
    PicturesSource,
    row_meta,
)
from djsandbox_ray.settings.sections import MOST_NAME, Component, component

FILES = "files"
"""The id of a set of questions alone, which were read from files to score answers to them."""
WORD = "Answer the question using a single word or phrase."
"""LLaVA's prompt for short answers."""
_HOLE = re.compile(r"\{(\w+)\}")


class BenchmarkConfig(Component):
    """Where the questions are, and how they are asked."""

    HOLES: ClassVar[tuple[str, ...]] = ("question",)
    """What the prompt may hold in braces; the first must be there."""
    PROMPT: ClassVar[str] = f"{{question}}\n{WORD}"
    SCORING: ClassVar[frozenset[str]] = frozenset()
    """Settings that decide only how answers are scored."""

    path: str | tuple[str, ...] | None = None
    """The benchmark's own files, as they are published."""
    images: str | None = None
    """The folder of the images; if left out, that of the file with the questions."""
    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)] | None = None
    """In place of ``path``: a source whose samples hold questions in their meta data, such as
    ``shapes_questions``."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=MOST_NAME)
    """What the names of its metrics begin with; if left out, that of the benchmark."""
    prompt: str | None = None
    """The user's turn, with the question in place of ``{question}``; if left out, LLaVA's."""
    limit: int | None = Field(default=None, ge=1)
    """Ask about so many only, the same ones for every trial; the score is then none to compare
    with published ones."""
    max_new_tokens: int = Field(default=128, ge=1)
    """After so many, an answer is cut."""

    @field_validator("prompt")
    @classmethod
    def _holes(cls, prompt: str | None) -> str | None:
        if prompt is None:
            return None
        found = _HOLE.findall(prompt)
        if unknown := [name for name in found if name not in cls.HOLES]:
            known = ", ".join(f"{{{name}}}" for name in cls.HOLES)
            raise ValueError(f"{{{unknown[0]}}} stands for nothing (known: {known})")
        if found.count(cls.HOLES[0]) != 1:
            raise ValueError(f"{{{cls.HOLES[0]}}} is to stand there once")
        return prompt

    @model_validator(mode="after")
    def _somewhere(self, info: ValidationInfo) -> Self:
        scoring = bool(info.context and info.context.get(FILES))
        if (self.path is None) == (self.dataset is None) and not (scoring and not self.dataset):
            raise ValueError("either path (the benchmark's files) or dataset (a source) is needed")
        if self.images is not None and self.path is None:
            raise ValueError("images: they belong to the files that path names")
        if isinstance(self.dataset, ShapesQuestionsConfig) or self.dataset is None:
            return self
        if content_of(self.dataset) != "pairs":
            raise ValueError(
                "dataset: its samples are to be images with questions (content: pairs)"
            )
        return self

    @property
    def template(self) -> str:
        """The prompt, with holes."""
        return self.PROMPT if self.prompt is None else self.prompt

    def filled(self, **texts: str) -> str:
        """Return the prompt with texts in its holes."""
        return _HOLE.sub(lambda hole: texts[hole[1]], self.template)


Q = TypeVar("Q")
"""A question of a benchmark, with the answers that are right."""


@dataclass(frozen=True)
class PlacedQuestion(Generic[Q]):
    """A question, and where it is asked."""

    key: str
    """Tells it from the others of the set."""
    row: int
    """Of its image."""
    question: Q


class Benchmark(AnswerEvaluator, Generic[Q]):
    """Asks the questions that stand in the meta data of a set's rows."""

    BENCHMARK: ClassVar[str]
    """Under this name they stand there."""
    SOURCE: ClassVar[type[PicturesSource]]
    """Reads its files."""
    GROUPS: ClassVar[str]
    """What ``limit`` counts, in the plural."""
    config: BenchmarkConfig

    @property
    def name(self) -> str:
        """What its metrics' names begin with."""
        return self.config.name or self.BENCHMARK

    def identity(self) -> Any:
        """Return all settings but where the questions lie, which the id of their set speaks for."""
        return self.config.model_dump(mode="json", exclude={"path", "images", "dataset", "name"})

    def asking(self) -> Any:
        """Return the settings that decide what is asked."""
        left_out = {"path", "images", "dataset", "name", *self.config.SCORING}
        return self.config.model_dump(mode="json", exclude=left_out)

    def source(self) -> Source:
        """Return the benchmark's files as a source, or the one that is configured."""
        if self.config.dataset is None:
            return self._files()
        dataset = self.config.dataset
        if isinstance(dataset, ShapesQuestionsConfig):
            dataset = dataset.model_copy(update={"content": "pairs"})
        return SOURCES.get(dataset.type)(dataset)

    def questions(self) -> EvaluationSet:
        """Return the questions of the benchmark's files alone, to score answers to them.

        Raises:
            BadInput: the configuration names no files, or see :class:`.PicturesSource`.
        """
        if self.config.path is None:
            raise BadInput(
                f"{self.BENCHMARK}: its files of questions are needed, which say what is right"
            )
        return set_of(self.BENCHMARK, self._files().all_pictures())

    def check(self, data: EvaluationSet) -> None:
        """Check that the set is whole, and that there is something for every metric.

        Raises:
            BadInput: images are missing, or questions are none of this benchmark.
        """
        whole = (data.metadata[0] if data.metadata else {}).get(WHOLE)
        if whole is not None and whole["images"] != data.rows:
            raise BadInput(
                f"{self.name}: {whole['images'] - data.rows} of {whole['images']} images cannot be "
                "used (rejected.parquet of the set says why): its score would be another one"
            )
        if not any(True for _ in self._all(data)):
            raise BadInput(
                f"{self.name}: no row of {data.id} has questions for {self.BENCHMARK!r} under "
                f"{QUESTIONS!r} in its meta data"
            )
        self.sort_out(self.placed(data))

    def made_elsewhere(
        self, path: str, questions: str | None = None
    ) -> tuple[EvaluationSet, dict[str, str]]:
        """Return the questions, and the answer that a program has written to each, by key.

        Args:
            path: of the answers.
            questions: a file of that program's that says what its answers are to.

        Raises:
            BadInput: they are not the answers to these questions, and to no others.
        """
        if questions is not None:
            raise BadInput(f"{self.BENCHMARK}: its answers say what they are to: no questions")
        data = self.questions()
        return data, self.match(answer_lines(path), data)

    def score_said(self, data: EvaluationSet, said: Mapping[str, str]) -> dict[str, float]:
        """Score what :meth:`made_elsewhere` has returned.

        Whether answers were cut is not known.

        Raises:
            BadInput: see :meth:`check`.
        """
        self.check(data)
        answers = {key: Answer(key, text, 0, False) for key, text in said.items()}
        lost = len(set(self.unparsed(data, answers)))
        return {**self.score(data, answers), f"{self.name}/unparsed": lost / len(answers)}

    @abstractmethod
    def match(self, lines: Sequence[Line], data: EvaluationSet) -> dict[str, str]:
        """Return the answer to every question of a set, by its key.

        Raises:
            BadInput: see :func:`.made_elsewhere.assigned`.
        """

    @abstractmethod
    def read(self, place: str, entry: Mapping[str, Any]) -> Q:
        """Return a question as it stands in the meta data.

        Raises:
            BadInput: it is none; begins with ``place``.
        """

    @abstractmethod
    def group(self, placed: PlacedQuestion[Q]) -> str:
        """Return what ``limit`` takes or leaves together."""

    def sort_out(self, placed: Sequence[PlacedQuestion[Q]]) -> Any:
        """Return the questions by what they are scored by.

        Raises:
            BadInput: a metric would have none.
        """
        return placed

    def quota(self, placed: PlacedQuestion[Q]) -> str:
        """Return of what ``limit`` takes so many; by default of all there is."""
        return ""

    def placed(self, data: EvaluationSet) -> list[PlacedQuestion[Q]]:
        """Return the questions that are asked, in the order of the set.

        Raises:
            BadInput: one cannot be read.
        """
        found = [one for one in self._all(data) if self.takes(one.question)]
        if self.config.limit is None:
            return found
        by_quota: dict[str, list[str]] = {}
        for one in found:
            by_quota.setdefault(self.quota(one), []).append(self.group(one))
        taken = {
            (quota, group)
            for quota, groups in by_quota.items()
            for group in least(groups, self.config.limit)
        }
        return [one for one in found if (self.quota(one), self.group(one)) in taken]

    def remarks(self, data: EvaluationSet) -> tuple[str, ...]:
        """Say how many questions a limit leaves."""
        asked, there = len(self.placed(data)), sum(self.takes(q.question) for q in self._all(data))
        if asked == there:
            return ()
        return (
            f"{self.name}: {asked:,} of {there:,} questions are asked (limit: {self.config.limit} "
            f"{self.GROUPS}): no score to compare with published ones",
        )

    def prompted(
        self, data: EvaluationSet, placed: PlacedQuestion[Q], text: str, key: str = ""
    ) -> Asked:
        """Return a question as it is asked; under another key, where it is asked several times."""
        return Asked(key or placed.key, data.id, placed.row, text, self.config.max_new_tokens)

    def _files(self) -> PicturesSource:
        config = self.config
        assert config.path is not None, "the configuration has checked it"
        made = {"type": self.BENCHMARK, "path": config.path, "images": config.images}
        return self.SOURCE(self.SOURCE.Config.model_validate({**made, **self.reading()}))

    def reading(self) -> dict[str, Any]:
        """Return further settings of :attr:`SOURCE`."""
        return {}

    def takes(self, question: Q) -> bool:
        """Say whether the configuration wants a question of the set at all."""
        return True

    def _all(self, data: EvaluationSet) -> Iterator[PlacedQuestion[Q]]:
        for row, meta in enumerate(data.metadata):
            questions = meta.get(QUESTIONS, {})
            entries = questions.get(self.BENCHMARK, []) if isinstance(questions, dict) else None
            if not isinstance(entries, list):
                raise BadInput(f"{self.name}: row {row}: {QUESTIONS!r} holds no lists by benchmark")
            for number, entry in enumerate(entries):
                place = f"{self.name}: row {row}, question {number}"
                if not isinstance(entry, dict):
                    raise BadInput(f"{place}: an object is needed, not {type(entry).__name__}")
                yield PlacedQuestion(f"{row}/{number}", row, self.read(place, entry))


def set_of(benchmark: str, pictures: Iterable[BenchmarkImage]) -> EvaluationSet:
    """Return a set of questions alone, without images."""
    metadata = tuple(row_meta({benchmark: picture.questions}, None) for picture in pictures)
    return EvaluationSet(FILES, "", len(metadata), metadata=metadata)


def texts_of(
    answers: Mapping[str, Answer], placed: Iterable[PlacedQuestion[Q]]
) -> list[tuple[PlacedQuestion[Q], str]]:
    """Return questions with what was said to each."""
    return [(one, answers[one.key].text) for one in placed]


def mean(values: Collection[float]) -> float:
    """Return the mean of some numbers, of which there is one at least."""
    return sum(values) / len(values)
