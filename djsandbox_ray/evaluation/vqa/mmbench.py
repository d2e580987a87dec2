"""MMBench: questions with up to four options, each asked with its options in every rotation."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.vqa.benchmark import Benchmark, BenchmarkConfig, PlacedQuestion, mean
from djsandbox_ray.evaluation.vqa.made_elsewhere import Line, assigned
from djsandbox_ray.evaluation.vqa.mmbench_files import (
    PASS,
    ImageCell,
    Language,
    MmBenchFiles,
    row_of,
    whole_number,
)
from djsandbox_ray.evaluation.vqa.options import letter_of, rotated
from djsandbox_ray.evaluation.vqa.pictures import PicturesSource, text_at

CATEGORIES = (
    "coarse_perception",
    "finegrained_perception (instance-level)",
    "finegrained_perception (cross-instance)",
    "attribute_reasoning",
    "relation_reasoning",
    "logic_reasoning",
)
"""The values of ``l2-category`` in MMBench's own files."""
_REQUESTS: dict[Language, str] = {
    "en": "Answer with the option's letter from the given choices directly.",
    "cn": "请直接回答选项字母。",
}
_OF_FIRST = ("vanilla", "unparsed")
"""What answers to the first rotation alone tell."""
_UNNAMED = re.compile(r"[^\w.\-]+")
"""Signs that are better in no name of a metric."""


@dataclass(frozen=True)
class MmBenchQuestion:
    """A question, with its options in every rotation."""

    id: str
    text: str
    hint: str
    category: str
    passes: tuple[tuple[dict[str, str], str], ...]
    """Options by letter, and the right one."""


class MmBenchConfig(BenchmarkConfig):
    """MMBench's table of its dev part, in English or Chinese; ``limit`` takes so many questions."""

    HOLES: ClassVar[tuple[str, ...]] = ("question", "hint", "options")

    language: Language = "en"
    """``en``, or ``cn`` for MMBench-CN, whose metrics are called ``mmbench_cn/...``."""
    all_passes: bool = False
    """Ask every rotation, of questions that are answered wrongly before too: for the mean over
    passes. Else a question is asked on only as long as its answers are right."""
    categories: tuple[str, ...] | None = None
    """Of which a score is shown; if left out, the six of MMBench's own tables, of other files
    none."""

    @property
    def template(self) -> str:
        """The prompt, with holes."""
        return self.prompt or f"{{hint}}{{question}}\n{{options}}\n{_REQUESTS[self.language]}"


