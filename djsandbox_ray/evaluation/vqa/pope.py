"""POPE: which things does a model see that are not there?

Of every picture some things are asked about that are in it, and as many that are not: random ones,
popular ones, and ones that often stand beside what is there.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from djsandbox_ray.dataset.shapes_questions import SPLITS as OF_SHAPES
from djsandbox_ray.dataset.shapes_questions import ShapesQuestionsConfig
from djsandbox_ray.dataset.source_files import SourceFile, find_files
from djsandbox_ray.errors import BadInput
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
from djsandbox_ray.evaluation.vqa.made_elsewhere import Line, answer_lines, assigned
from djsandbox_ray.evaluation.vqa.pictures import (
    QUESTIONS,
    BenchmarkImage,
    PicturesConfig,
    PicturesSource,
    objects_of,
    text_at,
)
from djsandbox_ray.evaluation.vqa.yes_no import YesNo, is_plain, of_pope, strictly

Split = Literal["random", "popular", "adversarial"]
SPLITS: tuple[Split, ...] = ("random", "popular", "adversarial")
"""How what is not in the picture was chosen."""

_ALL_YES = 0.9
"""A share of yes above which an F1 says little; half of the answers are to be yes."""
_HIGH = ("f1", "accuracy", "precision", "recall")


class PopeFiles(PicturesSource):
    """``coco_pope_<split>.json``: lines of ``question_id, image, text, label``.

    A question that several splits ask about an image stands there once, with its label in each.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".json", ".jsonl")
    Config = PicturesConfig
    BENCHMARK: ClassVar[str] = "pope"

    def pictures(self, files: Sequence[SourceFile]) -> list[BenchmarkImage]:
        """Read the questions of all splits."""
        found: dict[str, BenchmarkImage] = {}
        questions: dict[tuple[str, str], dict[str, Any]] = {}
        for file in files:
            split = split_named(file)
            for number, (place, entry) in enumerate(objects_of(file)):
                image, text = text_at(place, entry, "image"), text_at(place, entry, "text")
                picture = found.setdefault(image, BenchmarkImage(place, (image,)))
                question = questions.get((image, text))
                if question is None:
                    question = {"question": text, "image": image, "labels": {}, "places": {}}
                    questions[image, text] = question
                    picture.questions.append(question)
                if split in question["labels"]:
                    raise BadInput(f"{place}: it stands in {split} twice: {text!r} about {image!r}")
                question["labels"][split] = _label(place, text_at(place, entry, "label"))
                question["places"][split] = number
        return list(found.values())


def split_named(file: SourceFile) -> Split:
    """Return the split that the name of a file holds.

    Raises:
        BadInput: it holds none, or several.
    """
    name = posixpath.basename(file.path).lower()
    held = [split for split in SPLITS if split in name]
    if len(held) != 1:
        raise BadInput(
            f"{file.name}: its name is to hold one of {', '.join(SPLITS)}, as coco_pope_random.json"
        )
    return held[0]


def _label(place: str, value: str) -> YesNo:
    word = value.strip().lower()
    if word == "yes":
        return "yes"
    if word != "no":
        raise BadInput(f"{place}: the label is yes or no, not {value!r}")
    return "no"


@dataclass(frozen=True)
class PopeQuestion:
    """A question about a thing, and whether it is there."""

    text: str
    image: str
    labels: Mapping[Split, YesNo]
    """What is right, by the splits that ask it."""
    places: Mapping[Split, int]
    """Its number in the file of each; empty where there are no files."""


class PopeConfig(BenchmarkConfig):
    """POPE's three files of questions, and COCO's ``val2014``; ``limit`` takes so many images."""

    SCORING: ClassVar[frozenset[str]] = frozenset({"parse"})

    splits: tuple[Split, ...] | None = Field(default=None, min_length=1)
    """Which ones; if left out, all three, or those that there are in the world of shapes."""
    parse: Literal["official", "strict"] = "official"
    """What counts as yes: by POPE's own rule everything without a negation in its first sentence,
    nothing at all included; ``strict``: what is ``yes`` and nothing else, as in lmms-eval."""


