"""MME: two questions about every image, one to be answered by yes and one by no, in 14 subtasks."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field, field_validator

from djsandbox_ray.dataset.shapes_questions import SUBTASKS as OF_SHAPES
from djsandbox_ray.dataset.shapes_questions import ShapesQuestionsConfig
from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.vqa.benchmark import (
    Benchmark,
    BenchmarkConfig,
    PlacedQuestion,
    mean,
    set_of,
)
from djsandbox_ray.evaluation.vqa.made_elsewhere import Line, answer_files, assigned
from djsandbox_ray.evaluation.vqa.pictures import (
    BenchmarkImage,
    PicturesConfig,
    PicturesSource,
    grouped,
    text_at,
)
from djsandbox_ray.evaluation.vqa.yes_no import YesNo, of_mme

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = (
    *("commonsense_reasoning", "numerical_calculation"),
    *("text_translation", "code_reasoning"),
)
SUBTASKS = (*PERCEPTION, *COGNITION)

_HIGHEST, _COIN = 200.0, 75.0
"""Of a subtask: all right, and what a coin gets (half the questions, a quarter of the pairs)."""
_PLEASE = "Please answer yes or no."
_ANSWERS_OF_RELEASE = "questions_answers_YN"
_COLUMNS = {
    2: "question and answer",
    3: "image, question and answer",
    4: "image, question, truth and answer",
}
_ENDINGS = (".jpg", ".png", ".jpeg")


class MmeFiles(PicturesSource):
    """The folder of MME: a file for every subtask, or a folder of them with a file for every image.

    The former are ``<subtask>.txt`` with lines of image, question and answer between tabs; the
    latter ``<subtask>/<image>.txt`` or ``<subtask>/questions_answers_YN/<image>.txt`` with lines of
    question and answer. Images lie in ``<subtask>/`` or ``<subtask>/images/``.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".txt",)
    Config = PicturesConfig
    BENCHMARK: ClassVar[str] = "mme"

    def home(self, files: Sequence[SourceFile]) -> SourceFile:
        """Return a file in the folder over those of the subtasks."""
        file = files[0]
        _, root = _place(file)
        return replace(file, path=posixpath.join(root, posixpath.basename(file.path)))

    def pictures(self, files: Sequence[SourceFile]) -> list[BenchmarkImage]:
        """Read the questions of every file."""
        pictures: list[BenchmarkImage] = []
        for file in files:
            stem = posixpath.splitext(posixpath.basename(file.path))[0]
            subtask, _ = _place(file)
            if subtask is None:
                pictures += _pictures(_subtask(file, stem), file, None)
            else:
                names = tuple(f"{stem}{ending}" for ending in _ENDINGS)
                pictures += _pictures(subtask, file, names)
        return grouped(pictures, lambda picture: picture.paths)


def _place(file: SourceFile) -> tuple[str | None, str]:
    """Return the subtask in whose folder a file lies, if it does, and the folder over that."""
    folder = posixpath.dirname(file.path)
    if posixpath.basename(folder) == _ANSWERS_OF_RELEASE:
        folder = posixpath.dirname(folder)
    name = posixpath.basename(folder)
    return (name, posixpath.dirname(folder)) if name in SUBTASKS else (None, folder)


def _subtask(file: SourceFile, stem: str) -> str:
    if stem not in SUBTASKS:
        said = unknown("subtask of MME", stem, SUBTASKS)
        raise BadInput(f"{file.name}: {said}; a file or its folder has the name of one")
    return stem


def _pictures(
    subtask: str, file: SourceFile, names: tuple[str, ...] | None
) -> Iterator[BenchmarkImage]:
    """Yield an image for every line of a file.

    Args:
        subtask: whose file it is.
        file: to read.
        names: of its image, one of them, where the lines do not say.
    """
    for place, values in _tabbed(file, 3 if names is None else 2):
        *image, question, answer = values
        found = (*image, *(names or ()))
        paths = [
            path for name in found for path in (f"{subtask}/{name}", f"{subtask}/images/{name}")
        ]
        entry = {
            "subtask": subtask,
            "image": found[0],
            "question": question,
            "answer": _truth(place, answer),
        }
        yield BenchmarkImage(place, tuple(paths), None, [entry])


