"""TextVQA: questions about what is written in pictures, with the answers of ten people each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from djsandbox_ray.dataset.source_files import SourceFile, find_files
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.vqa.benchmark import (
    WORD,
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
    document_of,
    grouped,
    text_at,
)

_OCR = "Reference OCR token: "


class TextVqaFilesConfig(PicturesConfig):
    """``TextVQA_0.5.1_val.json`` and the folder ``train_images``."""

    LOCATION: ClassVar[frozenset[str]] = frozenset({"path", "images", "ocr"})

    ocr: str | None = None
    """``TextVQA_Rosetta_OCR_v0.2_val.json``: what a program has read in the pictures."""


class TextVqaFiles(PicturesSource):
    """Questions, answers and images of TextVQA, in its own format."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".json",)
    Config = TextVqaFilesConfig
    BENCHMARK: ClassVar[str] = "textvqa"
    config: TextVqaFilesConfig

    def files(self) -> list[SourceFile]:
        """Find the files; those with what programs have read come last."""
        return [*super().files(), *self._ocr_files()]

    def _ocr_files(self) -> list[SourceFile]:
        return [] if self.config.ocr is None else find_files(self.config.ocr, self.SUFFIXES)

    def pictures(self, files: Sequence[SourceFile]) -> list[BenchmarkImage]:
        """Read ``data[].question, answers, image_id, question_id``."""
        count = len(files) - len(self._ocr_files())
        read = _tokens(files[count:]) if self.config.ocr is not None else None
        pictures = [
            _picture(f"{file.name}: data[{number}]", entry, read)
            for file in files[:count]
            for number, entry in enumerate(_data_of(file))
        ]
        return grouped(pictures, lambda picture: picture.paths)


def _data_of(file: SourceFile) -> list[Any]:
    document = document_of(file)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        raise BadInput(f"{file.name}: an object with a list 'data' is needed, as TextVQA's files")
    return data


def _picture(place: str, entry: Any, read: Mapping[str, list[str]] | None) -> BenchmarkImage:
    if not isinstance(entry, dict):
        raise BadInput(f"{place}: an object is needed, not {type(entry).__name__}")
    image = text_at(place, entry, "image_id")
    answers = entry.get("answers")
    if answers is None:
        raise BadInput(
            f"{place}: it has no 'answers': those of TextVQA's test part are not published; the "
            "file of its val part has them"
        )
    if read is not None and image not in read:
        raise BadInput(f"{place}: ocr: nothing is said there of the image {image!r}")
    question = {
        "id": text_at(place, entry, "question_id"),
        "question": text_at(place, entry, "question"),
        "answers": answers,
        "image": image,
        **({} if read is None else {"ocr": read[image]}),
    }
    return BenchmarkImage(place, (f"{image}.jpg",), None, [question])


def _tokens(files: Sequence[SourceFile]) -> dict[str, list[str]]:
    """Return what a program has read, by image."""
    found = {}
    for file in files:
        for number, entry in enumerate(_data_of(file)):
            place = f"{file.name}: data[{number}]"
            tokens = entry.get("ocr_tokens") if isinstance(entry, dict) else None
            if not isinstance(tokens, list):
                raise BadInput(f"{place}: an object with 'image_id' and a list 'ocr_tokens'")
            found[text_at(place, entry, "image_id")] = [str(token) for token in tokens]
    return found


@dataclass(frozen=True)
class TextVqaQuestion:
    """A question with the answers of people."""

    id: str
    image: str
    text: str
    answers: tuple[str, ...]
    ocr: tuple[str, ...] | None
    """What a program has read in the picture; None where none was asked to."""


class TextVqaConfig(BenchmarkConfig):
    """TextVQA's val part: its file of questions, and the folder ``train_images``."""

    HOLES: ClassVar[tuple[str, ...]] = ("question", "ocr")
    PROMPT: ClassVar[str] = f"{{question}}\n{{ocr}}{WORD}"

    ocr: str | None = None
    """The file with what a program has read in the pictures, which the prompt then tells the model,
    as LLaVA's published scores have it; if left out, the model reads alone."""