class Pope(Benchmark[PopeQuestion]):
    """``pope/f1``, the mean of its splits; per split F1, accuracy, precision, recall, share of yes.

    Yes is what is looked for. A model that always says yes has an F1 of .667, an untrained one by
    the official rule too: read ``pope/yes`` beside it.
    """

    Config = PopeConfig
    VERSION: ClassVar[int] = 1
    BENCHMARK: ClassVar[str] = "pope"
    SOURCE: ClassVar[type[PicturesSource]] = PopeFiles
    GROUPS: ClassVar[str] = "images"
    config: PopeConfig

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that are asked, in POPE's order."""
        asked: Collection[str] | None = self.config.splits
        if asked is None and isinstance(self.config.dataset, ShapesQuestionsConfig):
            asked = OF_SHAPES
        return tuple(split for split in SPLITS if asked is None or split in asked)

    def identity(self) -> Any:
        """Return the settings, with the splits that are meant."""
        return {**super().identity(), "splits": list(self.splits)}

    def asking(self) -> Any:
        """Return the settings, with the splits that are meant."""
        return {**super().asking(), "splits": list(self.splits)}

    def read(self, place: str, entry: Mapping[str, Any]) -> PopeQuestion:
        """Return a question."""
        labels = entry.get("labels")
        if not isinstance(labels, dict) or not labels or not set(labels) <= set(SPLITS):
            raise BadInput(f"{place}: 'labels' is to hold yes or no by split ({', '.join(SPLITS)})")
        return PopeQuestion(
            text_at(place, entry, "question"),
            text_at(place, entry, "image") if "image" in entry else "",
            {split: _label(place, str(label)) for split, label in labels.items()},
            entry.get("places", {}),
        )

    def takes(self, question: PopeQuestion) -> bool:
        """Take what is in one of the splits that are asked."""
        return any(split in self.splits for split in question.labels)

    def group(self, placed: PlacedQuestion[PopeQuestion]) -> str:
        """Take images whole."""
        return f"{placed.row}"

    def sort_out(
        self, placed: Sequence[PlacedQuestion[PopeQuestion]]
    ) -> dict[Split, list[PlacedQuestion[PopeQuestion]]]:
        """Return the questions of every split."""
        by_split = {
            split: [one for one in placed if split in one.question.labels] for split in self.splits
        }
        for split, some in by_split.items():
            for label in ("yes", "no"):
                if not any(one.question.labels[split] == label for one in some):
                    raise BadInput(
                        f"{self.name}: no question of the split {split!r} is to be answered by "
                        f"{label}; `splits` chooses among them"
                    )
        return by_split

    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        """Ask every question once, whatever splits have it."""
        return [
            self.prompted(data, one, self.config.filled(question=one.question.text))
            for one in self.placed(data)
        ]

    def measures(self) -> tuple[Metric, ...]:
        """Name the means, and what each split has."""
        return (
            Metric(f"{self.name}/f1", low=0, high=1, chance=0.5),
            Metric(f"{self.name}/accuracy", low=0, high=1, chance=0.5, scored=False),
            Metric(
                f"{self.name}/yes", low=0, high=1, chance=0.5, scored=False, suspect_above=_ALL_YES
            ),
            *(
                Metric(f"{self.name}/{split}_{what}", low=0, high=1, chance=0.5, scored=False)
                for split in self.splits
                for what in (*_HIGH, "yes")
            ),
        )

    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        """Score every split, and take means."""
        parse = of_pope if self.config.parse == "official" else strictly
        scores = {
            split: _rates(
                [(one.question.labels[split], parse(answers[one.key].text)) for one in some]
            )
            for split, some in self.sort_out(self.placed(data)).items()
        }
        means = {
            what: mean([rates[what] for rates in scores.values()])
            for what in ("f1", "accuracy", "yes")
        }
        by_split = {
            f"{split}_{what}": value
            for split, rates in scores.items()
            for what, value in rates.items()
        }
        return {f"{self.name}/{what}": value for what, value in {**means, **by_split}.items()}

    def unparsed(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Collection[str]:
        """Return answers that say neither yes nor no, whatever they count as."""
        if self.config.parse == "strict":
            return [key for key, answer in answers.items() if strictly(answer.text) is None]
        return [key for key, answer in answers.items() if not is_plain(answer.text)]

    def made_elsewhere(
        self, path: str, questions: str | None = None
    ) -> tuple[EvaluationSet, dict[str, str]]:
        """Read a file for every split, whose name holds it, or one whose lines say their split.

        Lines are ``question, answer``, as POPE's own tool has them, or LLaVA's with ``prompt`` and
        ``text``; those of a split stand in the order of its questions, unless they name the image.
        LLaVA's one file for all splits says neither: then ``questions`` is its own file with
        ``question_id``, ``image``, ``text`` and ``category``.
        """
        data = _apart(self.questions())
        lines = answer_lines(path)
        if questions is None:
            return data, self.match(lines, data)
        asked = {
            text_at(place, entry, "question_id"): (
                text_at(place, entry, "category"),
                text_at(place, entry, "image"),
                _first_line(text_at(place, entry, "text")),
            )
            for file in find_files(questions, (".jsonl",))
            for place, entry in objects_of(file)
        }

        def told(line: Line) -> tuple[str, str, str]:
            name = line.text("question_id")
            if name not in asked:
                raise BadInput(f"{line.place}: {questions!r} has no question {name!r}")
            return asked[name]

        return data, assigned(lines, self._by_image(data), told, _said)

    def match(self, lines: Sequence[Line], data: EvaluationSet) -> dict[str, str]:
        """Tell questions by split, image and text, or else by split and number."""
        if all(line.values.get("image") is not None for line in lines):
            return assigned(
                lines,
                self._by_image(data),
                lambda line: (_split_of(line), line.text("image"), _question(line)),
                _said,
            )
        by_number: dict[tuple[str, int], PlacedQuestion[PopeQuestion]] = {
            (split, number): one
            for one in self.placed(data)
            for split, number in one.question.places.items()
        }
        counts: Counter[str] = Counter()

        def told(line: Line) -> tuple[str, int]:
            split = _split_of(line)
            number = counts[split]
            counts[split] += 1
            one = by_number.get((split, number))
            if one is not None and _question(line) != one.question.text:
                raise BadInput(
                    f"{line.place}: it answers {_question(line)!r}, but question {number + 1} of "
                    f"{split} is {one.question.text!r}: answers stand in the order of the "
                    "questions, or name their image"
                )
            return split, number

        wanted = {at: [one.key] for at, one in by_number.items()}
        return assigned(lines, wanted, told, _said)

    def _by_image(self, data: EvaluationSet) -> dict[Any, list[str]]:
        return {
            (split, one.question.image, one.question.text): [one.key]
            for one in self.placed(data)
            for split in one.question.labels
        }


def _apart(data: EvaluationSet) -> EvaluationSet:
    """Return a set in which every split asks its own questions: a program was asked each of them.

    What it has said to one may differ from split to split.
    """
    pictures = [
        BenchmarkImage(
            "",
            questions=[
                {**entry, "labels": {split: label}, "places": {split: entry["places"][split]}}
                for entry in meta[QUESTIONS]["pope"]
                for split, label in entry["labels"].items()
            ],
        )
        for meta in data.metadata
    ]
    return set_of("pope", pictures)


def _split_of(line: Line) -> str:
    if line.values.get("category") is not None:
        return line.text("category")
    try:
        return split_named(line.file)
    except BadInput:
        raise BadInput(
            f"{line.place}: neither the file's name nor a key 'category' says which split it is of "
            f"({', '.join(SPLITS)}); for LLaVA's one file of answers, --questions names its file "
            "of questions (llava_pope_test.jsonl)"
        ) from None


def _question(line: Line) -> str:
    return _first_line(line.text("question", "prompt"))


def _first_line(text: str) -> str:
    """Return a question without the request that LLaVA puts below it."""
    return text.strip().partition("\n")[0].strip()


def _said(line: Line) -> str:
    return line.text("answer") if "answer" in line.values else line.text("text")


def _rates(labelled: Sequence[tuple[YesNo, YesNo | None]]) -> dict[str, float]:
    """Return what labels and predictions of one split give; nothing found has a precision of 0.

    A prediction that is neither yes nor no is wrong.
    """
    said_yes = [truth for truth, said in labelled if said == "yes"]
    found = said_yes.count("yes")
    positives = sum(truth == "yes" for truth, _ in labelled)
    precision = found / len(said_yes) if said_yes else 0.0
    recall = found / positives
    return {
        "f1": 2 * precision * recall / (precision + recall) if found else 0.0,
        "accuracy": mean([truth == said for truth, said in labelled]),
        "precision": precision,
        "recall": recall,
        "yes": len(said_yes) / len(labelled),
    }