def _tabbed(file: SourceFile, count: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the values of every line, with its place.

    Raises:
        BadInput: a line has another number of them.
    """
    with file.open() as handle:
        for number, content in enumerate(handle, 1):
            place = f"{file.name}:{number}"
            try:
                line = content.decode("utf-8-sig").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BadInput(f"{place}: no text in UTF-8: {error}") from None
            if not line.strip():
                continue
            values = line.split("\t")
            if len(values) != count:
                raise BadInput(
                    f"{place}: {_COLUMNS[count]} are needed, with tabs between, not "
                    f"{len(values)} values"
                )
            yield place, values


def _truth(place: str, answer: str) -> YesNo:
    word = answer.strip().lower()
    if word == "yes":
        return "yes"
    if word != "no":
        raise BadInput(f"{place}: the answer that is right is Yes or No, not {answer!r}")
    return "no"


@dataclass(frozen=True)
class MmeQuestion:
    """A question of a pair."""

    subtask: str
    image: str
    text: str
    answer: YesNo


class MmeConfig(BenchmarkConfig):
    """MME's folder of questions; ``limit`` takes so many images of every subtask."""

    subtasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Which ones; if left out, all 14, or those that there are in the world of shapes."""

    @field_validator("subtasks")
    @classmethod
    def _known(cls, subtasks: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in subtasks or ():
            if name not in SUBTASKS:
                raise ValueError(str(unknown("subtask of MME", name, SUBTASKS)))
        if len(set(subtasks or ())) < len(subtasks or ()):
            raise ValueError("a subtask stands twice")
        return subtasks


class Mme(Benchmark[MmeQuestion]):
    """``mme/perception`` (0..2000) and ``mme/cognition`` (0..800), and the 14 subtasks (0..200).

    A subtask has 100 times the share of questions that are right, and 100 times the share of images
    of which both are; any answer but yes and no is wrong. Perception and cognition are sums.
    """

    Config = MmeConfig
    VERSION: ClassVar[int] = 1
    BENCHMARK: ClassVar[str] = "mme"
    SOURCE: ClassVar[type[PicturesSource]] = MmeFiles
    GROUPS: ClassVar[str] = "images of each subtask"
    config: MmeConfig

    @property
    def subtasks(self) -> tuple[str, ...]:
        """Those that are asked, in MME's order."""
        asked = self.config.subtasks
        if asked is None and isinstance(self.config.dataset, ShapesQuestionsConfig):
            asked = OF_SHAPES
        return tuple(name for name in SUBTASKS if asked is None or name in asked)

    def identity(self) -> Any:
        """Return the settings, with the subtasks that are meant."""
        return {**super().identity(), "subtasks": list(self.subtasks)}

    def asking(self) -> Any:
        """Return the settings, with the subtasks that are meant."""
        return {**super().asking(), "subtasks": list(self.subtasks)}

    def read(self, place: str, entry: Mapping[str, Any]) -> MmeQuestion:
        """Return a question."""
        subtask = text_at(place, entry, "subtask")
        if subtask not in SUBTASKS:
            raise BadInput(f"{place}: {unknown('subtask of MME', subtask, SUBTASKS)}")
        answer = _truth(place, text_at(place, entry, "answer"))
        image = text_at(place, entry, "image") if "image" in entry else ""
        return MmeQuestion(subtask, image, text_at(place, entry, "question"), answer)

    def takes(self, question: MmeQuestion) -> bool:
        """Take the subtasks that are asked."""
        return question.subtask in self.subtasks

    def group(self, placed: PlacedQuestion[MmeQuestion]) -> str:
        """Take images whole."""
        return f"{placed.row}"

    def quota(self, placed: PlacedQuestion[MmeQuestion]) -> str:
        """Take as many of every subtask."""
        return placed.question.subtask

    def sort_out(
        self, placed: Sequence[PlacedQuestion[MmeQuestion]]
    ) -> dict[str, list[list[PlacedQuestion[MmeQuestion]]]]:
        """Return the pairs of every subtask."""
        pairs: dict[str, dict[int, list[PlacedQuestion[MmeQuestion]]]] = {}
        for one in placed:
            pairs.setdefault(one.question.subtask, {}).setdefault(one.row, []).append(one)
        for subtask, images in pairs.items():
            for pair in images.values():
                if len(pair) != 2:
                    raise BadInput(
                        f"{self.name}: {subtask}: an image has two questions, "
                        f"{pair[0].question.image or f'row {pair[0].row}'} has {len(pair)}"
                    )
        if lacking := [name for name in self.subtasks if name not in pairs]:
            raise BadInput(
                f"{self.name}: no question of {', '.join(lacking)} (there are: "
                f"{', '.join(pairs) or 'none'}); `subtasks` chooses among them"
            )
        return {name: list(pairs[name].values()) for name in self.subtasks}

    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        """Ask every question once, with LLaVA's words in place of MME's."""
        return [
            self.prompted(
                data,
                one,
                self.config.filled(question=one.question.text.replace(_PLEASE, "").strip()),
            )
            for one in self.placed(data)
        ]

    def measures(self) -> tuple[Metric, ...]:
        """Name the sums and the subtasks."""
        asked = self.subtasks
        sums = [(what, len(set(asked) & set(of))) for what, of in _SUMS.items()]
        return (
            *(
                Metric(
                    f"{self.name}/{what}",
                    low=0,
                    high=_HIGHEST * count,
                    chance=_COIN * count,
                )
                for what, count in sums
                if count
            ),
            *(
                Metric(f"{self.name}/{name}", low=0, high=_HIGHEST, chance=_COIN, scored=False)
                for name in asked
            ),
        )

    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        """Score every subtask, and sum up."""
        scores = {}
        for subtask, pairs in self.sort_out(self.placed(data)).items():
            right = [
                [of_mme(answers[one.key].text) == one.question.answer for one in pair]
                for pair in pairs
            ]
            accuracy = mean([mean(pair) for pair in right])
            scores[subtask] = 100 * (accuracy + mean([all(pair) for pair in right]))
        sums = {
            what: sum(scores[name] for name in of if name in scores)
            for what, of in _SUMS.items()
            if not scores.keys().isdisjoint(of)
        }
        return {f"{self.name}/{what}": value for what, value in {**sums, **scores}.items()}

    def unparsed(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Collection[str]:
        """Return answers that are neither yes nor no."""
        return [key for key, answer in answers.items() if of_mme(answer.text) is None]

    def made_elsewhere(
        self, path: str, questions: str | None = None
    ) -> tuple[EvaluationSet, dict[str, str]]:
        """Read a folder of the official tool: ``<subtask>.txt`` with four columns.

        They hold the questions and the truth too; MME's own files, if named, say which questions
        there are to be.
        """
        if questions is not None:
            raise BadInput("mme: its answers say what they are to: no questions")
        lines = list(_answered(path))
        if self.config.path is not None:
            data = self.questions()
            return data, self.match(lines, data)
        pictures = [
            BenchmarkImage(
                line.place,
                (line.values["subtask"], line.values["image"]),
                None,
                [{name: line.values[name] for name in ("subtask", "image", "question", "answer")}],
            )
            for line in lines
        ]
        data = set_of(self.BENCHMARK, grouped(pictures, lambda picture: picture.paths))
        if surplus := sorted({line.values["subtask"] for line in lines} - set(self.subtasks)):
            raise BadInput(f"{path!r}: answers of {', '.join(surplus)} too, which nobody asks for")
        return data, self.match(lines, data)

    def match(self, lines: Sequence[Line], data: EvaluationSet) -> dict[str, str]:
        """Tell questions by subtask, image and text."""
        wanted: dict[Any, list[str]] = {}
        for one in self.placed(data):
            question = one.question
            wanted.setdefault(
                (question.subtask, _stem(question.image), _plainly(question.text)), []
            ).append(one.key)
        return assigned(
            lines,
            wanted,
            lambda line: (
                line.values["subtask"],
                _stem(line.values["image"]),
                _plainly(line.values["question"]),
            ),
            lambda line: line.text("said"),
        )


_SUMS = {"perception": PERCEPTION, "cognition": COGNITION}


def _stem(image: str) -> str:
    """Return an image's name without its ending, which files by image do not say."""
    return posixpath.splitext(image)[0]


def _plainly(question: str) -> str:
    """Return a question without what tools change about it: MME's request, and blanks."""
    return " ".join(question.replace(_PLEASE, "").split())


def _answered(path: str) -> Iterator[Line]:
    """Yield the answers of a folder of the official tool."""
    for file in answer_files(path, (".txt",)):
        subtask = _subtask(file, posixpath.splitext(posixpath.basename(file.path))[0])
        for place, (image, question, truth, said) in _tabbed(file, 4):
            values = {
                "subtask": subtask,
                "image": image,
                "question": question,
                "answer": _truth(place, truth),
                "said": said,
            }
            yield Line(file, place, values)