class TextVqa(Benchmark[TextVqaQuestion]):
    """``textvqa/accuracy``: how many of ten people agree, a third each, 1 at most."""

    Config = TextVqaConfig
    VERSION: ClassVar[int] = 1
    BENCHMARK: ClassVar[str] = "textvqa"
    SOURCE: ClassVar[type[PicturesSource]] = TextVqaFiles
    GROUPS: ClassVar[str] = "questions"
    config: TextVqaConfig

    def asking(self) -> Any:
        """Return the settings that decide what is asked: whether the model is told what is read."""
        return {**super().asking(), "ocr": self.config.ocr is not None}

    def identity(self) -> Any:
        """Return the settings; where the file of read words lies is none of them."""
        return {**super().identity(), "ocr": self.config.ocr is not None}

    def reading(self) -> dict[str, Any]:
        """Return the file of read words."""
        return {"ocr": self.config.ocr}

    def read(self, place: str, entry: Mapping[str, Any]) -> TextVqaQuestion:
        """Return a question."""
        answers, tokens = entry.get("answers"), entry.get("ocr")
        if not isinstance(answers, list) or len(answers) < LEAST_ANSWERS:
            found = len(answers) if isinstance(answers, list) else "no"
            raise BadInput(f"{place}: a list of ten 'answers' is needed, there are {found}")
        return TextVqaQuestion(
            text_at(place, entry, "id"),
            text_at(place, entry, "image") if "image" in entry else "",
            text_at(place, entry, "question"),
            tuple(map(str, answers)),
            None if tokens is None else tuple(map(str, tokens)),
        )

    def group(self, placed: PlacedQuestion[TextVqaQuestion]) -> str:
        """Take questions one by one."""
        return placed.question.id

    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        """Ask every question once."""
        return [self.prompted(data, one, self._text(one.question)) for one in self.placed(data)]

    def _text(self, question: TextVqaQuestion) -> str:
        read = "" if question.ocr is None else f"{_OCR}{', '.join(question.ocr)}\n"
        return self.config.filled(question=question.text, ocr=read)

    def measures(self) -> tuple[Metric, ...]:
        """Name the accuracy."""
        return (Metric(f"{self.name}/accuracy", low=0, high=1, chance=0),)

    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        """Compare with the answers of people."""
        said = texts_of(answers, self.placed(data))
        accuracy = mean([consensus(text, one.question.answers) for one, text in said])
        return {f"{self.name}/accuracy": accuracy}

    def unparsed(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Collection[str]:
        """Return answers of which nothing is left to compare."""
        return [key for key, answer in answers.items() if not normal(answer.text)]

    def match(self, lines: Sequence[Line], data: EvaluationSet) -> dict[str, str]:
        """Take answers as LLaVA writes them, or as the challenge's server takes them.

        The former are ``question_id`` (the image's), ``prompt`` and ``text``, the latter
        ``question_id`` and ``answer``.
        """
        by_prompt = any("prompt" in line.values for line in lines)
        wanted: dict[Any, list[str]] = {}
        for one in self.placed(data):
            question = one.question
            told = (question.image, question.text.lower()) if by_prompt else question.id
            wanted.setdefault(told, []).append(one.key)
        if by_prompt:
            return assigned(lines, wanted, _asked_in_prompt, lambda line: line.text("text"))
        return assigned(
            lines, wanted, lambda line: line.text("question_id"), lambda line: line.text("answer")
        )


def _asked_in_prompt(line: Line) -> tuple[str, str]:
    """Return image and question of an answer of LLaVA, whose prompt has them on a line."""
    first, _, rest = line.text("prompt").partition("\n")
    if first.startswith(_OCR.strip()):
        first = rest.partition("\n")[0]
    return line.text("question_id"), first.strip().lower()
