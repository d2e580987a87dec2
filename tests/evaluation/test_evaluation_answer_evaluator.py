"""Asking apart from scoring: what is stored is not asked, and what is asked is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation import answer_store
from djsandbox_ray.evaluation.answer_evaluator import AnswerEvaluator
from djsandbox_ray.evaluation.answer_store import AnswerStore, StoredAnswers, Unanswered
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage

DATA = EvaluationSet("set-1", "nowhere", 4, ("a", "b", "c", "d"), ({}, {}, {}, {}))
QUESTIONS = [Asked(str(row), DATA.id, row, f"what is {row}?", 2) for row in range(10)]


class SpellingConfig(Component):
    weight: float = 1.0
    prompt: str = "spell it"
    row: int = 0
    prefix: str = "SpellingTest/"


class SpellingTest(AnswerEvaluator):
    """Asks for every text; whoever is right is asked once more."""

    Config = SpellingConfig
    VERSION = 1
    config: SpellingConfig

    def asking(self) -> Any:
        return self.config.prompt

    def measures(self) -> tuple[Metric, ...]:
        return (Metric(f"{self.config.prefix}right", low=0, high=1),)

    def ask(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> Sequence[Asked]:
        rows = [row + self.config.row for row in range(data.rows)]
        first = [Asked(f"{row}", data.id, row, self.config.prompt, 2) for row in rows]
        right = [row for row in rows if f"{row}" in answers and answers[f"{row}"].text]
        return [*first, *(Asked(f"{row}/sure", data.id, row, "sure?", 2) for row in right)]

    def score(self, data: EvaluationSet, answers: Mapping[str, Answer]) -> dict[str, float]:
        right = sum(answers[f"{row}"].text == data.texts[row] for row in range(data.rows))
        return {"SpellingTest/right": self.config.weight * right / data.rows}


class Speller:
    """Knows all letters but the last; remembers what it was asked."""

    def __init__(self, dies: int = 10**9) -> None:
        self.asked: list[str] = []
        self._dies = dies

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        if len(self.asked) + len(asked) > self._dies:
            raise RuntimeError("killed")
        self.asked += [one.key for one in asked]
        found = (("" if one.row == DATA.rows - 1 else "abcd"[one.row % 4]) for one in asked)
        answers = [Answer(one.key, text, 1, one.row == 0) for one, text in zip(asked, found)]  # noqa: B905
        return answers[::-1]


def suite(**settings: Any) -> Suite:
    config = SpellingConfig(type=f"{__name__}:SpellingTest", **settings)
    return Suite([config], [DATA])


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(Storage(str(tmp_path)), "training-1", 64)


def test_rounds_are_asked_stored_and_scored_with_the_shares_of_what_is_lost(
    store: AnswerStore,
) -> None:
    speller = Speller()
    found = suite().run(speller, store)
    assert speller.asked == ["0", "1", "2", "3", "0/sure", "1/sure", "2/sure"]
    shares = {"SpellingTest/unparsed": 1 / 7, "SpellingTest/cut": 2 / 7}
    assert found == {"SpellingTest/right": 0.75, **shares}
    again = Speller()
    assert suite().run(again, store) == found
    assert again.asked == []
    metrics = {
        metric.name: metric
        for metric in SpellingTest(SpellingConfig(type="a:SpellingTest")).metrics()
    }
    assert [metrics[name].scored for name in shares] == [False, False]
    assert [metrics[name].better for name in shares] == ["less", "less"]


def test_another_formula_needs_no_model_and_other_questions_do(store: AnswerStore) -> None:
    metrics = {"loss_of_the_family": 0.5, **suite().run(Speller(), store)}
    heavier = suite(weight=2.0)
    assert heavier.identity() == suite().identity()
    assert heavier.scored != suite().scored
    again = heavier.rescored({**metrics, "SpellingTest/of_earlier_times": 1.0}, store)
    assert again == {**metrics, "SpellingTest/right": 1.5}
    other = suite(prompt="say it")
    assert other.identity() != suite().identity()
    with pytest.raises(Unanswered, match="4 of 4 answers are not there, the first to '0'"):
        other.rescored(metrics, store)
    with pytest.raises(Unanswered):
        suite().rescored(metrics, replace(store, samples=32))


def test_a_version_is_part_of_the_scoring_and_asking_of_the_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, scored = suite().identity(), suite().scored
    monkeypatch.setattr(SpellingTest, "VERSION", 2)
    assert suite().identity() == asked
    assert suite().scored != scored
    monkeypatch.setattr(SpellingTest, "ASKING", 2)
    assert suite().identity() != asked


def test_a_kill_loses_a_batch_and_what_is_damaged_is_asked_again(
    store: AnswerStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answer_store, "BATCH", 3)
    dying = Speller(dies=6)
    with pytest.raises(RuntimeError):
        store.of("asking-1", dying).answers(QUESTIONS)
    assert dying.asked == [str(row) for row in range(6)]
    second = Speller()
    found = store.of("asking-1", second).answers(QUESTIONS)
    assert second.asked == ["6", "7", "8", "9"]
    assert list(found) == [str(row) for row in range(10)]
    folder = "answers/training-1/64/asking-1.parquet"
    parts = [f"{folder}/{name}" for name in store.storage.names(folder)]
    assert len(parts) == 4
    data = store.storage.read_bytes(parts[0])
    lost = 10 - len(_without(store, parts[0]))
    store.storage.write_bytes(parts[0], data[:-9] + b"?" + data[-8:])
    third = Speller()
    assert store.of("asking-1", third).answers(QUESTIONS) == found
    assert len(third.asked) == lost
    assert "is not what was written: its questions are asked again" in caplog.text


def _without(store: AnswerStore, part: str) -> list[str]:
    """Return the keys that are left when a part is away."""
    data = store.storage.read_bytes(part)
    store.storage.remove(part)
    kept = StoredAnswers(store.storage, part.rpartition("/")[0])
    known = [one.key for one in QUESTIONS if _known(kept, one)]
    store.storage.write_bytes(part, data)
    return known


def _known(kept: StoredAnswers, one: Asked) -> bool:
    try:
        kept.answers([one])
    except Unanswered:
        return False
    return True


@pytest.mark.parametrize(
    "changed", [{"row": 1}, {"text": "what else?"}, {"max_new_tokens": 3}], ids=str
)
def test_an_answer_to_another_question_of_that_key_does_not_count(
    store: AnswerStore, changed: dict[str, Any]
) -> None:
    store.of("asking-1", Speller()).answers(QUESTIONS[:1])
    again = Speller()
    store.of("asking-1", again).answers([replace(QUESTIONS[0], **changed)])
    assert again.asked == ["0"]


def test_both_of_two_questions_of_one_key_stay_answered(store: AnswerStore) -> None:
    """Parts are named by their content: whichever is read last, none hides another."""
    for number in range(8):
        asked = replace(QUESTIONS[0], text=f"what is {number}?")
        store.of("asking-1", Speller()).answers([asked])
    for number in range(8):
        asked = replace(QUESTIONS[0], text=f"what is {number}?")
        assert store.of("asking-1").answers([asked]).keys() == {"0"}


class Mute:
    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        return [Answer(one.key, "", 0, False) for one in asked[1:]]


class Chatty:
    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        return [Answer(key, "", 0, False) for key in ("more", *(one.key for one in asked))]


@pytest.mark.parametrize(
    ("model", "what"), [(Mute(), "of '0' it gave none"), (Chatty(), "'more' it gave one that")]
)
def test_a_model_answers_what_it_was_asked(store: AnswerStore, model: Any, what: str) -> None:
    with pytest.raises(SandboxError, match=what):
        store.of("asking-1", model).answers(QUESTIONS)
    assert store.storage.names("answers") == []


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"row": 1}, "'4' is about row 4 of 'set-1'; allowed: rows 0 to 3"),
        ({"prefix": "other/"}, "metrics' names begin with 'SpellingTest/', not 'other/right'"),
        ({"prefix": "SpellingTest/w"}, "score gives SpellingTest/right, but measures names"),
    ],
)
def test_an_evaluator_that_does_not_keep_its_word_is_told(
    store: AnswerStore, settings: dict[str, Any], what: str
) -> None:
    with pytest.raises(BadInput, match=what):
        suite(**settings).run(Speller(), store)


def test_who_asks_needs_a_model_that_answers_and_a_place_for_the_answers(
    store: AnswerStore,
) -> None:
    with pytest.raises(BadInput, match=r"the model family is to say them: task\.evaluate"):
        suite().run(Speller())
    model: Any = object()
    with pytest.raises(BadInput, match="this model answers none"):
        suite().run(model, store)