class MmBench(Benchmark[MmBenchQuestion]):
    """``mmbench/circular``: the share of questions that are right in every rotation of options.

    ``vanilla`` is the share of those that are right in the first one, as printed. What an answer
    means is read by :func:`~.options.letter_of`; what cannot be read is wrong.
    """

    Config = MmBenchConfig
    VERSION: ClassVar[int] = 1
    BENCHMARK: ClassVar[str] = "mmbench"
    SOURCE: ClassVar[type[PicturesSource]] = MmBenchFiles
    GROUPS: ClassVar[str] = "questions"
    config: MmBenchConfig

    @property
    def name(self) -> str:
        """What its metrics' names begin with: by default the benchmark, and that it is Chinese."""
        return self.config.name or ("mmbench_cn" if self.config.language == "cn" else "mmbench")

    def reading(self) -> dict[str, Any]:
        """Return the language."""
        return {"language": self.config.language}

    @property
    def categories(self) -> tuple[str, ...]:
        """Those of which a score is shown."""
        if self.config.categories is not None:
            return self.config.categories
        path = self.config.path
        paths = (path,) if isinstance(path, str) else path or ()
        tables = bool(paths) and all(posixpath.splitext(one)[1] == ".tsv" for one in paths)
        return CATEGORIES if tables else ()

    def identity(self) -> Any:
        """Return the settings, with the categories that are meant."""
        return {**super().identity(), "categories": list(self.categories)}

    def asking(self) -> Any:
        """Return the settings that decide what is asked."""
        return {key: one for key, one in super().asking().items() if key != "categories"}

    def read(self, place: str, entry: Mapping[str, Any]) -> MmBenchQuestion:
        """Return a question, with rotations of its options where it has the first pass only."""
        passes = entry.get("passes")
        are_objects = isinstance(passes, list) and all(isinstance(one, dict) for one in passes)
        if not passes or not are_objects:
            raise BadInput(f"{place}: 'passes' is to list options with their answer")
        rows = [
            row_of(
                place,
                {**entry, "index": 0, "answer": one.get("answer")},
                one.get("options"),
                ImageCell(),
            )
            for one in passes
        ]
        found = [(row.options, row.answer) for row in rows]
        if len(found) == 1:
            options, answer = found[0]
            found = [rotated(options, answer, by) for by in range(len(options))]
        return MmBenchQuestion(
            text_at(place, entry, "id") if entry.get("id") is not None else "",
            rows[0].question,
            rows[0].hint,
            rows[0].category,
            tuple(found),
        )

    def group(self, placed: PlacedQuestion[MmBenchQuestion]) -> str:
        """Take questions one by one, each in all rotations."""
        return placed.question.id or placed.key

    def sort_out(
        self, placed: Sequence[PlacedQuestion[MmBenchQuestion]]
    ) -> dict[str, list[PlacedQuestion[MmBenchQuestion]]]:
        """Return the questions of every category that is shown."""
        found: dict[str, list[PlacedQuestion[MmBenchQuestion]]] = {
            name: [] for name in self.categories
        }
        for one in placed:
            found.setdefault(one.question.category, []).append(one)
        if lacking := [name for name in self.categories if not found[name]]:
            there = ", ".join(name for name, some in found.items() if some)
            raise BadInput(
                f"{self.name}: no question of the category {', '.join(map(repr, lacking))} (there "
                f"are: {there}); `categories` chooses among them"
            )
        return {name: found[name] for name in self.categories}

    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        """Ask the first rotation of all, then the next of those that are right so far."""
        asked = []
        for one in self.placed(data):
            for number, (options, right) in enumerate(one.question.passes):
                key = _key(one, number)
                asked.append(self.prompted(data, one, self._text(one.question, options), key))
                said = answers.get(key)
                wrong = said is None or letter_of(said.text, options) != right
                if wrong and not self.config.all_passes:
                    break
        return asked

    def _text(self, question: MmBenchQuestion, options: Mapping[str, str]) -> str:
        return self.config.filled(
            question=question.text,
            hint=f"{question.hint}\n" if question.hint else "",
            options="\n".join(f"{letter}. {text}" for letter, text in options.items()),
        )

    def measures(self) -> tuple[Metric, ...]:
        """Name the shares."""
        shown = [Metric(f"{self.name}/vanilla", low=0, high=1, chance=0.25, scored=False)]
        if self.config.all_passes:
            shown.append(Metric(f"{self.name}/mean_pass", low=0, high=1, chance=0.25, scored=False))
        shown += [
            Metric(self._named(name), low=0, high=1, chance=0, scored=False)
            for name in self.categories
        ]
        return (Metric(f"{self.name}/circular", low=0, high=1, chance=0), *shown)

    def _named(self, category: str) -> str:
        return f"{self.name}/{_UNNAMED.sub('_', category).strip('_')}"

    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        """Read the letters; a rotation behind a wrong one need not be there."""
        placed = self.placed(data)
        right = {one.key: self._right(one, answers) for one in placed}
        whole = {
            one.key: len(right[one.key]) == len(one.question.passes) and all(right[one.key])
            for one in placed
        }
        scores = {
            f"{self.name}/circular": mean(whole.values()),
            f"{self.name}/vanilla": mean([passes[0] for passes in right.values()]),
        }
        if self.config.all_passes:
            scores[f"{self.name}/mean_pass"] = mean(
                [one for passes in right.values() for one in passes]
            )
        for category, some in self.sort_out(placed).items():
            scores[self._named(category)] = mean([whole[one.key] for one in some])
        return scores

    def _right(
        self, placed: PlacedQuestion[MmBenchQuestion], answers: Mapping[str, Answer]
    ) -> list[bool]:
        """Say of every rotation that was asked whether it is right."""
        found = []
        for number, (options, letter) in enumerate(placed.question.passes):
            said = answers.get(_key(placed, number))
            if said is None:
                break
            found.append(letter_of(said.text, options) == letter)
        return found

    def unparsed(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Collection[str]:
        """Return answers that name no option, or several."""
        return [
            key
            for one in self.placed(data)
            for number, (options, _) in enumerate(one.question.passes)
            if (key := _key(one, number)) in answers
            and letter_of(answers[key].text, options) is None
        ]

    def match(self, lines: Sequence[Line], data: EvaluationSet) -> dict[str, str]:
        """Take tables of ``index, prediction``, or LLaVA's lines (``question_id, text``).

        The pass is what the index has in millions, or LLaVA's ``round_id``.
        """
        wanted = {
            (one.question.id, number): [_key(one, number)]
            for one in self.placed(data)
            for number in range(len(one.question.passes))
        }
        told = [_told(line) for line in lines]
        if all(number == 0 for _, number in told):
            wanted = {ident: keys for ident, keys in wanted.items() if ident[1] == 0}
        return assigned(lines, wanted, _told, lambda line: line.text("prediction", "text"))

    def score_said(self, data: EvaluationSet, said: Mapping[str, str]) -> dict[str, float]:
        """Score answers to every rotation; of answers to the first ones alone, what they tell."""
        scores = super().score_said(data, said)
        if any(not key.endswith("/0") for key in said):
            return scores
        return {f"{self.name}/{what}": scores[f"{self.name}/{what}"] for what in _OF_FIRST}


def _key(placed: PlacedQuestion[MmBenchQuestion], number: int) -> str:
    return f"{placed.key}/{number}"


def _told(line: Line) -> tuple[str, int]:
    """Return the question and the pass that a line answers."""
    named = line.text("index", "question_id", "id")
    index = whole_number(line.place, "index", named)
    later = whole_number(line.place, "round_id", line.values.get("round_id") or 0)
    return str(index % PASS), index // PASS + later
